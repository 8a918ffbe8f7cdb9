"""Read the core of an integer graph as a list of hardware layers, or say why it is not one.

Adjacent nodes that one hardware layer does at once are joined: MatMul and its bias, the factors
and offset of a requantisation, and a quantiser with the single layer whose result it takes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import numpy as np
from onnx_ir import DataType, Model, Node, Value

from hqc.backends.constants import (
    Illegal,
    c_name,
    per_element,
    read_constant,
    threshold_codes,
    together,
)
from hqc.backends.layers import (
    Activation,
    Constant,
    Dense,
    Input,
    Layer,
    Merge,
    Network,
    Requantise,
    Threshold,
    accumulator,
)
from hqc.diagnostics import Diagnostic, HqcError, Location
from hqc.ir import constant, location_of, range_of, type_of
from hqc.operators import MultiThreshold, Quant
from hqc.partition import Partition
from hqc.semantics import is_pass_through
from hqc.types import FixedType, Range

_ONE = FixedType(False, 1, 1)
#: Operators of legal core nodes.
OPERATORS = (
    *("MatMul", "Mul", "Add", "Relu", "Quant", "MultiThreshold"),
    *("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"),
)


def read_network(model: Model, partition: Partition) -> Network:
    """The layers of a partition's core.

    Raises:
        HqcError: HQC401 with one diagnostic per node that no layer does.
    """
    reader = _Reader(partition)
    network = reader.read()
    if reader.found:
        raise HqcError(reader.found)
    return network


class _Reader:
    """One pass over the core; `found` collects what is wrong with it."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self.core = frozenset(id(node) for node in partition.core)
        self.ports = frozenset(port.name for port in partition.outputs)
        self.layers: list[Layer] = []
        self.layer_of: dict[str, str] = {}
        self.ranges: dict[str, Range] = {}
        self.done: set[int] = set()
        self.found: list[Diagnostic] = []

    def read(self) -> Network:
        inputs = tuple(self._input(i) for i in range(len(self.partition.inputs)))
        for node in self.partition.core:
            if id(node) in self.done:
                continue
            try:
                self._node(node)
            except Illegal as reason:
                self.found.append(reason.diagnostic(location_of(node)))
                self._poison(node)
            except HqcError as error:
                self.found.extend(error.diagnostics)
                self._poison(node)
        outputs = tuple(self._output(i) for i in range(len(self.partition.outputs)))
        return Network(tuple(self.layers), inputs, outputs)

    def _poison(self, node: Node) -> None:
        """Keep going after a node that has no layer, without complaining about its users."""
        for output in node.outputs:
            self.layer_of[str(output.name)] = ""

    # --- ports ------------------------------------------------------------------------------

    def _input(self, index: int) -> str:
        port = self.partition.inputs[index]
        name = f"in{index}_{c_name(port.name)}"
        self.layers.append(Input(name, (), port.shape, port.type, Location(node=port.name)))
        self.layer_of[port.name] = name
        self.ranges[name] = port.type.limits
        return name

    def _output(self, index: int) -> str:
        """The layer of an output port: the one that computes it, or a copy of one used inside.

        An output array that the design also reads would get a second, input direction in the
        synthesised interface, so values that have other uses are copied.
        """
        port = self.partition.outputs[index]
        name = self.layer_of.get(port.name)
        if name is None:
            message = f"output port {port.name} is not computed by the hardware part"
            self.found.append(Illegal(message).diagnostic(Location(node=port.name)))
            return ""
        if not name:
            return ""
        source = next(layer for layer in self.layers if layer.name == name)
        read = any(name in layer.sources for layer in self.layers)
        first = [p.name for p in self.partition.outputs[:index]]
        shared = any(self.layer_of.get(p) == name for p in first)
        if not (read or shared or isinstance(source, Input)):
            return name
        copy = Activation(
            f"out{index}_{c_name(port.name)}",
            (name,),
            source.shape,
            source.result.exact(),
            source.where,
            function="cast",
        )
        self.layers.append(copy)
        return copy.name

    # --- walking ----------------------------------------------------------------------------

    def _source(self, value: Value | None) -> Layer:
        name = self.layer_of.get(str(value.name)) if value is not None else None
        if name is None:
            raise Illegal(
                f"it reads {value.name if value else 'nothing'}, which the hardware does not hold",
                notes=("hardware values begin at an input quantiser",),
            )
        if not name:
            raise _Skip
        layer = next(layer for layer in self.layers if layer.name == name)
        dims = _sample_shape(value)  # may have been reshaped since
        return layer if dims is None else replace(layer, shape=dims)

    def _next(self, value: Value) -> Node | None:
        """The one core node that uses a value; None if it is a port or has other users."""
        uses = value.uses()
        if len(uses) != 1 or value.is_graph_output() or value.name in self.ports:
            return None
        user = next(iter(uses)).node
        return user if id(user) in self.core else None

    def _follow(self, value: Value) -> tuple[Value, Node | None]:
        """The next node that computes, past those that only change shape or storage."""
        node = self._next(value)
        while node is not None and is_pass_through(node) and _keeps_elements(node):
            self.done.add(id(node))
            value = node.outputs[0]
            node = self._next(value)
        return value, node

    def _finish(self, layer: Layer, value: Value, node: Node | None) -> None:
        """Add a layer whose result is `value`, joined with the quantiser that follows, if any."""
        if node is not None and Quant.matches(node):
            layer = replace(layer, result=_quantiser_type(node))
            self.done.add(id(node))
            value = node.outputs[0]
        self._add(layer, value)

    def _add(self, layer: Layer, value: Value) -> None:
        name = f"l{len(self.layers)}_{c_name(str(value.name))}"
        layer = replace(layer, name=name, where=layer.where)
        self.layers.append(layer)
        self.layer_of[str(value.name)] = name
        self.ranges[name] = range_of(value) or layer.result.limits

    # --- nodes ------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        try:
            self._dispatch(node)
        except _Skip:
            self._poison(node)

    def _dispatch(self, node: Node) -> None:
        plain = node.domain == ""
        if is_pass_through(node):
            source = self._source(node.inputs[0])
            if not _keeps_elements(node):
                raise Illegal(f"this {node.op_type} changes values or mixes samples")
            self.layer_of[str(node.outputs[0].name)] = source.name
        elif plain and node.op_type == "MatMul":
            self._dense(node)
        elif plain and node.op_type == "Mul":
            self._requantise(node)
        elif plain and node.op_type == "Add":
            if _constant_side(node) is None:
                self._merge(node)
            else:
                self._requantise(node)
        elif plain and node.op_type == "Relu":
            self._activation(node, "relu")
        elif Quant.matches(node):
            self._activation(node, "cast")
        elif MultiThreshold.matches(node):
            self._threshold(node)
        else:
            raise Illegal(
                f"{node.op_type} has no hardware layer",
                notes=("layers: " + ", ".join(OPERATORS),),
                helps=("run the default pipeline first, or replace the operator in the model",),
            )

    def _dense(self, node: Node) -> None:
        x = self._source(node.inputs[0])
        weight = read_constant(node.inputs[1], "the weight")
        if weight.codes.ndim != 2 or (len(x.shape) != 1 and _rank(node.inputs[0]) != 2):
            raise Illegal(f"MatMul of rank {_rank(node.inputs[0])} by {weight.codes.shape}")
        n_in, n_out = weight.codes.shape
        if x.size != n_in:
            raise Illegal(f"MatMul of {x.size} elements by {weight.codes.shape}")
        value, after = self._follow(node.outputs[0])
        bias = Constant(np.zeros(n_out, np.int64), _ONE)
        if after is not None and after.op_type == "Add" and _constant_side(after) is not None:
            given = read_constant(after.inputs[_constant_side(after) or 0], "the bias")
            bias = replace(given, codes=per_element(given.codes, n_out, (n_out,)))
            self.done.add(id(after))
            value, after = self._follow(after.outputs[0])
        accum = accumulator(self.ranges[x.name], weight, bias)
        quantised = after is not None and Quant.matches(after)
        result = accum if quantised else _result_type(value)
        where = location_of(node)
        layer = Dense("", (x.name,), (n_out,), result, where, weight=weight, bias=bias, accum=accum)
        self._finish(layer, value, after)

    def _requantise(self, node: Node) -> None:
        side = _constant_side(node)
        if side is None:
            raise Illegal(
                f"{node.op_type} of two computed values",
                notes=("hardware multiplies by constants only",),
            )
        x = self._source(node.inputs[1 - side])
        first = read_constant(node.inputs[side], f"the {node.op_type} constant")
        scale = Constant(np.ones(1, np.int64), _ONE)
        bias = Constant(np.zeros(1, np.int64), _ONE)
        value, after = self._follow(node.outputs[0])
        if node.op_type == "Add":
            bias = first
        else:
            scale = first
            if after is not None and after.op_type == "Add" and _constant_side(after) is not None:
                bias = read_constant(after.inputs[_constant_side(after) or 0], "the offset")
                self.done.add(id(after))
                value, after = self._follow(after.outputs[0])
        scale, bias = together(scale, bias, x)
        quantised = after is not None and Quant.matches(after)
        result = x.result if quantised else _result_type(value)
        where = location_of(node)
        layer = Requantise("", (x.name,), x.shape, result, where, scale=scale, bias=bias)
        self._finish(layer, value, after)

    def _activation(self, node: Node, function: Literal["relu", "cast"]) -> None:
        x = self._source(node.inputs[0])
        where = location_of(node)
        value = node.outputs[0]
        if function == "cast":
            type_ = _quantiser_type(node)
            self._add(Activation("", (x.name,), x.shape, type_, where, function="cast"), value)
            return
        value, after = self._follow(value)
        quantised = after is not None and Quant.matches(after)
        result = x.result.exact() if quantised else _result_type(value)
        layer = Activation("", (x.name,), x.shape, result, where, function="relu")
        self._finish(layer, value, after)

    def _threshold(self, node: Node) -> None:
        x = self._source(node.inputs[0])
        view = MultiThreshold.read(node)
        if view.out_scale != 1 or view.out_bias != int(view.out_bias):
            raise Illegal(
                f"MultiThreshold with out_scale {view.out_scale:g}, out_bias {view.out_bias:g}",
                helps=("move the output scale into the following layer",),
            )
        rows, count = view.thresholds.shape
        if rows not in (1, x.size):
            raise Illegal(f"{rows} rows of thresholds for {x.size} elements")
        bias = int(view.out_bias)
        codes = threshold_codes(view.thresholds, x.result)
        type_ = Range(int(codes.min()), int(codes.max()), -x.result.fraction).fit()
        result = _result_type(node.outputs[0])
        if not result.contains(Range(bias, bias + count)):
            raise Illegal(f"{result} does not hold counts {bias}..{bias + count}")
        thresholds = Constant(codes, type_)
        where = location_of(node)
        self._add(
            Threshold("", (x.name,), x.shape, result, where, thresholds=thresholds, bias=bias),
            node.outputs[0],
        )

    def _merge(self, node: Node) -> None:
        x, y = self._source(node.inputs[0]), self._source(node.inputs[1])
        if x.shape != y.shape:
            raise Illegal(f"Add of {x.shape} and {y.shape}: merging does not broadcast")
        value, after = self._follow(node.outputs[0])
        quantised = after is not None and Quant.matches(after)
        result = x.result if quantised else _result_type(value)
        layer = Merge("", (x.name, y.name), x.shape, result, location_of(node))
        self._finish(layer, value, after)


