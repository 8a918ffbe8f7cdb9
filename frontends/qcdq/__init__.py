"""`QuantizeLinear`, `DequantizeLinear` and operators on integer codes, rewritten as quantisers."""

from __future__ import annotations

from hqc.frontends.qcdq.importer import is_integer_graph, rewrite

__all__ = ["is_integer_graph", "rewrite"]
