"""PyTorch to the IR: programs, modules, Brevitas and PT2E models, quantisation after training.

Programs are read as data; nothing in a file is ever executed.
"""

from __future__ import annotations

from hqc.frontends.torch_export.any_source import from_torch
from hqc.frontends.torch_export.importer import export_module, from_exported, from_module

__all__ = ["export_module", "from_exported", "from_module", "from_torch"]
