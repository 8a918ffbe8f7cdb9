"""QONNX operators beyond the three that the IR keeps, and thresholds for other axes than axis 1."""

from __future__ import annotations

from typing import Any

from onnx_ir import Model, Node

from hqc.diagnostics import Diagnostic, HqcError, reject
from hqc.frontends.onnx.shapes import Ranks
from hqc.frontends.qonnx.float_quant import rewrite_float_quant
from hqc.frontends.qonnx.trunc import rewrite_trunc
from hqc.ir import QONNX, location_of, nodes
from hqc.ir.edits import keep_source, swap
from hqc.ir.operators import MultiThreshold, channel_axis, parameter_of
from hqc.pipeline.node_builder import NodeBuilder

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
        _rows_on_axis_1(model, ranks, node)


def _rows_on_axis_1(model: Model, ranks: Ranks, node: Node) -> None:
    thresholds, x = parameter_of(node, 1), node.inputs[0]
    if x is None or thresholds.ndim != 2 or len(thresholds) == 1:
        return
    layout = node.attributes.get_string("data_layout", "")
    rank = len(layout) or ranks.of(x)
    if rank is None or rank < 3:
        return
    axis = channel_axis(node, rank)
    if axis == 1:
        return
    others = [i for i in range(1, rank) if i != axis]
    there = [0, axis, *others]
    back = [there.index(i) for i in range(rank)]
    new = NodeBuilder(model.graph, str(node.outputs[0].name), x)
    before = new.transposed(x, there, "channels")
    attributes: dict[str, Any] = {k: v for k, v in node.attributes.items() if k != "data_layout"}
    attributes["data_layout"] = "NC" + "DHW"[-(rank - 2) :] if rank > 3 else "NCW"
    parameters = [v for v in node.inputs[1:] if v is not None]
    count = new.add("MultiThreshold", (before, *parameters), "counts", None, QONNX, **attributes)
    count.shape = before.shape
    new.transposed(count, back, "")
    keep_source(new.nodes, node)
    swap(node, new.nodes)
