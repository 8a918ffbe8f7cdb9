"""Emitted Verilog, run under Verilator or Icarus."""
