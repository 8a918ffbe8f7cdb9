"""Emitted Verilog, run under Verilator or Icarus.

It runs text that is on disk, as it is; whether that is right is decided by those who compare.
"""
