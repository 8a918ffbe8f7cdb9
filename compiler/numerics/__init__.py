"""Fixed-point types, proven bounds and exact arithmetic on integers and rationals.

What belongs here can be said without a graph: no ONNX, no torch, no node.
"""

from __future__ import annotations

from hqc.numerics.types import INT64_BITS, Codes, FixedType, Overflow, Range, Rounding

__all__ = ["Codes", "FixedType", "INT64_BITS", "Overflow", "Range", "Rounding"]
