"""HAWQ: reading its checkpoints exactly, and its scheme of quantisation-aware training.

Which widths to train with is `hqc.codesign`; here is what HAWQ computes with them.
"""

from hqc.frontends.hawq.importer import load, parse

__all__ = ["load", "parse"]
