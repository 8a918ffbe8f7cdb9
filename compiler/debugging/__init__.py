"""For those who write passes and backends: bisect, reduce, and scaffolds to start from."""
