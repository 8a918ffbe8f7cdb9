"""The integer core in the form that FINN takes: integer tensors in float32, and MultiThreshold.

Weights are integer initializers, activations are MultiThreshold nodes of which the factors,
offsets and rectifiers before them are part, and every tensor is annotated with its
`finn_datatype`. Ports carry codes; there is no Quant left to convert.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hqc.analysis.partition import Port
from hqc.backends.layers.layout import is_identity
from hqc.integrations.core import Emitter, Held, inexpressible, lowered, port_properties, sum_bits
from hqc.integrations.core import walk as walk_core
from hqc.integrations.onnx_integer import finish
from hqc.ir import QONNX, Array
from hqc.ir.windows import Window
from hqc.numerics.types import SINGLE_BITS, Codes, FixedType, Range, Rounding, round_shift

#: Thresholds of one activation; FINN holds all of them in memory.
MAX_STEPS = 1 << 16
_LAYOUTS = {1: "NC", 2: "NCW", 3: "NCHW"}


def export_finn(model: object, *, batch: int = 1, example_inputs: object = None) -> onnx.ModelProto:
    """The core of a model as FINN's transformations take it.

    Inputs and outputs are codes, in the order of the ports of `lowered(model)`, whose `encode`
    and `decode` are the host's part.

    Args:
        model: see `hqc.integrations.core.lowered`.
        batch: size of the first axis, which FINN wants fixed.
        example_inputs: for a module.

    Raises:
        HqcError: HQC401, codes beyond the 24 bits that float32 holds, or an activation of more
            than `MAX_STEPS` thresholds.
    """
    cut = lowered(model, example_inputs=example_inputs)
    graph = _Finn(batch)
    walk_core(cut, graph)
    return finish(graph.proto, port_properties(cut), **{QONNX: 1})


def datatype(range_: Range) -> str:
    """FINN's name of the narrowest integer type that holds a range of codes."""
    type_ = range_.fit()
    return f"{'INT' if type_.signed else 'UINT'}{type_.width}"


@dataclass(frozen=True)
class _Step:
    """A monotone step that a MultiThreshold behind it takes in: as a function and as a node.

    Attributes:
        source: what it is a function of.
        codes: the function, on arrays (channels or 1, any).
        op, parameter: the node that does it where no MultiThreshold follows.
    """

    source: Held
    codes: Callable[[Codes], Codes]
    op: str
    parameter: Array | None


