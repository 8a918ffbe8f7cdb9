"""Emitted Verilog, read back as circuits.

What is not in the form that hqc writes is refused; what it means is for `proof` to say.
"""
