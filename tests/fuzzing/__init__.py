"""Random quantised graphs, the chain of executors that must agree on them, and what shrinks them.

`tools/fuzz.py` runs it; `choices` is where randomness comes from, `networks` the generator,
`chain` the checks, `shrink` and `regression` what becomes of a failure.
"""
