"""Where the host ends and the hardware begins, decided by the structure of the graph alone.

Head: what stands between a graph input and its first quantiser; the host computes it, exactly.
Core: everything whose values are exact. Tail: the trailing float operators (softmax, the scaling
of the last accumulators, ...), which the host computes with the model's own float operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from hqc.analysis.chain_steps import after_cast, chain_step, check_per_channel, is_pass_through
from hqc.analysis.dependence import computed_values, data_input
from hqc.analysis.float_tail import FloatTail
from hqc.analysis.grid_constants import grid_constant, round_float
from hqc.analysis.rearrangements import RESHAPES, is_rearrangement, rearrangement
from hqc.analysis.step_functions import Coder, Quantiser, Thresholds, real_step_function
from hqc.diagnostics import reject
from hqc.ir import Array, location_of, type_of
from hqc.ir.operators import BipolarQuant, MultiThreshold, Quant, exact, is_quantiser
from hqc.numerics.activations import Rectifier, Single
from hqc.numerics.monotone_chain import Affine, Chain, Step
from hqc.numerics.types import SINGLE_BITS, Codes, FixedType, Rounding

#: Linear operators: what comes before one of them is never tail.
LINEAR = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})
#: Poolings that pick one of their inputs.
MAXIMA = frozenset({"MaxPool", "GlobalMaxPool"})


def is_linear(node: Node) -> bool:
    """Whether a node multiplies by a weight matrix."""
    return node.domain == "" and node.op_type in LINEAR


def computed_nodes(model: Model) -> list[Node]:
    """The nodes that depend on a graph input, in order."""
    computed = computed_values(model.graph)
    return [n for n in model.graph if not computed.isdisjoint(v for v in n.inputs if v is not None)]


def host_tail(model: Model) -> set[Node]:
    """Trailing nodes without an exact integer form, and all that follow them.

    A node is trailing if no quantiser or linear operator depends on it. Trailing additions of
    constants that lie on a grid, rectifiers and rearrangements stay in the core, but for
    rearrangements that mix channels of different scales.
    """
    nodes = computed_nodes(model)
    needed: set[Node] = set()
    for node in reversed(nodes):
        if is_quantiser(node) or is_linear(node) or node in needed:
            needed.update(p for v in node.inputs if v is not None and (p := v.producer()))
    tail: set[Node] = set()
    computed = computed_values(model.graph)
    for node in nodes:
        if node in needed or is_quantiser(node) or is_linear(node):
            continue
        after_tail = any(v is not None and v.producer() in tail for v in node.inputs)
        if after_tail or not _stays_exact(node, computed):
            tail.add(node)
    return tail


def _stays_exact(node: Node, computed: set[Value]) -> bool:
    if is_pass_through(node):
        return True
    if is_rearrangement(node):
        return not _mixes_channels(node) or all(
            _has_one_scale(v, computed) for v in rearrangement(node).sources
        )
    if node.domain == "" and (node.op_type == "Relu" or node.op_type in MAXIMA):
        return True
    if node.op_type == "Add":
        return all(
            v in computed or grid_constant(v) is not None for v in node.inputs if v is not None
        )
    return False


def _mixes_channels(node: Node) -> bool:
    channels = rearrangement(node).channels()
    return channels is None or any(len(row) > 1 for row in channels)


def _has_one_scale(value: Value, known: set[Value]) -> bool:
    """Whether what is in front of a value gives all of its channels one scale and offset."""
    pending, seen = [value], {value}
    while pending:
        node = pending.pop().producer()
        if node is None or (is_quantiser(node) and code_boundaries(node).channels == 1):
            continue
        given = [v for v in node.inputs if v is not None]
        computed = [v for v in given if v in known]
        fresh = [v for v in computed if v not in seen]
        offsets = [v for v in given if v not in computed] if node.op_type == "Add" else []
        if is_quantiser(node) or any(type_of(v) is None for v in offsets):
            return False
        if is_linear(node):
            grid = grid_constant(node.inputs[1])
            if grid is None or len(set(grid.scale.ravel())) > 1:
                return False
        seen.update(fresh)
        pending += fresh
    return True


def first_quantisers(model: Model) -> dict[Node, tuple[Value, Chain]]:
    """Each quantiser that is the first after a graph input, with that input and the chain between.

    Raises:
        HqcError: HQC103, an input meets another operator before any quantiser.
    """
    found: dict[Node, tuple[Value, Chain]] = {}
    for graph_input in model.graph.inputs:
        if graph_input.is_initializer():
            continue
        pending: list[tuple[Value, Chain]] = [(graph_input, Chain())]
        while pending:
            value, chain = pending.pop()
            for node in dict.fromkeys(use.node for use in value.uses()):
                if is_quantiser(node):
                    found[node] = (graph_input, chain)
                elif is_pass_through(node):
                    pending.append((node.outputs[0], after_cast(node, chain)))
                elif _reshapes(node) and (chain.channels == 1 or _keeps_channels(node)):
                    pending.append((node.outputs[0], chain))
                elif data_input(node, {value}) is value and (step := chain_step(node)) is not None:
                    pending.append((node.outputs[0], chain.then(step)))
                else:
                    raise reject(
                        "HQC103",
                        f"input {graph_input.name} reaches {node.op_type} without a quantiser",
                        where=location_of(node),
                        helps=(f"state its type: --input-type {graph_input.name}=fixed<16,6>",),
                    )
    return found


def _reshapes(node: Node) -> bool:
    return node.domain == "" and node.op_type in RESHAPES


def _keeps_channels(node: Node) -> bool:
    """Whether axis 1 of a reshaped tensor is the one it was."""
    before = node.inputs[0].shape if node.inputs[0] is not None else None
    return before is not None and before == node.outputs[0].shape


@dataclass(frozen=True)
class Port:
    """One side of the hardware's interface.

    Attributes:
        name: the value's name in the integer graph.
        shape: per sample, without the batch axis.
        type: what the wires carry; value = code * 2**-type.fraction.
        external: the graph input or output of the model that it serves.
        kind: "fixed", the wires carry the model's own units; "codes", the host scales.
    """

    name: str
    shape: tuple[int, ...]
    type: FixedType
    external: str
    kind: str


@dataclass(frozen=True)
class Partition:
    """An integer graph cut into host and hardware. Made by `partition`."""

    model: Model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    core: tuple[Node, ...]
    tail: tuple[Node, ...]
    heads: Mapping[str, tuple[Chain, Node]]

    def encode(self, inputs: Mapping[str, Array]) -> dict[str, Codes]:
        """Port codes (N, *shape) of model inputs (N, ...), exactly as the quantisers say."""
        return {name: x.astype(np.int64) for name, x in self.encode_floats(inputs).items()}

    def encode_floats(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The same codes as integers in float arrays, as executors on floats want them."""
        return {
            port.name: encode(
                self.heads[port.name], np.reshape(inputs[port.external], (-1, *port.shape))
            )
            for port in self.inputs
        }

    def decode(self, codes: Mapping[str, Array]) -> dict[str, Array]:
        """Model outputs (float32, N first) of port codes, by the model's own float operators.

        Codes are integers, in int64 or in floats that hold them.
        """
        values = {port.name: codes[port.name] * 2.0**-port.type.fraction for port in self.outputs}
        return self._tail_session(values)

    @cached_property
    def _tail_session(self) -> FloatTail:
        return FloatTail(self.model, self.tail, [p.name for p in self.outputs])

    def host_steps(self) -> dict[str, Any]:
        """What the host does on either side, as plain data for the manifest."""
        encoders = {
            port.name: {
                "input": port.external,
                "quantiser": self.heads[port.name][1].op_type,
                "parameters": _parameters(self.heads[port.name][1]),
                "before": [_step(s) for s in self.heads[port.name][0].steps],
            }
            for port in self.inputs
        }
        decoders = [
            {
                "node": node.name,
                "op": node.op_type,
                "inputs": [v.name if v is not None else "" for v in node.inputs],
                "output": node.outputs[0].name,
            }
            for node in self.tail
        ]
        return {"encode": encoders, "decode": decoders}


