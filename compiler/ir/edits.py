"""Edits of a graph that several layers make: nodes swapped, put behind others, and dropped."""

from __future__ import annotations

from onnx_ir import Model


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
