"""Whatever PyTorch has, to the frontend that it is for."""

from __future__ import annotations

from typing import Any

from onnx_ir import Model
from torch import nn
from torch.export import ExportedProgram

from hqc.diagnostics import reject
from hqc.frontends.torch_export.brevitas import from_brevitas, is_brevitas
from hqc.frontends.torch_export.importer import from_exported, from_module


def from_torch(source: Any, example_inputs: Any = None) -> Model:
    """Translate whatever PyTorch has: a module, one with Brevitas layers, or an exported program.

    Args:
        source: an `nn.Module` or a `torch.export.ExportedProgram`.
        example_inputs: needed for modules: a tensor or a tuple of tensors, batch first.

    Raises:
        HqcError: HQC001 for anything else; else as the function for the kind of source.
    """
    if isinstance(source, ExportedProgram):
        return from_exported(source)
    if not isinstance(source, nn.Module):
        raise reject("HQC001", f"{type(source).__name__} is not a PyTorch module or program")
    if is_brevitas(source):
        return from_brevitas(source, example_inputs)
    return from_module(source, example_inputs)
