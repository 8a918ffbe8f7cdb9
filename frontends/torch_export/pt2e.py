"""PyTorch 2 export quantisation (PT2E, torchao): its operators as quantisers of the IR.

`convert_pt2e` leaves a float program in which tensors pass through pairs of operators,
`quantize_*` to integers and `dequantize_*` back. Both compute
`clamp(round_half_even(x / scale) + zero_point, quant_min, quant_max)`, PyTorch with a product by
the rounded reciprocal of the scale: what that changes is float error like any other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx_ir import Value
from torch import fx

from hqc.diagnostics import Exit, HqcError, reject
from hqc.frontends.onnx.grids import along, grid_data, same, saturating
from hqc.frontends.torch_export.translation import Args, Builder, Const, QuantisedConst, refuse
from hqc.ir import Array

_DECOMPOSED = ("quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel")
#: Names of the operators by namespace, as they stand in program files.
OPERATORS = {
    "quantized_decomposed": frozenset((*_DECOMPOSED, "dequantize_per_channel")),
    "torchao": frozenset(("quantize_affine", "dequantize_affine")),
}


@dataclass
class Codes:
    """An integer tensor of a program: the float tensor it came from, and how.

    Attributes:
        x: the float tensor.
        scale, zero_point: shaped to broadcast against x.
        lo, hi: lowest and highest code.
        floats: the dequantised tensor, once some node has asked for it.
    """

    x: Value
    scale: Array
    zero_point: Array
    lo: int
    hi: int
    floats: Value | None = None


def register(namespace: str) -> None:
    """Make PyTorch know the operators of a namespace, so that programs with them can be read.

    Raises:
        HqcError: HQC404, torchao is not installed.
    """
    if namespace == "quantized_decomposed":
        importlib.import_module("torch.ao.quantization.fx._decomposed")
    elif namespace == "torchao":
        if importlib.util.find_spec("torchao") is None:
            raise reject(
                "HQC404",
                "reading a program with torchao's quantisers needs torchao",
                helps=("pip install 'hqc[torchao]'",),
                exit_=Exit.TOOL,
            )
        importlib.import_module("torchao.quantization.quant_primitives")


def _quantise(b: Builder, node: fx.Node, a: Args) -> Any:
    x = b.find(a["input"])
    lo, hi = _limits(b, node, a)
    if isinstance(x, Const):
        scale, zero = _grid(b, node, a, x.tensor.dim())
        with np.errstate(over="ignore"):
            steps = np.rint(x.array() * (np.float32(1) / scale)) + zero
        return Const(node.name, torch.tensor(np.clip(steps, lo, hi).astype(np.int64)))
    if not isinstance(x, Value):
        raise refuse("HQC102", f"{_name(node)} of what is no float tensor", node)
    return Codes(x, *_grid(b, node, a, a["input"].meta["val"].dim()), lo, hi)


def _dequantise(b: Builder, node: fx.Node, a: Args) -> Any:
    codes = b.find(a["input"])
    if node.meta["val"].dtype != torch.float32:
        raise refuse("HQC102", f"{_name(node)} to {node.meta['val'].dtype}", node, "use float32")
    scale, zero = _grid(b, node, a, a["input"].meta["val"].dim())
    if isinstance(codes, Const):
        whole = codes.tensor.detach().cpu().numpy().astype(np.int64)
        lo, hi = _limits(b, node, a)
        if whole.size and not lo <= whole.min() <= whole.max() <= hi:
            raise refuse("HQC102", f"codes of {codes.name} outside {lo}..{hi}", node)
        data, quant = _at(node, lambda: grid_data(whole - zero, scale, (hi - lo).bit_length()))
        return QuantisedConst(Const(codes.name, torch.tensor(data)), quant, node)
    if not isinstance(codes, Codes):
        raise refuse("HQC102", f"{_name(node)} of what no quantize operator made", node)
    if not (same(scale, codes.scale) and same(zero, codes.zero_point)):
        raise refuse("HQC102", "codes dequantised on another grid than they came from", node)
    if codes.floats is None:
        lows, highs = np.asarray(codes.lo - zero), np.asarray(codes.hi - zero)
        quants = _at(node, lambda: saturating(scale, lows, highs))
        found = codes.x
        for quant in quants:
            found = b.quantise(found, quant, b.name_for(node, "Quant"), node)
        codes.floats = found
    return codes.floats


def _grid(b: Builder, node: fx.Node, a: Args, rank: int) -> tuple[Array, Array]:
    """Scale (float32) and zero point (int64) of a node, shaped to broadcast."""
    scale = _number(b, node, a["scale"] if "scale" in a else a["scales"])
    given = a["zero_point"] if "zero_point" in a else a["zero_points"]
    zero = np.zeros((), np.int64) if given is None else _number(b, node, given)
    if np.any(zero != np.round(zero)):
        raise refuse("HQC102", "the zero point is not an integer", node)
    scale = scale.astype(np.float32)
    if scale.size == 0 or not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        raise refuse("HQC106", f"{_name(node)} has a scale that is not positive and finite", node)
    axis = _axis(node, a, scale)
    parts = along(scale.reshape(-1), axis, rank), along(zero.reshape(-1), axis, rank)
    if parts[0] is None or parts[1] is None:
        raise refuse("HQC102", f"{_name(node)} with a scale of shape {scale.shape}", node)
    return parts[0], parts[1].astype(np.int64)


def _axis(node: fx.Node, a: Args, scale: Array) -> int:
    """The axis with a scale per slice; of any size-one scale, the first."""
    if scale.size == 1:
        return 0
    if "axis" in a:
        return int(a["axis"])
    dims = list(a["input"].meta["val"].shape)
    single = [i for i, n in enumerate(a["block_size"]) if n == 1 and dims[i] != 1]
    whole = all(i in single or n == dims[i] for i, n in enumerate(a["block_size"]))
    if len(single) != 1 or not whole:
        raise refuse(
            "HQC102",
            f"quantisation in blocks of {a['block_size']}",
            node,
            "use one scale per tensor or per channel",
        )
    return int(single[0])


def _limits(b: Builder, node: fx.Node, a: Args) -> tuple[int, int]:
    dtype = next((a[k] for k in ("dtype", "input_dtype", "output_dtype") if k in a), None)
    if not isinstance(dtype, torch.dtype) or dtype.is_floating_point or dtype == torch.bool:
        raise refuse("HQC102", f"{_name(node)} with codes of type {dtype}", node)
    ends = torch.iinfo(dtype).min, torch.iinfo(dtype).max
    stated = tuple(None if a[k] is None else _number(b, node, a[k]) for k in _ENDS)
    lo, hi = (end if s is None else int(s) for end, s in zip(ends, stated, strict=True))
    return max(lo, ends[0]), min(hi, ends[1])


_ENDS = ("quant_min", "quant_max")


def _number(b: Builder, node: fx.Node, arg: Any) -> Array:
    found = b.find(arg)
    if isinstance(found, Const):
        return found.array()
    if isinstance(found, int | float):
        return np.array(found)
    raise refuse(
        "HQC108",
        f"a parameter of {_name(node)} depends on the data",
        node,
        "use static quantisation, so that scales are constants",
    )


def _dynamic(b: Builder, node: fx.Node, a: Args) -> Any:
    raise refuse(
        "HQC108",
        "dynamic quantisation finds scales while the model runs",
        node,
        "use static quantisation, so that scales are constants",
    )


def _at(node: fx.Node, make: Callable[[], Any]) -> Any:
    """Run `make`; what it refuses is said of the node."""
    try:
        return make()
    except HqcError as error:
        first = error.diagnostics[0]
        raise refuse(first.code, first.message, node, *first.helps) from error


def _name(node: fx.Node) -> str:
    return str(node.target._schema.name)


#: By schema name; these also run on constants, which is how weights are stored.
TRANSLATORS: dict[str, Callable[[Builder, fx.Node, Args], Any]] = {
    **{
        f"quantized_decomposed::{name}": _quantise if name[0] == "q" else _dequantise
        for name in OPERATORS["quantized_decomposed"]
    },
    "quantized_decomposed::choose_qparams": _dynamic,
    "quantized_decomposed::choose_qparams_symmetric": _dynamic,
    "torchao::choose_qparams_affine": _dynamic,
    "torchao::quantize_affine": _quantise,
    "torchao::dequantize_affine": _dequantise,
}
