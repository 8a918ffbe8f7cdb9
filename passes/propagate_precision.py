"""Precision propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Model, Node, Value

from hqc.analysis.partition import computed_nodes, first_quantisers, host_tail
from hqc.analysis.ranges import ChannelRange, forward
from hqc.ir import State, range_of, set_range, set_type, type_of
from hqc.ir.operators import MultiThreshold, Quant
from hqc.numerics.types import FixedType, Range
from hqc.pipeline.passes import Contract, Outcome, Pass, Promise


@dataclass(frozen=True)
class PropagatePrecision(Pass):
    """Annotate every value of the datapath with its proven range and the narrowest type for it.

    Ranges are exact sums over the weights, channel by channel; types have no bit that the range
    does not need, on the coarsest step that all values share. Quantisers keep the rounding and
    saturation they perform.
    """

    name: ClassVar[str] = "propagate-precision"
    contract: ClassVar[Contract] = Contract(Promise.ANNOTATION)
    needs: ClassVar[State | None] = State.INTEGER
    gives: ClassVar[State | None] = State.INTEGER

    def rewrite(self, model: Model) -> Outcome:
        """One forward sweep."""
        changed = 0
        for value, found in channel_ranges(model).items():
            before = (type_of(value), range_of(value))
            joined = found.joined
            set_range(value, joined)
            set_type(value, _type(value.producer(), found))
            changed += before != (type_of(value), range_of(value))
        return Outcome(model, changed)


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


def _type(node: Node | None, found: ChannelRange) -> FixedType | None:
    if node is not None and Quant.matches(node):
        return Quant.read(node).fixed_type
    if node is not None and MultiThreshold.matches(node):  # counters count to the end of the table
        view = MultiThreshold.read(node)
        low = int(view.out_bias)
        return Range(low, low + view.thresholds.shape[1]).fit()
    return found.joined.fit()
