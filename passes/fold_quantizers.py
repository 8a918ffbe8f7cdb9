"""Quantiser folding: constants become codes, redundant quantisers vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model, Node, Value

from hqc.analysis.dependence import computed_values, exact_values_known
from hqc.analysis.grid_constants import GridConstant, grid_constant
from hqc.ir import Array, bypass, location_of, nodes, replace_output
from hqc.ir.names import kept_names
from hqc.ir.operators import BipolarQuant, Quant, is_power_of_two, is_quantiser
from hqc.pipeline.node_builder import codes_times_scale, typed_constant
from hqc.pipeline.passes import Outcome, Pass, Remark


@dataclass(frozen=True)
class FoldQuantizers(Pass):
    """Turn quantised constants into codes and drop quantisers that repeat the one before.

    A quantised constant becomes its integer codes times its scale (one typed constant where the
    scale is a power of two). A quantiser of what lies on its grid already, because one before put
    it there and values only moved since, changes nothing and goes.
    """

    name: ClassVar[str] = "fold-quantizers"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep in topological order."""
        with kept_names(model.graph):
            return self._sweep(model)

    def _sweep(self, model: Model) -> Outcome:
        rewrites, remarks = 0, []
        computed = computed_values(model.graph)
        for node in nodes(model.graph):
            if not is_quantiser(node):
                continue
            source = node.inputs[0]
            if source is None:
                continue
            if exact_values_known(source, computed):
                rewrites += _fold(model, node)
            elif _repeats(node, source):
                bypass(node)
                rewrites += 1
                remarks.append(
                    Remark("dropped: it repeats the quantiser before", location_of(node))
                )
        return Outcome(model, rewrites, tuple(remarks))


def _fold(model: Model, node: Node) -> int:
    top = _last_transpose(node)
    grid = grid_constant(top.outputs[0])
    if grid is None or top.outputs[0].is_graph_output():
        return 0
    name = node.name or str(node.outputs[0].name)
    values = _on_grid(grid)
    if values is not None:
        _replace(model, top, typed_constant(model.graph, f"{name}_folded", values))
        return 1
    single = grid.codes.astype(np.float32)
    if np.any(single.astype(np.int64) != grid.codes):
        return 0  # wide biases: their quantiser, on float64 data, is the exact form
    product = codes_times_scale(model.graph, name, grid.codes, grid.scale)
    product.name = f"{name}_dequantise"
    replace_output(top, (product,), FoldQuantizers.name)
    return 1


def _on_grid(grid: GridConstant) -> Array | None:
    """The values themselves, if every scale is a power of two and float32 holds them."""
    if any(not is_power_of_two(s) for s in set(grid.scale.ravel())):
        return None
    values = grid.codes * grid.scale.astype(np.float64)
    single = np.asarray(values, np.float32)
    return single if np.array_equal(single.astype(np.float64), values) else None


def _last_transpose(node: Node) -> Node:
    """The constant transpose that alone uses a quantiser, if any: it folds along."""
    uses = node.outputs[0].uses()
    if len(uses) == 1 and not node.outputs[0].is_graph_output():
        user = next(iter(uses)).node
        if user.op_type == "Transpose":
            return user
    return node


def _replace(model: Model, node: Node, value: Value) -> None:
    import onnx_ir

    onnx_ir.convenience.replace_all_uses_with(node.outputs[0], value)
    model.graph.remove(node, safe=True)


def _repeats(node: Node, source: Value) -> bool:
    before = source.producer()
    if before is None:
        return False
    if Quant.matches(node):
        return _on_its_grid(Quant.read(node), source)
    if BipolarQuant.matches(node) and BipolarQuant.matches(before):
        return np.array_equal(BipolarQuant.read(node).scale, BipolarQuant.read(before).scale)
    return False


def _on_its_grid(quant: Quant, value: Value) -> bool:
    """Whether a value lies on a quantiser's grid, within its limits, so that nothing rounds.

    True of what a quantiser of the same scale gave, after operators that pick or move values.
    """
    node, picked, moved = value.producer(), False, False
    while node is not None and not Quant.matches(node):
        if node.domain or not node.inputs or node.op_type not in _KEEP_GRID:
            return False
        picked |= node.op_type == "Relu"
        moved |= node.op_type in _MOVE_CHANNELS
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    if node is None:
        return False
    before = Quant.read(node)
    several = max(quant.scale.size, quant.zero_point.size, before.zero_point.size) > 1
    if not np.array_equal(quant.scale, before.scale) or (moved and several):
        return False
    if quant.is_bipolar or before.is_bipolar:
        same = np.array_equal(quant.zero_point, before.zero_point) and not picked
        return same and quant.is_bipolar == before.is_bipolar
    (lo, hi), (first, last) = (
        tuple(np.asarray(end - q.zero_point) for end in q.code_limits) for q in (quant, before)
    )
    if picked:  # zero comes in
        first, last = np.maximum(first, 0), np.maximum(last, 0)
    return bool(np.all(lo <= first) and np.all(last <= hi))


#: Operators whose values are some of their input's values, or zero (Relu).
_MOVE_CHANNELS = frozenset({"Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice"})
_KEEP_GRID = _MOVE_CHANNELS | {"MaxPool", "GlobalMaxPool", "Relu", "Identity"}
