"""Data, float models, quantisation-aware training, and the archive that a training ends in.

How widths were chosen is not known here.
"""

from __future__ import annotations

from hqc.codesign.training.loop import Batches, Options, evaluate, train

__all__ = ["Batches", "Options", "evaluate", "train"]
