"""hqc inside other compilers, and their passes inside hqc; each module loads what it adapts."""