class _Skip(Exception):
    """The node reads one that was already reported."""


def _quantiser_type(node: Node) -> FixedType:
    """The hardware type of a Quant node."""
    view = Quant.read(node)
    if view.fixed_type is None:
        raise Illegal(
            "this Quant has no hardware type",
            notes=(
                "a type has one power-of-two step, zero point 0, a rounding mode that "
                "ap_fixed and ac_fixed know, and a two's-complement or symmetric range",
            ),
            helps=("run the default pipeline, which lowers scales, zero points and roundings",),
        )
    return view.fixed_type


def _result_type(value: Value) -> FixedType:
    """The annotated type of a value that no quantiser follows: it must hold the value's range."""
    type_, range_ = type_of(value), range_of(value)
    if type_ is None:
        raise Illegal(f"{value.name} has no fixed-point type", helps=("run propagate-precision",))
    if range_ is not None and not type_.contains(range_):
        raise Illegal(f"the type {type_} of {value.name} does not hold its range {range_}")
    return type_.exact() if range_ is not None else type_


def _constant_side(node: Node) -> int | None:
    """Which of two inputs is a constant."""
    for side in (1, 0):
        if side < len(node.inputs) and constant(node.inputs[side]) is not None:
            return side
    return None


def _sample_shape(value: Value | None) -> tuple[int, ...] | None:
    """Shape per sample, or None where it is not known."""
    dims = tuple(value.shape or ())[1:] if value is not None and value.shape is not None else None
    if dims is None or not all(isinstance(d, int) for d in dims):
        return None
    return tuple(int(d) for d in dims if isinstance(d, int))


def _keeps_elements(node: Node) -> bool:
    """Whether a pass-through node leaves each sample's elements as they are, in order."""
    if node.op_type == "Cast":
        to = node.attributes["to"].as_int()
        return to in (int(DataType.FLOAT), int(DataType.DOUBLE))
    before, after = _sample_shape(node.inputs[0]), _sample_shape(node.outputs[0])
    return before is None or after is None or math.prod(before) == math.prod(after)


def _rank(value: Value | None) -> int:
    return len(value.shape) if value is not None and value.shape is not None else -1
