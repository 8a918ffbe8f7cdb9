"""HAWQ: reading its checkpoints exactly, and its scheme of quantisation-aware training."""

from hqc.frontends.hawq.importer import load, parse

__all__ = ["load", "parse"]
