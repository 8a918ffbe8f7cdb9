"""What emitted logic computes, proven for all inputs.

It trusts circuits that `reading` found in the text, and nothing that the lowering or emission
says.
"""
