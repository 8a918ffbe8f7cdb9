"""Brevitas models: their quantisers become `hqc::quant`, and then they are PyTorch models.

Brevitas prepares a module for QONNX export by collecting the parameters of each quantiser; here
these go into the same operator that `hqc.frontends.torch` uses, so that a Brevitas model keeps its
source lines, module names and dynamic batch. The module itself is not touched: a copy is prepared.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from typing import Any

from onnx_ir import Model

from hqc.diagnostics import Exit, HqcError, reject
from hqc.numerics.types import Rounding

_MODES = {"ROUND_TO_ZERO": Rounding.DOWN, "HALF_EVEN": Rounding.ROUND}


def is_brevitas(module: Any) -> bool:
    """Whether a PyTorch module contains Brevitas layers; Brevitas itself is not imported."""
    return any(type(m).__module__.partition(".")[0] == "brevitas" for m in module.modules())


def from_brevitas(module: Any, example_inputs: Any) -> Model:
    """Translate a Brevitas module in eval mode to ONNX + QONNX nodes.

    Args:
        module: a trained module with Brevitas layers.
        example_inputs: a tensor or a tuple of tensors, batch first.

    Raises:
        HqcError: HQC404 Brevitas is not installed; HQC102 a quantiser that has no QONNX form
            (minifloat, groupwise); and as `hqc.frontends.torch_export.from_module`.
    """
    if importlib.util.find_spec("brevitas") is None:
        raise reject(
            "HQC404",
            "reading a Brevitas model needs Brevitas",
            helps=("pip install 'hqc[brevitas]'",),
            exit_=Exit.TOOL,
        )
    from hqc.frontends.torch_export.importer import as_examples, from_module

    inputs = as_examples(example_inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = _prepare(module, inputs)
        return from_module(prepared, inputs)


def _prepare(module: Any, inputs: tuple[Any, ...]) -> Any:
    """A copy in Brevitas's export mode whose quantisers are `hqc::quant`."""
    import torch
    from brevitas.export.manager import ExportContext, _override_act_caching_mode
    from brevitas.export.onnx.qonnx.manager import QONNXDynamoManager

    prepared = copy.deepcopy(module).eval()
    try:
        with torch.no_grad(), ExportContext(QONNXDynamoManager):
            prepared.apply(QONNXDynamoManager.set_export_handler)
            QONNXDynamoManager._cache_inp_out(prepared, *inputs)
            QONNXDynamoManager.set_export_mode(prepared, enabled=True)
            prepared.apply(lambda m: _override_act_caching_mode(m, enabled=False))
            for m in prepared.modules():
                if (handler := getattr(m, "export_handler", None)) is not None:
                    _redirect(handler, m)
    except HqcError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise reject(
            "HQC102",
            f"Brevitas cannot prepare {type(module).__name__} for export",
            notes=tuple(line[:300] for line in lines[:3]) or (type(error).__name__,),
        ) from error
    return prepared


def _redirect(handler: Any, proxy: Any) -> None:
    """Make a quantiser of Brevitas emit `hqc::quant`, and put its weights on their grid."""
    import torch

    values = getattr(handler, "quant_weight_values", None)
    if values:
        # Brevitas rounds weights by modes that QONNX does not have: they are rounded here.
        for layer in proxy.tracked_module_list:
            value = values.get(layer.weight.data_ptr())
            if value is not None:
                layer.weight.data.copy_(torch.as_tensor(value))
    handler.export_op = _emit


def _emit(op: Any, x: Any, *parameters: Any) -> Any:
    from hqc.frontends.torch.quant_operator import quant

    kind = op.__name__
    if kind == "BrevitasTruncOp":
        return _truncate(x, *parameters)
    if kind not in ("BrevitasQuantOp", "BrevitasBinaryQuantOp"):
        raise reject(
            "HQC102",
            f"Brevitas quantiser {kind.removeprefix('Brevitas')[:-2]} in a module",
            helps=("export it with brevitas.export.export_qonnx, and compile the file",),
        )
    scale, zero_point, bits, narrow, signed, mode = parameters
    width = float(bits)
    if width != int(width):
        raise reject("HQC107", f"Brevitas bit width {width:g} is fractional")
    if kind == "BrevitasBinaryQuantOp":
        return quant(x, scale, zero_point, 1, True, False, Rounding.ROUND.value)
    rounding = _rounding(str(getattr(mode, "name", mode)).upper())
    return quant(x, scale, zero_point, int(width), bool(signed), bool(narrow), rounding.value)


def _truncate(x: Any, scale: Any, zero_point: Any, *parameters: Any) -> Any:
    """Codes of x without their low bits: two quantisers, as `hqc.frontends.qonnx.trunc` has it."""
    import torch

    from hqc.frontends.torch.quant_operator import quant

    _, signed, narrow, out_scale, out_bits, mode = parameters
    step, out_step, bits = float(scale), float(out_scale), float(out_bits)
    low_bits = round(math.log2(out_step / step))
    if bits != int(bits) or (bits == 1 and signed):
        raise reject("HQC107", f"Brevitas truncation to {bits:g} bits")
    if float(zero_point):
        raise reject("HQC102", "Brevitas truncation with a zero point")
    rounding, zero = _rounding(str(getattr(mode, "name", mode)).upper()), torch.zeros(())
    factor = 2.0**low_bits
    same_grid = out_step == step * factor  # exact, as the factor is a power of two
    if not same_grid:
        x, step = x / step, 1.0
    width = int(bits) + max(low_bits, 0) + 1
    fine, coarse = torch.tensor(step), torch.tensor(step * factor)
    whole = quant(x, fine, zero, width, True, False, Rounding.ROUND.value)
    found = quant(whole, coarse, zero, int(bits), bool(signed), bool(narrow), rounding.value)
    return found if same_grid else found * (out_step / factor)


def _rounding(name: str) -> Rounding:
    if name in _MODES:
        return _MODES[name]
    if name not in Rounding.__members__:
        raise reject("HQC102", f"Brevitas rounding mode {name} has no QONNX form")
    return Rounding[name]