def _step(step: Step) -> Any:
    if isinstance(step, Affine):
        return {"a": [str(x) for x in step.a], "b": [str(x) for x in step.b]}
    if isinstance(step, Rectifier):
        return "relu"
    return "round to float32" if isinstance(step, Single) else str(step)


def _parameters(node: Node) -> dict[str, Any]:
    if Quant.matches(node):
        quant = Quant.read(node)
        return {
            "scale": np.asarray(quant.scale, float).ravel().tolist(),
            "zero_point": quant.zero_point.ravel().tolist(),
            "bits": quant.bits,
            "signed": quant.signed,
            "narrow": quant.narrow,
            "rounding": quant.rounding.value,
        }
    return {"thresholds": [str(x) for x in np.unique(MultiThreshold.read(node).thresholds)[:16]]}


def encode(head: tuple[Chain, Node], x: Array) -> Array:
    """Codes of real inputs through a head: a chain and the quantiser that ends it.

    Integers, in a float or an int64 array, whichever came out.
    """
    chain, node = head
    if Quant.matches(node) and (type_ := Quant.read(node).fixed_type) is not None:
        if not chain.steps:
            return _assign(type_, x)
        if (scaled := _product_in_single(chain, x)) is not None:
            return _assign(type_, scaled)
    coder = code_boundaries(node)
    codes = real_step_function(chain, coder, max(chain.channels, coder.channels))
    return codes(np.asarray(x, np.float64))


