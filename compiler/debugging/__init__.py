"""For those who write passes and backends: bisect, reduce, and scaffolds to start from.

These run passes from outside, as the driver does; the pass manager never needs them.
"""
