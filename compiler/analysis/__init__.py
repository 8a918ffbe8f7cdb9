"""What a graph means: exact semantics, step functions, ranges, the cut into host and hardware.

Analyses read graphs, and at most annotate them; what changes a graph is a pass.
"""
