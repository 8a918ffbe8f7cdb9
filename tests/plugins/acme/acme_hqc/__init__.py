"""Plug-ins for hqc: MLPs in JSON, and ternary operators."""
