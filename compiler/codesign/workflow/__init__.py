"""All steps from a float model to a trained mixed-precision one, resumable at each epoch.

It puts the rooms beside it in order and keeps their state; no method of its own is in here.
"""

from __future__ import annotations

from hqc.codesign.workflow.quantization import Quantized, quantize
from hqc.codesign.workflow.settings import Settings

__all__ = ["Quantized", "Settings", "quantize"]
