"""What every reader of ONNX files needs: shapes, constant expressions, grids of odd quantisers.

Nothing here reads a whole file: that is `qonnx`, with `qcdq` in front of it.
"""
