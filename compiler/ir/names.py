"""The names in use in a graph, kept for as long as a pass edits it.

A new name must be no other's. Going through the graph for every new name makes a pass quadratic,
so a pass that makes many goes through it once:

    with kept_names(graph):
        ...
        note_names(nodes)  # nodes that were put into the graph, or renamed

`fresh_name` and all that builds on it then answer from memory. What was removed or renamed away
frees its name as before, since whoever had a name is asked whether that is so still.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from onnx_ir import Graph, Node, Value

_NAMES = "hqc.names"  # in the graph's meta, which is in no file


class Names:
    """Who had which name in a graph when last seen."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._holders: dict[str | None, list[Node | Value]] = {}
        for value in graph.inputs:
            self._add(value)
        for node in graph:
            self.note(node)

    def note(self, node: Node) -> None:
        """Look at the names of a node, and of its outputs, that is new or has new ones."""
        self._add(node)
        for value in node.outputs:
            self._add(value)

    def taken(self, name: str) -> bool:
        """Whether a value or a node of the graph is called so."""
        if name in self._graph.initializers:
            return True
        return any(self._has(holder, name) for holder in self._holders.get(name, ()))

    def fresh(self, name: str) -> str:
        """`name`, or the first of `name_2`, ... that is free."""
        unique, n = name, 1
        while self.taken(unique):
            n += 1
            unique = f"{name}_{n}"
        return unique

    def _add(self, holder: Node | Value) -> None:
        self._holders.setdefault(holder.name, []).append(holder)

    def _has(self, holder: Node | Value, name: str) -> bool:
        if holder.name != name:
            return False
        if isinstance(holder, Node):
            return holder.graph is self._graph
        producer = holder.producer()
        if producer is None:
            return holder.is_graph_input()
        return producer.graph is self._graph


def names_of(graph: Graph) -> Names:
    """The names that are kept for a graph at the moment, or else those it has now."""
    found = graph.meta.get(_NAMES)
    return found if isinstance(found, Names) else Names(graph)


@contextmanager
def kept_names(graph: Graph) -> Iterator[None]:
    """Keep the names of a graph while a pass edits it; the pass notes the nodes that it adds."""
    outer = graph.meta.get(_NAMES)
    graph.meta[_NAMES] = outer if outer is not None else Names(graph)
    try:
        yield
    finally:
        if outer is None:
            del graph.meta[_NAMES]


def note_names(nodes: Iterable[Node]) -> None:
    """Tell the names that are kept, if any are, of nodes in a graph that are new or renamed."""
    for node in nodes:
        found = node.graph.meta.get(_NAMES) if isinstance(node.graph, Graph) else None
        if isinstance(found, Names):
            found.note(node)
