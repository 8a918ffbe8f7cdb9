"""The parts of random quantised networks: quantisers, linear layers and what stands between them.

Values are followed on a few samples, in float, so that scales and thresholds fit what reaches them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]

ROUNDINGS = ("ROUND", "HALF_UP", "HALF_DOWN", "FLOOR", "DOWN", "CEIL", "UP")
DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")

#: What a graph may have beside linear layers with weights and activations on single scales.
LEGAL = (
    *("free_scale", "channel_weights", "weight_zero_point", "bipolar_weights", "zero_point"),
    *("narrow", "rounding", "bipolar", "thresholds", "batch_norm", "zero_gamma", "constants"),
    *("negative", "relu", "relu_before", "no_ops", "flatten", "head", "no_input_quantiser"),
    *("gemm", "bias", "quantised_bias", "transposed", "fan_out", "shared_weight", "residual"),
    *("float_output", "host_scale", "softmax", "two_outputs", "channel_activation", "wide"),
    *("repeated_quantiser", "domain", "two_inputs", "one_bit_zero_point", "foreign_bias"),
)
#: What must be refused, mostly; each is rare in `random_graph`.
ILLEGAL = (
    *("residual_scales", "float_weights", "float_activation", "fractional_bits", "bad_scale"),
    *("not_a_number", "channel_scale_before_linear", "operator", "float_residual"),
)
FEATURES = frozenset((*LEGAL, *ILLEGAL))
SAMPLES = 64


@dataclass
class Tensor:
    """A value of the graph under construction, with what it roughly is on a few samples."""

    name: str
    values: Floats


class Writer:
    """Adds nodes and constants; every random decision is drawn even if its feature is off."""

    def __init__(self, seed: int, features: Collection[str]):
        self.rng = np.random.default_rng(seed)
        self.features = frozenset(features)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.infos: list[Any] = []
        self.folds: set[str] = set()
        self.domain = DOMAINS[self.rng.integers(3)] if "domain" in self.features else DOMAINS[0]
        self._count = 0

    def has(self, feature: str, probability: float) -> bool:
        drawn = bool(self.rng.random() < probability)
        return drawn and feature in self.features

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}{self._count}"

    def const(self, stem: str, array: Any, dtype: Any = np.float32) -> str:
        name = self.name(f"{stem}_")
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(
        self, op: str, inputs: list[str], values: Any, domain: str = "", **attributes: Any
    ) -> Tensor:
        out = self.name(op.lower())
        self.nodes.append(
            helper.make_node(op, inputs, [out], name=f"/{out}", domain=domain, **attributes)
        )
        values = np.asarray(values, np.float32)
        constant = {c.name for c in self.constants} | self.folds
        if all(i in constant for i in inputs):
            self.folds.add(out)
            self.infos.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, values.shape))
        else:
            dims = ["N", *values.shape[1:]]
            self.infos.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, dims))
        return Tensor(out, values)

    def scale(self, target: Any) -> Floats:
        """Scales of about this size, powers of two or not."""
        target = np.asarray(target, np.float64)
        size = np.exp2(np.round(np.log2(np.maximum(target, 1e-6))))
        if not self.has("free_scale", 0.6):
            return np.asarray(size, np.float32)
        return np.asarray(size * self.rng.uniform(0.6, 1.6, target.shape), np.float32)

    # quantisers

    def quant(
        self,
        x: str,
        values: Floats,
        scale: Floats,
        zero_point: Any,
        bits: float,
        *,
        signed: bool,
        narrow: bool = False,
        rounding: str = "ROUND",
    ) -> Tensor:
        hi = 2 ** int(bits - signed) - 1 - (narrow and not signed)
        lo = -(2 ** int(bits - 1)) + narrow if signed else 0
        if signed and bits == 1:
            codes = np.where(values / scale + zero_point >= 0, 1.0, -1.0)
        else:
            with np.errstate(divide="ignore", invalid="ignore"):
                codes = np.round(np.clip(values / scale + zero_point, lo, hi))
        inputs = [x, self.const("scale", scale), self.const("zero", zero_point)]
        inputs.append(self.const("bits", bits))
        return self.op(
            "Quant",
            inputs,
            (codes - zero_point) * scale,
            self.domain,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode=rounding,
        )

    def activation(self, x: Tensor) -> Tensor:
        """A quantiser whose range fits the samples, more or less."""
        spread = float(np.std(x.values)) + 1e-3
        if self.has("bipolar", 0.08):
            scale = self.scale(spread)
            values = np.where(x.values >= 0, scale, -scale)
            inputs = [x.name, self.const("scale", scale)]
            return self.op("BipolarQuant", inputs, values, self.domain)
        if self.has("thresholds", 0.1):
            return self.thresholds(x)
        bits = int(self.rng.integers(1, 9))
        if self.has("wide", 0.05):
            bits = int(self.rng.integers(9, 13))
        signed = bool(self.rng.random() < (0.6 if x.values.min() < 0 else 0.15))
        narrow = self.has("narrow", 0.2) and bits > 1
        top = 2 ** max(0, bits - signed)
        shape = ()
        if self.has("channel_activation", 0.04):
            shape = (1, x.values.shape[1], *(1,) * (x.values.ndim - 2))
        reach = self.rng.choice([0.7, 1.5, 3.0]) * spread
        scale = self.scale(np.full(shape, reach / top))
        if self.has("bad_scale", 0.003):
            scale = scale * np.float32(self.pick(0.0, -1.0, np.nan))
        zero = 0
        if self.has("zero_point", 0.2) and (
            bits > 1 or not signed or self.has("one_bit_zero_point", 0.5)
        ):
            zero = int(self.rng.integers(-top, top + 1))
        rounding = str(self.pick(*ROUNDINGS)) if self.has("rounding", 0.5) else "ROUND"
        stated = bits + (0.5 if self.has("fractional_bits", 0.003) else 0.0)
        flags = {"signed": signed, "narrow": narrow, "rounding": rounding}
        out = self.quant(x.name, x.values, scale, float(zero), stated, **flags)  # type: ignore[arg-type]
        if self.has("repeated_quantiser", 0.05):
            out = self.quant(out.name, out.values, scale, float(zero), stated, **flags)  # type: ignore[arg-type]
        return out

    def thresholds(self, x: Tensor) -> Tensor:
        channels = x.values.shape[1] if self.rng.random() < 0.5 and x.values.ndim == 2 else 1
        count = int(self.rng.integers(1, 16))
        low, high = np.quantile(np.nan_to_num(x.values), [0.05, 0.95])
        rows = np.sort(self.rng.uniform(low, high + 1e-3, (channels, count)), axis=1)
        rows = np.float32(np.round(rows * 64) / 64 if self.rng.random() < 0.5 else rows)
        scale = float(self.scale(1.0))
        bias = float(self.pick(0.0, -scale * (count // 2), -1.0, 0.25))
        counts = (x.values[..., None] >= (rows if x.values.ndim == 2 else rows[0])).sum(-1)
        inputs = [x.name, self.const("thresholds", rows)]
        return self.op(
            "MultiThreshold",
            inputs,
            scale * counts + bias,
            self.domain,
            out_dtype="INT8",
            out_scale=scale,
            out_bias=bias,
        )

    # layers

    def weight(self, rows: int, columns: int, *, transpose: bool) -> Tensor:
        """Quantised weights (rows, columns), or transposed as Gemm's transB takes them."""
        shape = (columns, rows) if transpose else (rows, columns)
        raw = np.float32(self.rng.normal(0, 1, shape))
        if self.has("not_a_number", 0.003):
            raw[0, 0] = np.nan
        name = self.const("weight", raw)
        if self.has("float_weights", 0.004):
            return Tensor(name, raw)
        per_channel = self.has("channel_weights", 0.4)
        channels = ((columns, 1) if transpose else (1, columns)) if per_channel else ()
        if self.has("bipolar_weights", 0.1):
            scale = self.scale(np.ones(channels))
            inputs = [name, self.const("scale", scale)]
            values = np.where(raw >= 0, scale, -scale)
            return self.op("BipolarQuant", inputs, values, self.domain)
        bits = int(self.rng.integers(1, 9))
        signed = bits > 1 or self.has("bipolar_weights", 0.5)
        zero: Any = 0.0
        if self.has("weight_zero_point", 0.15):
            zero = np.float32(self.rng.integers(-3, 4, channels))
            if bits == 1 and signed and not self.has("one_bit_zero_point", 0.5):
                zero = 0.0
        scale = self.scale(np.full(channels, 2.0 / 2**bits))
        rounding = str(self.pick(*ROUNDINGS)) if self.has("rounding", 0.3) else "ROUND"
        narrow = bits > 1 and bool(self.rng.random() < 0.5)
        return self.quant(
            name, raw, scale, zero, bits, signed=signed, narrow=narrow, rounding=rounding
        )

    def linear(self, x: Tensor, columns: int, shared: Tensor | None = None) -> Tensor:
        rows = x.values.shape[1]
        if shared is not None:
            return self.op("MatMul", [x.name, shared.name], x.values @ shared.values)
        bias = np.float32(self.rng.normal(0, 1, columns))
        if self.has("gemm", 0.35):
            transpose = bool(self.rng.random() < 0.5)
            w = self.weight(rows, columns, transpose=transpose)
            matrix = w.values.T if transpose else w.values
            inputs = [x.name, w.name]
            if with_bias := self.has("bias", 0.7):
                inputs.append(self.bias(bias))
            values = x.values @ matrix + (bias if with_bias else 0)
            return self.op("Gemm", inputs, values, transB=int(transpose))
        if self.has("transposed", 0.3):
            w = self.weight(rows, columns, transpose=True)
            w = self.op("Transpose", [w.name], w.values.T, perm=[1, 0])
        else:
            w = self.weight(rows, columns, transpose=False)
        out = self.op("MatMul", [x.name, w.name], x.values @ w.values)
        if self.has("bias", 0.6):
            sides = [out.name, self.bias(bias)]
            sides = sides[:: self.pick(1, -1)]
            out = self.op("Add", sides, out.values + bias)
        return out

    def bias(self, bias: Floats) -> str:
        name = self.const("bias", bias)
        if not self.has("quantised_bias", 0.4):
            return name
        bits, scale = float(self.rng.integers(4, 17)), self.scale(0.01)
        return self.quant(name, bias, scale, 0.0, bits, signed=True).name

    def batch_norm(self, x: Tensor) -> Tensor:
        n = x.values.shape[1]
        gamma = np.float32(self.rng.uniform(0.3, 2.0, n))
        if self.has("negative", 0.5):
            gamma *= self.rng.choice([-1, 1], n).astype(np.float32)
        if self.has("zero_gamma", 0.2):
            gamma[self.rng.integers(n)] = 0.0
        mean, variance = x.values.mean(axis=0), x.values.var(axis=0) + np.float32(0.01)
        beta = np.float32(self.rng.normal(0, 1, n))
        names = [self.const("bn", a) for a in (gamma, beta, mean, variance)]
        values = gamma * (x.values - mean) / np.sqrt(variance + 1e-5) + beta
        return self.op("BatchNormalization", [x.name, *names], values, epsilon=1e-5)

    def constant(self, x: Tensor) -> Tensor:
        op = str(self.pick("Mul", "Add", "Sub", "Div"))
        shape: Any = self.pick((), (x.values.shape[1],), (1, x.values.shape[1]))
        if x.values.ndim > 2:
            shape = ()
        c = np.float32(self.rng.uniform(0.4, 2.0, shape))
        if self.has("negative", 0.3):
            c = np.float32(-c)
        if self.rng.random() < 0.3:
            c = np.float32(np.exp2(np.round(np.log2(np.abs(c)))))
        name = self.const("constant", c)
        reverse = op in ("Mul", "Add", "Sub") and self.rng.random() < 0.3
        sides, operands = [x.name, name], (x.values, c)
        if reverse:
            sides, operands = sides[::-1], operands[::-1]
        apply = {"Mul": np.multiply, "Add": np.add, "Sub": np.subtract, "Div": np.divide}[op]
        return self.op(op, sides, apply(*operands))

    def between(self, x: Tensor) -> Tensor:
        """What may stand between a linear layer and the quantiser behind it."""
        steps = []
        if self.has("batch_norm", 0.35) and x.values.ndim == 2:
            steps.append(self.batch_norm)
        if self.has("constants", 0.25):
            steps.append(self.constant)
        if self.has("relu", 0.5):
            steps.append(self.relu)
        if self.has("no_ops", 0.2):
            steps.append(self.no_op)
        for i in self.rng.permutation(len(steps)):
            x = steps[int(i)](x)
        return x

    def relu(self, x: Tensor) -> Tensor:
        return self.op("Relu", [x.name], np.maximum(x.values, 0))

    def no_op(self, x: Tensor) -> Tensor:
        return self.op(str(self.pick("Identity", "Dropout")), [x.name], x.values)
