"""From circuits to a Verilog project: stages, modules, the top, test benches.

It decides when logic runs and how it is written, never what it computes.
"""