def _product_in_single(chain: Chain, x: Array) -> Array | None:
    """A chain that is one float32 product of float32 inputs, or None where it is another."""
    if len(chain.steps) != 2 or not isinstance(chain.steps[1], Single):
        return None
    step = chain.steps[0]
    if not isinstance(step, Affine) or len(step.a) != 1 or any(step.b):
        return None
    factor, single = np.float32(float(step.a[0])), np.asarray(x, np.float32)
    if Fraction(float(factor)) != step.a[0] or not np.array_equal(single, x):
        return None
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(single * factor)


def _assign(type_: FixedType, x: Array) -> Array:
    """Codes of floats assigned to a saturating type.

    Scaling by a power of two is exact but where it underflows, so float32 stays float32 while
    scaling up, and while it holds every code of the type.
    """
    single = x.dtype == np.float32 and type_.fraction >= 0 and type_.width <= SINGLE_BITS
    limits = type_.limits
    with np.errstate(over="ignore"):
        scaled = np.multiply(x, 2.0**type_.fraction, dtype=np.float32 if single else np.float64)
    np.clip(scaled, limits.lo, limits.hi, out=scaled)
    return round_float(scaled, type_.rounding)


def code_boundaries(node: Node) -> Coder:
    """The code boundaries of a quantiser node; a MultiThreshold's codes are its counts.

    Raises:
        HqcError: HQC102, parameters that vary along another axis than that of the channels.
    """
    if Quant.matches(node):
        quant = Quant.read(node)
        check_per_channel(node, quant.scale.shape)
        check_per_channel(node, quant.zero_point.shape)
        return Quantiser.of(quant)
    if BipolarQuant.matches(node):
        bipolar = BipolarQuant.read(node)
        check_per_channel(node, bipolar.scale.shape)
        return Quantiser(tuple(exact(bipolar.scale)), (0,), 0, 1, Rounding.FLOOR, bipolar=True)
    return Thresholds.of(MultiThreshold.read(node))


def code_grid(node: Node, coder: Coder) -> Affine:
    """From the codes of a quantiser node, or the counts of its thresholds, to real values."""
    if isinstance(coder, Quantiser):
        return coder.grid()
    view = MultiThreshold.read(node)
    return Affine.of(Fraction(view.out_scale), Fraction(view.out_bias))


def partition(model: Model) -> Partition:
    """Cut an integer graph.

    Raises:
        HqcError: HQC205, a value at the boundary has no fixed-point type.
    """
    firsts = first_quantisers(model)
    tail = host_tail(model)
    inputs, heads, head_nodes = [], {}, set()
    for node, (graph_input, chain) in firsts.items():
        value = node.outputs[0]
        own_units = Quant.matches(node) and not chain.steps
        inputs.append(_port(value, str(graph_input.name), own_units))
        heads[str(value.name)] = (chain, node)
        head_nodes.add(node)
        head_nodes.update(_upstream(node))
    computed = computed_nodes(model)
    core = tuple(n for n in computed if n not in tail and n not in head_nodes)
    outputs: dict[Value, Port] = {}
    for value in model.graph.outputs:
        if value.producer() not in tail:
            outputs[value] = _port(value, str(value.name), True)
    known = computed_values(model.graph)
    for node in computed:
        for entry in node.inputs if node in tail else ():
            if entry is None or entry not in known or entry.producer() in tail:
                continue
            external = ", ".join(str(o.name) for o in model.graph.outputs)
            outputs.setdefault(entry, _port(entry, external, not _is_scaled(node, entry)))
    ordered = tuple(n for n in computed if n in tail)
    return Partition(model, tuple(inputs), tuple(outputs.values()), core, ordered, heads)


def _is_scaled(node: Node, entry: Value) -> bool:
    """Whether the host begins by scaling codes, rather than with an operator of the model."""
    return entry.dtype == onnx_ir.DataType.DOUBLE and node.op_type in ("Mul", "Add")


def _upstream(node: Node) -> set[Node]:
    found: set[Node] = set()
    pending = [v.producer() for v in node.inputs if v is not None]
    while pending:
        producer = pending.pop()
        if producer is not None and producer not in found:
            found.add(producer)
            pending += [v.producer() for v in producer.inputs if v is not None]
    return found


def _port(value: Value, external: str, own_units: bool) -> Port:
    type_ = type_of(value)
    node = value.producer()
    if type_ is None:
        raise reject(
            "HQC205",
            f"{value.name} crosses into or out of the hardware without a fixed-point type",
            where=location_of(node) if node is not None else None,
            helps=("run the default pipeline, which ends with propagate-precision",),
        )
    shape = tuple(int(d) for d in (value.shape or ())[1:] if isinstance(d, int))
    return Port(str(value.name), shape, type_, external, "fixed" if own_units else "codes")
