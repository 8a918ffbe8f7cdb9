"""A graph under construction: its values with their shapes and sizes, and their quantisers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from support.qonnx_graphs import Net

from fuzzing.choices import Choices

#: What may occur beside plain quantisers and linear layers; a run can do without any of them.
FEATURES = frozenset(
    {
        *("free_scale", "rounding", "narrow", "zero_point", "bipolar", "thresholds", "wide"),
        *("channel_scales", "channel_activations", "weight_zero_points", "batch_norm", "bias"),
        *("constants", "curves", "bends", "convolution", "transposed", "pooling", "reduction"),
        *("movement", "merge", "residual", "several_inputs", "several_outputs", "host_tail"),
        *("float_output", "repeated", "shared", "opsets", "images", "sequences"),
        *("int_quant", "integer_pairs", "truncation", "minifloats"),
    }
)
MODES = ("ROUND", "FLOOR", "CEIL", "HALF_UP", "HALF_DOWN", "UP", "DOWN")
OPSETS = (17, 11, 13, 16, 18)


@dataclass(frozen=True)
class Tensor:
    """A value of the graph.

    Attributes:
        name: in the graph.
        shape: per sample.
        size: about how large its elements are.
        scale: of its grid, where that is one number; None where it is on none, or on several.
        grid: whether a quantiser has put it on a grid.
        curved: whether a sigmoid or tanh stands between it and the last quantiser.
    """

    name: str
    shape: tuple[int, ...]
    size: float
    scale: float | None = None
    grid: bool = False
    curved: bool = False

    @property
    def channels(self) -> int:
        """Elements along axis 1."""
        return self.shape[0]

    @property
    def elements(self) -> int:
        """Elements per sample."""
        return int(np.prod(self.shape))


class Maker:
    """Writes nodes; every decision comes from `choose`."""

    def __init__(self, choose: Choices, features: frozenset[str] = FEATURES):
        self.choose = choose
        self.features = features
        opset = choose.pick(*OPSETS) if "opsets" in features else OPSETS[0]
        self.net = Net(opset=opset)

    @property
    def opset(self) -> int:
        """Version of the ONNX operators."""
        return self.net.opset

    def has(self, feature: str, probability: float) -> bool:
        """Whether a feature shows up here; asked for even when it is off."""
        return self.choose.chance(probability) and feature in self.features

    def op(
        self, op: str, x: Tensor, *others: str, shape: Sequence[int] = (), **more: Any
    ) -> Tensor:
        """A node on one value; its result is on no grid, and taken to be as large as x."""
        out = self.net.op(op, x.name, *others, **more)
        return Tensor(out, tuple(shape) or x.shape, x.size, curved=x.curved)

    def kept(self, op: str, x: Tensor, *others: str, shape: Sequence[int], **more: Any) -> Tensor:
        """A node that keeps the grid of its input."""
        return replace(x, name=self.net.op(op, x.name, *others, **more), shape=tuple(shape))

    def several(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any) -> None:
        """A node with several outputs."""
        self.net.nodes.append(
            helper.make_node(op, inputs, outputs, name=f"{outputs[0]}_node", **more)
        )

    def integers(self, values: Sequence[int]) -> str:
        """A constant list of whole numbers."""
        return self.net.const(values, np.int64)

    def step(self, target: float) -> float:
        """A scale of about this size: a power of two or not."""
        power = float(2.0 ** round(np.log2(max(target, 1e-6))))
        if not self.has("free_scale", 0.5):
            return power
        return float(np.float32(power * self.choose.rng().uniform(0.6, 1.7)))

    def steps(self, target: float, count: int) -> np.ndarray[Any, Any]:
        """Several scales of about this size; sometimes all powers of two."""
        rng = self.choose.rng()
        powers = 2.0 ** (round(np.log2(max(target, 1e-6))) + rng.integers(-1, 2, count))
        if self.has("free_scale", 0.5):
            return np.float32(powers * rng.uniform(0.6, 1.7, count))
        return np.float32(powers)

    def column(self, values: Any, rank: int) -> np.ndarray[Any, Any]:
        """Numbers per channel, in a shape that broadcasts along axis 1."""
        return np.reshape(np.float32(values), (1, -1, *(1,) * (rank - 1)))

    # inputs

    def input(self) -> Tensor:
        """A graph input of some shape, not quantised yet."""
        name = f"x{len(self.net.inputs)}"
        kinds = ["flat"]
        kinds += ["image"] * 3 if "images" in self.features else []
        kinds += ["sequence", "steps"] if "sequences" in self.features else []
        kind = self.choose.pick(*kinds)
        between = self.choose.between
        shape: tuple[int, ...]
        if kind == "flat":
            shape = (between(1, 6),)
        elif kind == "image":
            shape = (between(1, 3), between(2, 5), between(2, 5))
        else:
            shape = (between(1, 3), between(2, 6))
        return Tensor(self.net.input(name, *shape), shape, 1.0)

    def quantised_input(self) -> Tensor:
        """An input behind its first quantiser."""
        x = self.input()
        if self.has("constants", 0.1):
            factor = self.choose.pick(2.0, 0.5, 3.0)
            x = replace(self.op("Mul", x, self.net.const(factor)), size=x.size * factor)
        return self.quant(x, first=True)

    # quantisers

    def quant(self, x: Tensor, *, first: bool = False) -> Tensor:
        """Some quantiser, of a range that fits."""
        if self.has("bipolar", 0.06):
            scale = self.step(x.size)
            name = self.net.bipolar(x.name, np.float32(scale))
            return Tensor(name, x.shape, scale, scale, grid=True)
        if not first and self.has("thresholds", 0.08):
            return self.thresholds(x)
        if self.opset >= 13 and self.has("integer_pairs", 0.06):
            return self.integer_pair(x)
        return self.uniform(x, plain=first)

    def uniform(self, x: Tensor, *, plain: bool = False, scale: float = 0.0) -> Tensor:
        """A Quant node; `plain` keeps to what ports can be, `scale` fixes its scale."""
        choose = self.choose
        bits = choose.pick(4, 3, 2, 5, 6, 8, 1)
        if self.has("wide", 0.04):
            few = x.channels < 4 and not x.curved  # many boundaries of many channels take long
            bits = choose.between(9, 16 if few else 11)
        signed = choose.pick(1, 1, 0)
        narrow = int(self.has("narrow", 0.2) and bits != 1 and not plain)
        top = 2 ** max(1, bits - signed)
        reach = choose.pick(1.5, 0.7, 3.0)
        channels = not plain and self.has("channel_activations", 0.06)
        scales: Any = scale or self.step(x.size * reach / top)
        if channels and not scale:
            scales = self.column(self.steps(x.size * reach / top, x.channels), len(x.shape))
        zero = 0.0
        if self.has("zero_point", 0.2) and not (bits == 1 and signed):
            zero = float(choose.between(-2, 3))
        mode = choose.pick(*(m for m in MODES if m in ("ROUND", "FLOOR") or not plain))
        mode = mode if self.has("rounding", 0.5) else "ROUND"
        op = "IntQuant" if self.has("int_quant", 0.05) else "Quant"
        flags = (bits, signed, narrow, mode, zero)
        name = self.net.quant(x.name, np.float32(scales), *flags, op=op)
        if self.has("repeated", 0.04):
            name = self.net.quant(name, np.float32(scales), *flags)
        if np.ndim(scales) == 0 and bits > 2 and not plain and self.has("truncation", 0.04):
            return self._truncated(Tensor(name, x.shape, x.size), float(scales), zero, bits, signed)
        single = float(scales) if np.ndim(scales) == 0 else None
        largest = float(np.max(scales)) * (top + abs(zero))
        return Tensor(name, x.shape, min(x.size, largest), single, grid=True)

    def _truncated(self, x: Tensor, scale: float, zero: float, bits: int, signed: int) -> Tensor:
        """Fewer bits of a value that has just been quantised."""
        numbers = (np.float32(scale), zero, bits, bits - self.choose.between(1, 2))
        name = self.net.op(
            "Trunc",
            x.name,
            *(self.net.const(n) for n in numbers),
            domain=self.net.domain,
            rounding_mode=self.choose.pick("FLOOR", "ROUND", "CEIL"),
            signed=signed,
            narrow=0,
        )
        return Tensor(name, x.shape, min(x.size, scale * 2**bits), grid=True)

    def integer_pair(self, x: Tensor) -> Tensor:
        """QuantizeLinear and DequantizeLinear, of eight bits."""
        signed = self.choose.chance(0.5)
        scale = np.float32(self.step(x.size * 3 / 256))
        low, high = (-3, 3) if signed else (0, 200)
        zero = self.choose.pick(0, self.choose.between(low, high))
        kind = np.int8 if signed else np.uint8
        parameters = self.net.const(scale), self.net.const(zero, kind)
        codes = self.net.op("QuantizeLinear", x.name, *parameters)
        name = self.net.op("DequantizeLinear", codes, *parameters)
        return Tensor(name, x.shape, min(x.size, float(scale) * 256), float(scale), grid=True)

    def thresholds(self, x: Tensor) -> Tensor:
        """A MultiThreshold node."""
        rng = self.choose.rng()
        rows = x.channels if self.choose.chance(0.5) else 1
        count = self.choose.between(1, 7)
        table = np.sort(rng.normal(0, x.size, (rows, count)), axis=1)
        table = np.float32(np.round(table * 64) / 64 if self.choose.chance(0.5) else table)
        scale = self.step(0.5)
        bias = self.choose.pick(0.0, -scale * (count // 2), -1.0)
        attributes = {"out_scale": scale, "out_bias": bias}
        if layout := {2: "NCW", 3: "NCHW"}.get(len(x.shape)):
            attributes["data_layout"] = layout
        name = self.net.thresholds(x.name, table, **attributes)
        return Tensor(name, x.shape, scale * count, scale, grid=True)

    def weight(self, values: Any, axis: int) -> str:
        """Quantised constants; scales per channel lie along `axis`."""
        choose = self.choose
        values = np.float32(values)
        raw = self.net.const(values)
        shape = [1] * values.ndim
        shape[axis] = values.shape[axis]
        each = self.has("channel_scales", 0.4)
        count = values.shape[axis]
        if self.has("bipolar", 0.08):
            scale = self.steps(0.5, count).reshape(shape) if each else np.float32(self.step(0.5))
            return self.net.bipolar(raw, scale)
        if self.has("minifloats", 0.05):
            return self._minifloat(raw, np.float32(self.step(0.25)))
        bits = choose.pick(4, 3, 2, 5, 8, 1)
        if self.has("wide", 0.04):
            bits = choose.between(9, 12)
        signed = 1 if choose.chance(0.9) else 0
        target = 2.0 / 2**bits
        scale = self.steps(target, count).reshape(shape) if each else np.float32(self.step(target))
        zero: Any = 0.0
        if self.has("weight_zero_points", 0.15) and bits > 1:
            zero = float(choose.between(-2, 2))
            if choose.chance(0.3):
                zero = np.float32(choose.rng().integers(-2, 3, shape))
        mode = choose.pick(*MODES) if self.has("rounding", 0.3) else "ROUND"
        narrow = int(bits > 1 and choose.chance(0.5))
        return self.net.quant(raw, scale, bits, signed, narrow, mode, zero)

    def _minifloat(self, raw: str, scale: Any) -> str:
        """Constants as floats of four to six bits: e2m1, e3m0, e2m3."""
        form = self.choose.pick((2, 1, 1, 6.0), (3, 0, 3, 16.0), (2, 3, 1, 7.5))
        flags = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}
        numbers = [self.net.const(v) for v in (scale, *form)]
        more = {"domain": self.net.domain, "rounding_mode": "ROUND", **flags}
        return self.net.op("FloatQuant", raw, *numbers, **more)

    # the end

    def proto(self, outputs: Sequence[Tensor]) -> onnx.ModelProto:
        """The graph as a file, with these outputs."""
        proto = self.net.proto(*dict.fromkeys(t.name for t in outputs))
        whole = {o for n in proto.graph.node if n.op_type == "ArgMax" for o in n.output}
        for value in proto.graph.output:
            if value.name in whole:
                value.type.tensor_type.elem_type = TensorProto.INT64
        return proto
