"""The RTL backend: pipelined Verilog of an integer network, simulated, proven and measured."""
