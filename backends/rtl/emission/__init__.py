"""From circuits to a Verilog project: stages, modules, the top, test benches."""
