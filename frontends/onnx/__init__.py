"""What every reader of ONNX files needs: shapes, constant expressions, grids of odd quantisers."""
