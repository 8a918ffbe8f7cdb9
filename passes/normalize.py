"""Normalisation: one spelling for what can be written in several ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir
from onnx_ir import Model, Node

from hqc.analysis.dependence import computed_values
from hqc.ir import bypass, derive, nodes, replace_output
from hqc.ir.names import kept_names, note_names
from hqc.passes.lowering.canonical_forms import canonical_form, split_into_slices
from hqc.passes.lowering.move_elementwise import hoist_elementwise, hoist_quantisers
from hqc.pipeline.passes import Outcome, Pass

_NO_OPS = frozenset({"Identity", "Dropout"})


@dataclass(frozen=True)
class Normalize(Pass):
    """Rewrite what can be written in several ways to one, exactly, and drop no-ops.

    Gemm becomes MatMul and Add, a convolution's bias an Add, Split some Slices, reductions a
    pooling, and Identity and (inference-time) Dropout vanish. Quantisers of the inputs move in
    front of transposes, slices and the like, and so does what works element by element where a
    transpose mixes channels.
    """

    name: ClassVar[str] = "normalize"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep in topological order."""
        with kept_names(model.graph):
            return Outcome(model, self._sweep(model))

    def _sweep(self, model: Model) -> int:
        rewrites = 0
        computed = computed_values(model.graph)
        for node in nodes(model.graph):
            if node.domain != "":
                continue
            if node.op_type in _NO_OPS:
                bypass(node)
                rewrites += node.graph is None
            elif node.op_type == "Split":
                rewrites += _split(node)
            elif (new := canonical_form(node, computed)) is not None:
                replace_output(node, new, self.name)
                rewrites += 1
        return rewrites + hoist_quantisers(model) + hoist_elementwise(model)


def _split(node: Node) -> int:
    new = split_into_slices(node)
    graph = node.graph
    if not new or graph is None:
        return 0
    derive(new, node, Normalize.name)
    graph.insert_before(node, new)
    for before, made in zip(node.outputs, new, strict=True):
        after, name = made.outputs[0], before.name
        onnx_ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
        before.name, after.name = f"{name}__replaced", name
    graph.remove(node, safe=True)
    note_names(new)
    return 1
