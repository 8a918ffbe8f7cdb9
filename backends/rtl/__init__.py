"""The RTL backend: pipelined Verilog of an integer network, simulated, proven and measured.

Circuits and their lowering, emission, reading, proof and simulation; nothing of HLS is in here.
"""
