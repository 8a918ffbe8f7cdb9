"""Are two graphs, or a graph and its hardware, the same function? Samples, oracles, comparison.

Every comparison is `==` on codes; how far float32 may be from it is derived, never tolerated.
"""

from __future__ import annotations

from hqc.equivalence.bit_exactness import ExactCore

__all__ = ["ExactCore"]
