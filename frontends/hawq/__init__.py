"""HAWQ: reading its checkpoints exactly, and its scheme of quantisation-aware training."""

from hqc.frontends.hawq.load import load, parse

__all__ = ["load", "parse"]
