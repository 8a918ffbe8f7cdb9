"""Emitted Verilog, read back as circuits."""
