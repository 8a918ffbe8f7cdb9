"""What in a graph depends on its inputs, and what is an expression of constants."""

from __future__ import annotations

from onnx_ir import Graph, Value

from hqc.ir import is_constant


def computed_values(graph: Graph) -> set[Value]:
    """The values of a graph that are no constant expressions, found in one sweep from the inputs.

    They stay computed while passes change constants only, or put computed values in their place.
    """
    given = (v for node in graph for v in node.inputs if v is not None and v.producer() is None)
    pending = [v for v in dict.fromkeys((*graph.inputs, *given)) if not is_constant(v)]
    found = set(pending)
    while pending:
        for use in pending.pop().uses():
            fresh = [v for v in use.node.outputs if v not in found and not is_constant(v)]
            found.update(fresh)
            pending += fresh
    return found
