"""Precision of the datapath: what each value can be, proven, and the narrowest type for it."""

from __future__ import annotations

from onnx_ir import Model, Node, Value

from hqc.analysis.partition import computed_nodes, first_quantisers, host_tail
from hqc.analysis.ranges import ChannelRange, forward
from hqc.ir import range_of, set_range, set_type, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import FixedType, Range


def channel_ranges(model: Model) -> dict[Value, ChannelRange]:
    """The proven range of every value of the core, channel by channel."""
    firsts = first_quantisers(model)
    tail = host_tail(model)
    known: dict[Value, ChannelRange] = {}
    for node in computed_nodes(model):
        started = node in firsts or any(v in known for v in node.inputs if v is not None)
        if node not in tail and started:
            known[node.outputs[0]] = forward(node, known)
    return known


def annotate(model: Model) -> int:
    """Write proven ranges and narrowest types on the values of the core; how many changed."""
    changed = 0
    for value, found in channel_ranges(model).items():
        before = (type_of(value), range_of(value))
        set_range(value, found.joined)
        set_type(value, _type(value.producer(), found))
        changed += before != (type_of(value), range_of(value))
    return changed


def _type(node: Node | None, found: ChannelRange) -> FixedType | None:
    if node is not None and Quant.matches(node):
        return Quant.read(node).fixed_type
    if node is not None and MultiThreshold.matches(node):  # counters count to the end of the table
        view = MultiThreshold.read(node)
        low = int(view.out_bias)
        return Range(low, low + view.thresholds.shape[1]).fit()
    return found.joined.fit()
