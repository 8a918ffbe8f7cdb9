"""QCDQ graphs: `QuantizeLinear`, `Clip`, `DequantizeLinear` and what stands on codes between them.

Every integer tensor of the file is described as codes of a float tensor; where it becomes a float
again, the quantisers are written down, so that only floats on grids are left. Semantics follow the
ONNX operator specification: `saturate(round_half_even(x / scale) + zero_point)`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import exact_values_known
from hqc.diagnostics import HqcError, reject
from hqc.frontends.onnx.constants import evaluate
from hqc.frontends.onnx.grids import along, on_grid
from hqc.frontends.onnx.shapes import Ranks
from hqc.frontends.qcdq import operators as qcdq_operators
from hqc.frontends.qcdq.codes import (
    Codes,
    Region,
    check_single,
    integer_limits,
    parameter,
    renamed,
    storage_type,
)
from hqc.ir import Array, location_of, make_node, nodes
from hqc.ir.edits import keep_source, remove_unused, swap
from hqc.pipeline.passes import Remark

#: Both are ONNX's and, for types that older opsets lack, onnxruntime's.
_DOMAINS = ("", "com.microsoft")
#: Operators that move codes, or pick some.
_MOVES = frozenset(
    {
        *("MaxPool", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"),
        *("Slice", "Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth"),
    }
)
#: Of these, the ones that may change which axis the channels are on.
_KEEPS_CHANNELS = frozenset({"MaxPool", "Identity"})


def is_integer_graph(model: Model) -> bool:
    """Whether a file has operators on integer codes."""
    return any(
        _is(node, "QuantizeLinear", "DequantizeLinear") or qcdq_operators.matches(node)
        for node in model.graph
    )


def rewrite(model: Model) -> list[Remark]:
    """Replace every operator on integer codes by quantisers and float operators, in place.

    Raises:
        HqcError: with every problem found: HQC102 forms that are not supported, HQC106 scales,
            HQC107 single codes, HQC108 parameters that are computed.
    """
    if not is_integer_graph(model):
        return []
    region = Region(model, Ranks(model))
    remarks = _integer_inputs(region)
    found: list[HqcError] = []
    for node in nodes(model.graph):
        try:
            _rewrite(region, node)
        except HqcError as error:
            found.append(error)
            for value in node.outputs:  # what follows is described as if it had worked
                region.failed.add(value)
    if found:
        raise HqcError([d for error in found for d in error.diagnostics])
    remarks += _integer_outputs(region)
    remove_unused(model)
    return remarks


def _is(node: Node, *names: str) -> bool:
    return node.domain in _DOMAINS and node.op_type in names


def _rewrite(region: Region, node: Node) -> None:
    if any(v in region.failed for v in node.inputs if v is not None):
        region.failed.update(node.outputs)
        return
    if _is(node, "DequantizeLinear"):
        _dequantise(region, node)
    elif _is(node, "QuantizeLinear"):
        _quantise(region, node)
    elif qcdq_operators.matches(node):
        qcdq_operators.rewrite(region, node)
    elif node.inputs and node.inputs[0] in region.codes:
        _on_codes(region, node)
    elif any(v in region.codes for v in node.inputs if v is not None):
        raise _unsupported(node)


# --- the three operators ------------------------------------------------------------------------


def _quantise(region: Region, node: Node) -> None:
    x = node.inputs[0]
    if x is None or exact_values_known(x):
        return  # evaluated where it is dequantised
    lo, hi = integer_limits(_code_type(node), node)
    scale, zero_point = _grid(region, node, x)
    region.codes[node.outputs[0]] = Codes(x, scale, zero_point, lo, hi)


def _dequantise(region: Region, node: Node) -> None:
    source = node.inputs[0]
    if source is None:
        raise _unsupported(node)
    if source in region.codes:
        scale, zero_point = _grid(region, node, source)
        _becomes(region, node, region.floats(source, node, scale, zero_point))
        return
    if not exact_values_known(source):
        raise reject(
            "HQC102",
            f"{node.op_type} of {source.name}, which no QuantizeLinear or integer input made",
            where=location_of(node),
        )
    stored = evaluate(region.model, source)
    if stored is None:
        raise _unsupported(node)
    lo, hi = integer_limits(onnx_ir.DataType.from_numpy(stored.dtype), node)
    scale, zero_point = _grid(region, node, source, stored.ndim)
    codes_ = np.asarray(stored.astype(np.int64) - zero_point, np.int64)
    graph = region.model.graph
    made = on_grid(graph, codes_, scale, str(node.outputs[0].name), (hi - lo).bit_length())
    region.put(node, [made])


def _becomes(region: Region, node: Node, value: Value) -> None:
    """Let a float value stand for the output of a node."""
    region.put(node, [renamed(value, str(node.outputs[0].name))])


def _grid(
    region: Region, node: Node, source: Value, rank: int | None = None
) -> tuple[Array, Array]:
    """Scale and zero point of a node, shaped to broadcast against its tensor."""
    scale = parameter(node, 1)
    assert scale is not None
    check_single(node, scale)
    zero_point = parameter(node, 2)
    zero = np.zeros((), np.int64) if zero_point is None else zero_point.astype(np.int64)
    if node.attributes.get_int("block_size", 0):
        raise reject("HQC102", "quantisation in blocks of an axis", where=location_of(node))
    axis = node.attributes.get_int("axis", 1)
    several, computed = max(scale.size, zero.size) > 1, rank is None
    rank = region.rank(source) if several and computed else rank
    shaped = along(scale, axis, rank), along(zero, axis, rank)
    per_sample = several and computed and rank is not None and axis % rank == 0
    if shaped[0] is None or shaped[1] is None or per_sample:
        raise reject(
            "HQC102",
            f"{node.op_type} with a scale of shape {scale.shape} on axis {axis} of a tensor of "
            f"{'unknown rank' if rank is None else f'rank {rank}'}",
            where=location_of(node),
        )
    return shaped[0], shaped[1]


def _code_type(node: Node) -> onnx_ir.DataType:
    if (found := storage_type(node, 2)) is not None:
        return found
    return onnx_ir.DataType(node.attributes.get_int("output_dtype", 0) or onnx_ir.DataType.UINT8)


# --- what stands on codes -----------------------------------------------------------------------


def _on_codes(region: Region, node: Node) -> None:
    source = node.inputs[0]
    assert source is not None
    codes = region.codes[source]
    out = node.outputs[0]
    if any(v in region.codes for v in node.inputs[1:] if v is not None) or node.domain:
        raise _unsupported(node)
    if node.op_type == "Clip":
        lo, hi = (_edge(node, i, name) for i, name in ((1, "min"), (2, "max")))
        low = codes.lo if lo is None else min(max(codes.lo, lo), codes.hi)
        high = codes.hi if hi is None else max(min(codes.hi, hi), low)
        settled = codes.is_settled and (low, high) == (codes.lo, codes.hi)
        region.codes[out] = replace(codes, lo=low, hi=high, is_settled=settled)
    elif node.op_type == "Cast":
        _cast(region, node, codes)
    elif node.op_type in _MOVES and len(node.outputs) == 1:
        if not codes.is_per_tensor and node.op_type not in _KEEPS_CHANNELS:
            raise reject(
                "HQC102",
                f"{node.op_type} of codes with a scale per channel",
                where=location_of(node),
                helps=("dequantise before it, and quantise again behind",),
            )
        x = region.floats(source, node, codes.scale, codes.zero_point)
        moved = make_node(
            node.op_type,
            (x, *(v for v in node.inputs[1:] if v is not None)),
            like=out,
            name=f"{out.name}_values",
            attributes=dict(node.attributes),
        )
        moved.outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        region.insert(node, [moved])
        region.codes[out] = replace(codes, x=moved.outputs[0], is_settled=True)
    else:
        raise _unsupported(node)


def _edge(node: Node, index: int, name: str) -> int | None:
    attribute = node.attributes.get(name)
    if attribute is not None:
        return int(attribute.as_float())
    array = parameter(node, index)
    return None if array is None else int(array.ravel()[0])


def _cast(region: Region, node: Node, codes: Codes) -> None:
    source = node.inputs[0]
    assert source is not None
    target = onnx_ir.DataType(node.attributes["to"].as_int())
    if target in (onnx_ir.DataType.FLOAT, onnx_ir.DataType.DOUBLE):
        one, zero = np.ones((), np.float32), np.zeros((), np.int64)
        _becomes(region, node, region.floats(source, node, one, zero))
        return
    lo, hi = integer_limits(target, node)
    if codes.lo < lo or codes.hi > hi:
        raise reject("HQC102", f"a cast of codes that wraps to {target}", where=location_of(node))
    region.codes[node.outputs[0]] = codes


def _unsupported(node: Node) -> HqcError:
    return reject(
        "HQC102",
        f"{node.op_type} on integer codes",
        where=location_of(node),
        helps=("put it between DequantizeLinear and QuantizeLinear, as the QDQ format does",),
    )


# --- integer interfaces -------------------------------------------------------------------------


def _integer_inputs(region: Region) -> list[Remark]:
    """Graph inputs of an integer type become floats that hold the integers."""
    remarks = []
    for value in region.model.graph.inputs:
        if value.is_initializer() or value.dtype is None or not value.dtype.is_integer():
            continue
        uses = {use.node for use in value.uses()}
        if not uses or not all(_is(n, "DequantizeLinear", "Cast") for n in uses):
            continue
        try:
            lo, hi = integer_limits(value.dtype, next(iter(uses)))
        except HqcError:
            continue  # such as int64: no codes
        remarks.append(Remark(f"input {value.name} takes its {value.dtype} codes as floats"))
        value.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        one, zero = np.ones((), np.float32), np.zeros((), np.int64)
        region.codes[value] = Codes(value, one, zero, lo, hi)
    return remarks


def _integer_outputs(region: Region) -> list[Remark]:
    """Graph outputs of an integer type become floats that hold the integers."""
    remarks = []
    for value in tuple(region.model.graph.outputs):
        node = value.producer()
        if value not in region.codes or node is None:
            continue
        one, zero = np.ones((), np.float32), np.zeros((), np.int64)
        made = region.codes[value].dequantise(region, node, one, zero)
        if not made:
            continue
        keep_source(made, node)
        made[-1].outputs[0].type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        swap(node, made)
        remarks.append(Remark(f"output {value.name} gives its codes as floats"))
    return remarks
