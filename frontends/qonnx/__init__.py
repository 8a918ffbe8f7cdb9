"""ONNX files of any origin to the quantised state: QONNX operators of all dialects.

Graphs on integer codes (QDQ, QOperator) are rewritten by `hqc.frontends.qcdq` first.
"""

from __future__ import annotations

from hqc.frontends.qonnx.importer import DEFAULT_PORT, DOMAINS, normalise_import

__all__ = ["DEFAULT_PORT", "DOMAINS", "normalise_import"]
