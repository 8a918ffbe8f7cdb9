"""Dead-code removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Model

from hqc.pipeline.passes import Outcome, Pass


@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove nodes and constants that no graph output depends on."""

    name: ClassVar[str] = "dce"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep against the order of the nodes, then the constants."""
        return Outcome(model, remove_unused(model))


def remove_unused(model: Model) -> int:
    """Drop what no output needs; the number of nodes and constants dropped."""
    removed = 0
    for node in reversed(tuple(model.graph)):
        if not any(v.uses() or v.is_graph_output() for v in node.outputs):
            model.graph.remove(node, safe=True)
            removed += 1
    for name, value in tuple(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
            removed += 1
    return removed
