"""What the Vitis and Catapult backends share, and both: projects, read-back, emulation.

Everything that knows an hls4ml name or template belongs here.
"""
