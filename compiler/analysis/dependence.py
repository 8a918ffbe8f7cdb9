"""What in a graph depends on its inputs, and what is an expression of constants."""

from __future__ import annotations

from collections.abc import Container

from onnx_ir import Graph, Node, Value

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


def data_input(node: Node, computed: Container[Value] = frozenset()) -> Value | None:
    """The one computed input of a node, if it has exactly one.

    `computed` may hold values of which that is known, see `hqc.analysis.dependence`.
    """
    found = [v for v in node.inputs if v is not None and not exact_values_known(v, computed)]
    return found[0] if len(found) == 1 else None


def exact_values_known(value: Value, computed: Container[Value] = frozenset()) -> bool:
    """Whether a value is a constant expression.

    Telling that of a computed value means to go up to an input of the graph, or to one of
    `computed`: who asks for many values of one graph gives what is known of it.
    """
    pending, seen = [value], {value}
    while pending:
        last = pending.pop()
        if last in computed:
            return False
        if is_constant(last):
            continue
        node = last.producer()
        if node is None:
            return False
        fresh = [v for v in node.inputs if v is not None and v not in seen]
        seen.update(fresh)
        pending += reversed(fresh)  # data comes first: the way to an input is short
    return True
