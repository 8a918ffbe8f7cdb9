"""hqc inside other compilers, and their passes inside hqc; each module loads what it adapts.

Only `hqc export` reaches for it; no other room may need what it adapts.
"""
