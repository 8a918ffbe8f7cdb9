"""QONNX operators beyond the three that the IR keeps, and thresholds for other axes than axis 1."""

from __future__ import annotations

import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.diagnostics import Diagnostic, HqcError, reject
from hqc.frontends.onnx.constants import swap
from hqc.frontends.onnx.shapes import Ranks
from hqc.frontends.qonnx.float_quant import rewrite_float_quant
from hqc.frontends.qonnx.trunc import rewrite_trunc
from hqc.ir import QONNX, location_of, make_node, nodes, set_source
from hqc.ir.operators import MultiThreshold, channel_axis, parameter_of

#: Operators of QONNX and FINN that have no translation, and what to do instead.
_REFUSED = {
    "Im2Col": "keep the convolution: do not run LowerConvsToMatMul before the export",
    "XnorPopcountMatMul": "keep the MatMul of bipolar tensors: do not run ConvertBipolarToXnor",
    "QuantAvgPool2d": "use AveragePool and Trunc, as Brevitas exports them",
    "MaxPoolNHWC": "keep MaxPool: do not convert to channels last",
    "GenericPartition": "inline the partition first",
    "DebugMarker": "remove the marker",
}


def rewrite_operators(model: Model) -> dict[Node, list[Diagnostic]]:
    """Rewrite `Trunc`, `FloatQuant` and thresholds for other axes, in place.

    Returns:
        What is wrong, by node, where something is.
    """
    found: dict[Node, list[Diagnostic]] = {}
    ranks = Ranks(model)
    for node in nodes(model.graph):
        if node.domain != QONNX:
            continue
        try:
            _rewrite(model, ranks, node)
        except HqcError as error:
            found[node] = list(error.diagnostics)
    return found


def _rewrite(model: Model, ranks: Ranks, node: Node) -> None:
    if node.op_type in _REFUSED:
        raise reject(
            "HQC101",
            f"operator {node.op_type} of QONNX has no translation",
            where=location_of(node),
            helps=(_REFUSED[node.op_type],),
        )
    if node.op_type == "Trunc":
        rewrite_trunc(model, node)
    elif node.op_type == "FloatQuant":
        rewrite_float_quant(model, node)
    elif MultiThreshold.matches(node):
        _rows_on_axis_1(ranks, node)


def _rows_on_axis_1(ranks: Ranks, node: Node) -> None:
    thresholds, x = parameter_of(node, 1), node.inputs[0]
    if x is None or thresholds.ndim != 2 or len(thresholds) == 1:
        return
    stated = node.attributes.get("data_layout")
    layout = stated.as_string() if stated is not None else ""
    rank = len(layout) or ranks.of(x)
    if rank is None or rank < 3:
        return
    axis = channel_axis(node, rank)
    if axis == 1:
        return
    others = [i for i in range(1, rank) if i != axis]
    there = [0, axis, *others]
    back = [there.index(i) for i in range(rank)]
    name = str(node.outputs[0].name)
    before = _transpose(x, there, f"{name}_channels")
    count = make_node(
        "MultiThreshold",
        (before.outputs[0], *(v for v in node.inputs[1:] if v is not None)),
        like=before.outputs[0],
        name=f"{name}_counts",
        attributes={k: v for k, v in node.attributes.items() if k != "data_layout"}
        | {"data_layout": "NC" + "DHW"[-(rank - 2) :] if rank > 3 else "NCW"},
        domain=QONNX,
    )
    after = _transpose(count.outputs[0], back, name)
    for made in (before, count, after):
        set_source(made, str(location_of(node).source or node.name or ""))
    swap(node, [before, count, after])


def _transpose(x: Value, order: list[int], name: str) -> Node:
    made = make_node("Transpose", (x,), like=x, name=name, attributes={"perm": order})
    if x.shape is not None:
        made.outputs[0].shape = onnx_ir.Shape([x.shape[i] for i in order])
    return made
