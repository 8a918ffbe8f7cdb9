"""The commands that measure, choose and train: sensitivity, allocate, quantize."""
