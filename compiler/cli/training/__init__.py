"""The commands that measure, choose and train: sensitivity, allocate, quantize.

Their options, files and texts; what they compute is `hqc.codesign`.
"""
