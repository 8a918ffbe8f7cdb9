"""The passes of hqc, one per file."""
