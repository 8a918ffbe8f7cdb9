"""`QuantizeLinear`, `DequantizeLinear` and operators on integer codes, rewritten as quantisers.

It ends in quantisers of the QONNX dialect; operators of that dialect are `hqc.frontends.qonnx`.
"""

from __future__ import annotations

from hqc.frontends.qcdq.importer import is_integer_graph, rewrite

__all__ = ["is_integer_graph", "rewrite"]