class _Finn(Emitter):
    """Writes the graph; steps before a quantiser wait in `steps` until something reads them."""

    target = "FINN"

    def __init__(self, batch: int) -> None:
        self.proto = onnx.GraphProto(name="core")
        self._batch = batch
        self._steps: dict[str, _Step] = {}
        self._written: set[str] = set()

    # --- writing ----------------------------------------------------------------------------

    def _annotate(self, tensor: str, range_: Range) -> None:
        entry = onnx.StringStringEntryProto(key="finn_datatype", value=datatype(range_))
        note = onnx.TensorAnnotation(tensor_name=tensor)
        note.quant_parameter_tensor_names.append(entry)
        self.proto.quantization_annotation.append(note)

    def _value(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self._batch, *shape])

    def _const(self, name: str, codes: Array) -> str:
        name = f"{name}__{len(self.proto.initializer)}"
        array = np.asarray(codes, np.float32, order="C")
        self.proto.initializer.append(numpy_helper.from_array(array, name))
        if np.all(array == np.rint(array)):
            self._annotate(name, Range(int(array.min()), int(array.max())))
        return name

    def _dims(self, name: str, values: Sequence[int] | Codes) -> str:
        name = f"{name}__{len(self.proto.initializer)}"
        self.proto.initializer.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def _op(self, op: str, out: Held, *inputs: str, domain: str = "", **attributes: Any) -> None:
        """A node whose output is a held tensor."""
        self._check_bits(out.range.magnitude_bits, "", out)
        self._written.add(out.name)
        node = helper.make_node(op, inputs, [out.name], name=out.name, domain=domain, **attributes)
        self.proto.node.append(node)
        self.proto.value_info.append(self._value(out.name, out.shape))
        self._annotate(out.name, out.range)

    def _tensor(self, x: Held) -> str:
        """The name of a tensor, written now if it was waiting."""
        if x.name not in self._written:
            step = self._steps[x.name]
            inputs = [self._tensor(step.source)]
            if step.parameter is not None:
                inputs.append(self._const(f"{x.name}__parameter", step.parameter))
            self._op(step.op, x, *inputs)
        return x.name

    def _check_bits(self, bits: int, what: str, out: Held) -> None:
        """`what` is held exactly, such as "sums of "."""
        if bits > SINGLE_BITS:
            message = f"{what}{bits} bits in {out.name}: float32 holds {SINGLE_BITS}"
            help_ = "use fewer bits for the inputs or weights"
            raise inexpressible(self.target, message, None, help_)

    # --- operations -------------------------------------------------------------------------

    def input(self, out: Held, port: Port) -> None:
        """A graph input of codes."""
        self.proto.input.append(self._value(port.name, port.shape))
        self._written.add(out.name)
        self._annotate(port.name, out.range)

    def output(self, x: Held, port: Port) -> None:
        """A graph output of codes; one that is a port already is copied."""
        taken = {v.name for v in (*self.proto.input, *self.proto.output)}
        name = self._tensor(x)
        if name in taken:
            name = f"{port.name}_codes"
            self._op("Identity", replace(x, name=name), x.name)
        (info,) = (v for v in self.proto.value_info if v.name == name)
        self.proto.value_info.remove(info)
        self.proto.output.append(info)

    def matmul(self, out: Held, x: Held, weight: Codes) -> None:
        """MatMul by integer weights."""
        self._check_bits(sum_bits(x, weight.T), "sums of ", out)
        self._op("MatMul", out, self._tensor(x), self._const(f"{out.name}__weight", weight))

    def conv(self, out: Held, x: Held, weight: Codes, window: Window) -> None:
        """Conv by integer weights."""
        self._check_bits(sum_bits(x, weight), "sums of ", out)
        w = self._const(f"{out.name}__weight", weight)
        attributes: dict[str, Any] = {"group": window.group, **window.attributes()}
        self._op("Conv", out, self._tensor(x), w, **attributes)

    def maximum(self, out: Held, x: Held, window: Window) -> None:
        """MaxPool."""
        attributes: dict[str, Any] = window.attributes()
        self._op("MaxPool", out, self._tensor(x), **attributes)

    def pair(self, op: str, out: Held, x: Held, y: Held) -> None:
        """Add or Mul of two tensors."""
        self._op(op, out, self._tensor(x), self._tensor(y))

    def constant(self, op: str, out: Held, x: Held, codes: Codes) -> None:
        """Waits for a MultiThreshold where the constant varies along the channels only."""
        shaped = codes.reshape(1, *codes.shape)
        if codes.size != codes.shape[0]:
            name = self._const(f"{out.name}__parameter", shaped)
            self._op(op, out, self._tensor(x), name)
            return
        column, combine = codes.reshape(-1, 1), np.add if op == "Add" else np.multiply
        self._steps[out.name] = _Step(x, lambda n: combine(n, column), op, shaped)

    def shift(self, out: Held, x: Held, bits: int, rounding: Rounding) -> None:
        """A division by 2**bits that leaves no rest; others come as `quantise`."""
        self._steps[out.name] = _Step(
            x, lambda n: round_shift(n, bits, rounding), "Mul", np.array(2.0**-bits)
        )

    def clamp(self, out: Held, x: Held, lo: int, hi: int | None) -> None:
        """Relu; it waits like factors and offsets."""
        if (lo, hi) != (0, None):
            raise inexpressible(self.target, f"a clamp to [{lo}, {hi}]")
        self._steps[out.name] = _Step(x, lambda n: np.maximum(n, 0), "Relu", None)

    def quantise(self, out: Held, x: Held, type_: FixedType) -> None:
        """A MultiThreshold with one threshold per code of the type."""
        limits = type_.limits
        self._activate(out, x, lambda n: type_.quantise(n, x.exponent), limits.lo, limits.hi)

    def thresholds(self, out: Held, x: Held, rows: Codes, bias: int) -> None:
        """A MultiThreshold with the thresholds moved before the steps that wait."""

        def count(codes: Codes) -> Codes:
            hits = codes[..., None] >= rows[:, None, :]
            return np.asarray(hits.sum(axis=-1) + bias, np.int64)

        self._activate(out, x, count, bias, bias + rows.shape[1])

    def _activate(
        self, out: Held, x: Held, last: Callable[[Codes], Codes], lo: int, hi: int
    ) -> None:
        """The waiting steps and `last` as one MultiThreshold of what they start from."""
        if hi - lo > MAX_STEPS:
            what = f"{hi - lo} steps in {out.name}"
            raise inexpressible(self.target, what, None, "use fewer bits")
        functions = [last]
        while x.name not in self._written:
            functions.append(self._steps[x.name].codes)
            x = self._steps[x.name].source

        def step(codes: Codes) -> Codes:
            for function in reversed(functions):
                codes = function(codes)
            return codes

        ends = step(np.array([[x.range.lo, x.range.hi]]))
        signs = np.where(ends[:, :1] > ends[:, 1:], -1, 1)
        tensor, first, end = self._tensor(x), x.range.lo, x.range.hi
        if np.any(signs < 0):  # a negative factor: count on the negated codes
            flipped = replace(
                x, name=f"{out.name}_signed", range=x.range.join(Range(-end, -first, x.exponent))
            )
            shape = (1, -1, *(1,) * (len(x.shape) - 1))
            self._op("Mul", flipped, tensor, self._const(f"{out.name}__sign", signs.reshape(shape)))
            tensor, first, end = flipped.name, flipped.range.lo, flipped.range.hi
        clipped = Range(x.range.lo, x.range.hi)
        wanted = np.arange(lo + 1, hi + 1)[None, :]
        rows = _boundaries(
            lambda n: step(np.clip(n * signs, clipped.lo, clipped.hi)),
            wanted,
            len(ends),
            first,
            end,
        )
        self._op(
            "MultiThreshold",
            out,
            tensor,
            self._const(f"{out.name}__thresholds", rows),
            domain=QONNX,
            out_dtype=datatype(Range(lo, hi)),
            out_scale=1.0,
            out_bias=float(lo),
            data_layout=_LAYOUTS.get(len(x.shape), ""),
        )

    def move(self, out: Held, sources: Sequence[Held], index: Codes, fill: int) -> None:
        """Reshape or Transpose where it is one, else a Gather of the flat samples."""
        flat, sizes = index.ravel(), [math.prod(x.shape) for x in sources]
        tensors = [self._tensor(x) for x in sources]
        if len(sources) == 1 and is_identity(flat, sizes[0]):
            self._reshape(out, tensors[0])
            return
        if len(sources) == 1 and (order := _transposition(index, sources[0].shape)) is not None:
            self._op("Transpose", out, tensors[0], perm=[0, *(i + 1 for i in order)])
            return
        rows = []
        for i, (x, size) in enumerate(zip(sources, sizes, strict=True)):
            row = replace(x, name=f"{out.name}_row{i}", shape=(size,))
            self._reshape(row, self._tensor(x))
            rows.append(row.name)
        if np.any(flat < 0):
            rows.append(self._const(f"{out.name}__fill", np.full((self._batch, 1), fill)))
        whole = replace(out, name=f"{out.name}_all", shape=(sum(sizes) + len(rows) - len(sizes),))
        if len(rows) > 1:
            self._op("Concat", whole, *rows, axis=1)
            rows = [whole.name]
        at = self._dims(f"{out.name}__index", np.where(flat < 0, sum(sizes), flat))
        taken = replace(out, name=f"{out.name}_taken", shape=(flat.size,))
        self._op("Gather", taken, rows[0], at, axis=1)
        self._reshape(out, taken.name)

    def _reshape(self, out: Held, tensor: str) -> None:
        self._op("Reshape", out, tensor, self._dims(f"{out.name}__dims", [self._batch, *out.shape]))


def _boundaries(
    step: Callable[[Codes], Codes], wanted: Codes, channels: int, first: int, end: int
) -> Codes:
    """The lowest code n in first..end with step(n) >= wanted, end + 1 where there is none.

    Args:
        step: ascending along the last axis of (channels, K).
        wanted: (1, K).
        channels: rows of the result.
        first, end: the range of n.
    """
    low = np.full((channels, wanted.shape[1]), first, np.int64)
    high = np.full_like(low, end + 1)
    while np.any(low < high):
        middle = (low + high) >> 1
        reached = step(np.minimum(middle, end)) >= wanted
        high = np.where(reached & (low < high), middle, high)
        low = np.where(~reached & (low < high), middle + 1, low)
    return low


def _transposition(index: Codes, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of axes that a rearrangement is, if it is one."""
    held = np.arange(math.prod(shape)).reshape(shape)
    for order in itertools.permutations(range(len(shape))):
        if np.array_equal(held.transpose(order), index):
            return order
    return None
