"""Typed views of the QONNX operators: frozen dataclasses read from nodes, never raw attributes.

Semantics follow the executor of qonnx 1.0 (`qonnx.custom_op.general`): `Quant` divides by the
scale, adds the zero point, clamps, rounds, and goes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from onnx_ir import Graph, Node, Value

from hqc.diagnostics import reject
from hqc.ir.store import QONNX, Array, add_constant, constant, location_of, make_node
from hqc.numerics.types import FixedType, Overflow, Rounding

#: Spellings met in files, beside the ones of `Rounding`.
_ROUNDING_ALIASES = {"HALF_EVEN": Rounding.ROUND, "ROUND_TO_ZERO": Rounding.DOWN}
MAX_BITS = 32


@dataclass(frozen=True)
class Quant:
    """`Quant(x, scale, zero_point, bits)`: float to a grid of `bits`-bit codes.

    Attributes:
        scale: float array, scalar or broadcastable against x; every element positive and finite.
        zero_point: integer-valued array, same shapes allowed.
        bits: integer bit width, 1 to 32 (1 signed means bipolar, as in qonnx).
        signed, narrow: range of codes; narrow drops one end (signed: the lowest, else the highest).
        rounding: how codes round.
    """

    scale: Array
    zero_point: Array
    bits: int
    signed: bool
    narrow: bool
    rounding: Rounding

    @property
    def code_limits(self) -> tuple[int, int]:
        """Lowest and highest code."""
        if self.signed:
            hi = (1 << (self.bits - 1)) - 1
            return (-hi if self.narrow else -hi - 1), hi
        return 0, (1 << self.bits) - (2 if self.narrow else 1)

    @property
    def is_bipolar(self) -> bool:
        """One signed bit: the values are -scale and +scale (as qonnx's executor has it)."""
        return self.bits == 1 and self.signed

    @property
    def fixed_type(self) -> FixedType | None:
        """The hardware type that does the same on assignment, where there is one.

        There is one for a single power-of-two scale, zero point 0, a rounding mode known to
        `ap_fixed`, and a code range that saturation can express.
        """
        step = power_of_two(self.scale)
        if step is None or np.any(self.zero_point) or self.rounding.hardware is None:
            return None
        if self.is_bipolar or (self.narrow and not self.signed):
            return None
        overflow = Overflow.SAT_SYM if self.narrow else Overflow.SAT
        return FixedType(self.signed, self.bits, self.bits + step, self.rounding, overflow)

    @staticmethod
    def matches(node: Node) -> bool:
        """Whether the node is a Quant."""
        return node.domain == QONNX and node.op_type == "Quant"

    @classmethod
    def read(cls, node: Node) -> Quant:
        """View a Quant node.

        Raises:
            HqcError: HQC106/107/108/102 for a bad scale, bit width, non-constant parameter, mode.
        """
        scale, zero_point, bits = (parameter_of(node, i) for i in (1, 2, 3))
        check_scale(node, scale)
        if np.any(zero_point != np.round(zero_point)):
            raise reject("HQC102", "the zero point is not an integer", where=location_of(node))
        found = cls(
            scale=scale,
            zero_point=zero_point.astype(np.int64),
            bits=bit_width_of(node, bits),
            signed=bool(_int(node, "signed", 1)),
            narrow=bool(_int(node, "narrow", 0)),
            rounding=rounding_of(node, "ROUND"),
        )
        if found.bits == 1 and found.narrow and not found.signed:
            raise reject("HQC107", "one narrow unsigned bit has one code", where=location_of(node))
        return found

    def build(self, graph: Graph, x: Value, name: str) -> Node:
        """A Quant node on `x` whose output is called `name`, with its parameters as constants."""
        parameters = (
            add_constant(graph, f"{name}_scale", self.scale.astype(np.float32)),
            add_constant(graph, f"{name}_zero_point", self.zero_point.astype(np.float32)),
            add_constant(graph, f"{name}_bits", np.array(self.bits, np.float32)),
        )
        attributes = {
            "signed": int(self.signed),
            "narrow": int(self.narrow),
            "rounding_mode": self.rounding.value,
        }
        return make_node(
            "Quant", (x, *parameters), like=x, name=name, attributes=attributes, domain=QONNX
        )

    @classmethod
    def of_type(cls, type_: FixedType) -> Quant:
        """The Quant that does what assignment to a saturating type does."""
        if type_.overflow is Overflow.WRAP:
            raise ValueError(f"{type_} wraps: no Quant does that")
        return cls(
            scale=np.array(2.0**-type_.fraction, np.float32),
            zero_point=np.zeros((), np.int64),
            bits=type_.width,
            signed=type_.signed,
            narrow=type_.overflow is Overflow.SAT_SYM,
            rounding=type_.rounding,
        )


@dataclass(frozen=True)
class BipolarQuant:
    """`BipolarQuant(x, scale)`: +scale where x >= 0, else -scale."""

    scale: Array

    @staticmethod
    def matches(node: Node) -> bool:
        """Whether the node is a BipolarQuant."""
        return node.domain == QONNX and node.op_type == "BipolarQuant"

    @classmethod
    def read(cls, node: Node) -> BipolarQuant:
        """View a BipolarQuant node; raises HqcError like `Quant.read`."""
        scale = parameter_of(node, 1)
        check_scale(node, scale)
        return cls(scale)

    def build(self, graph: Graph, x: Value, name: str) -> Node:
        """A BipolarQuant node on `x` whose output is called `name`."""
        scale = add_constant(graph, f"{name}_scale", self.scale.astype(np.float32))
        return make_node("BipolarQuant", (x, scale), like=x, name=name, domain=QONNX)


@dataclass(frozen=True)
class MultiThreshold:
    """`MultiThreshold(x, thresholds)`: `out_scale * #{k: x >= thresholds[c, k]} + out_bias`.

    Attributes:
        thresholds: float array (C, K) or (1, K), each row ascending; x is (N, C, ...).
        out_scale, out_bias: what a count becomes.
    """

    thresholds: Array
    out_scale: float = 1.0
    out_bias: float = 0.0

    @staticmethod
    def matches(node: Node) -> bool:
        """Whether the node is a MultiThreshold."""
        return node.domain == QONNX and node.op_type == "MultiThreshold"

    @classmethod
    def read(cls, node: Node) -> MultiThreshold:
        """View a MultiThreshold node; raises HqcError HQC102/HQC108."""
        thresholds = parameter_of(node, 1)
        ascending = thresholds.ndim == 2 and bool(np.all(np.diff(thresholds, axis=1) >= 0))
        if not ascending or thresholds.size == 0:
            raise reject("HQC102", "thresholds must be (C, K), ascending", where=location_of(node))
        _check_layout(node, len(thresholds))
        return cls(thresholds, _float(node, "out_scale", 1.0), _float(node, "out_bias", 0.0))

    def build(self, graph: Graph, x: Value, name: str) -> Node:
        """A MultiThreshold node on `x` whose output is called `name`."""
        hi = self.thresholds.shape[1]
        bits = max(1, hi.bit_length())
        attributes: dict[str, str | float] = {
            "out_dtype": f"UINT{bits}" if self.out_bias >= 0 else f"INT{bits + 1}",
            "out_scale": float(self.out_scale),
            "out_bias": float(self.out_bias),
        }
        if x.shape is not None and len(x.shape) == 3:
            attributes["data_layout"] = "NCW"  # qonnx takes the last of three axes otherwise
        thresholds = add_constant(graph, f"{name}_thresholds", self.thresholds)
        return make_node(
            "MultiThreshold",
            (x, thresholds),
            like=x,
            name=name,
            attributes=attributes,
            domain=QONNX,
        )


def is_quantiser(node: Node) -> bool:
    """Whether the node puts its first input on a grid."""
    return Quant.matches(node) or BipolarQuant.matches(node) or MultiThreshold.matches(node)


def power_of_two(scale: Array) -> int | None:
    """Exponent of a scale that is one power of two throughout, else None."""
    if scale.size == 0 or np.any(scale != scale.flat[0]):
        return None
    mantissa, exponent = np.frexp(np.float64(scale.flat[0]))
    return int(exponent) - 1 if mantissa == 0.5 else None


def is_power_of_two(x: Fraction) -> bool:
    """Whether a rational is 2**k for an integer k."""
    n, d = x.numerator, x.denominator
    return n > 0 and n & (n - 1) == 0 and d & (d - 1) == 0


def is_single(x: Fraction) -> bool:
    """Whether float32 holds a rational exactly."""
    return abs(x) < 2**127 and Fraction(float(np.float32(float(x)))) == x


def exact(array: Array) -> list[Fraction]:
    """The elements of a float array as exact rationals, flattened."""
    return [Fraction(float(x)) for x in np.asarray(array, np.float64).ravel()]


def parameter_of(node: Node, index: int) -> Array:
    """A constant input of a quantiser.

    Raises:
        HqcError: HQC108, it is computed, or missing.
    """
    value = node.inputs[index] if index < len(node.inputs) else None
    array = constant(value)
    if array is None:
        raise reject(
            "HQC108",
            f"input {index} of {node.op_type} ({value.name if value else '-'}) is not a constant",
            where=location_of(node),
            helps=("export the model in eval mode, so that scales are constants",),
        )
    return np.asarray(array)


def check_scale(node: Node, scale: Array) -> None:
    """Refuse scales that are not positive and finite (HQC106)."""
    if scale.size == 0 or not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        bad = scale.ravel()[~(np.isfinite(scale.ravel()) & (scale.ravel() > 0))]
        raise reject(
            "HQC106",
            f"{node.op_type} has scale {bad[0] if bad.size else 'of size 0'}",
            where=location_of(node),
            notes=("a scale is the real value of one code step: positive and finite",),
            helps=("check the calibration or training that produced it",),
        )


def channel_axis(node: Node, rank: int) -> int:
    """The axis whose channels the rows of thresholds are for, as qonnx's executor picks it.

    By the layout that the node states, else by rank: NC, NWC, NCHW, and axis 1 for others.
    """
    attribute = node.attributes.get("data_layout")
    layout = attribute.as_string() if attribute is not None else ""
    layout = layout or ("NWC" if rank == 3 else "NC")
    return layout.index("C") if "C" in layout else 1


def _check_layout(node: Node, rows: int) -> None:
    """Refuse rows of thresholds for another axis than axis 1; import moves the others there."""
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if rows == 1 or shape is None or len(shape) < 2:
        return
    axis = channel_axis(node, len(shape))
    if axis != 1 or (isinstance(shape[1], int) and shape[1] != rows):
        raise reject(
            "HQC102",
            f"{rows} rows of thresholds on axis {axis} of {shape}"
            + (", channels last" if axis == len(shape) - 1 > 1 else ""),
            where=location_of(node),
            helps=("give thresholds (C, K) for channels on axis 1: data_layout NC, NCW, NCHW",),
        )


def bit_width_of(node: Node, bits: Array) -> int:
    """A bit width as a number; HQC107 where it is fractional or impossible."""
    if bits.size != 1 or not np.isfinite(bits).all():
        raise reject("HQC107", f"bit width {bits.tolist()}", where=location_of(node))
    found = float(bits.ravel()[0])
    if found != int(found) or not 1 <= found <= MAX_BITS:
        raise reject(
            "HQC107",
            f"bit width {found:g} is {'fractional' if found != int(found) else 'out of range'}",
            where=location_of(node),
            notes=(f"hardware has whole bits, 1 to {MAX_BITS}",),
            helps=("round the learned bit width before export, and train on a little",),
        )
    return int(found)


def rounding_of(node: Node, default: str) -> Rounding:
    """The rounding mode of a node; HQC102 where it is unknown."""
    attribute = node.attributes.get("rounding_mode")
    name = (attribute.as_string() if attribute is not None else default).upper()
    if name in _ROUNDING_ALIASES:
        return _ROUNDING_ALIASES[name]
    try:
        return Rounding(name)
    except ValueError as error:
        raise reject(
            "HQC102",
            f"unknown rounding mode {name!r}",
            where=location_of(node),
            helps=(f"known: {', '.join(r.value for r in Rounding)}",),
        ) from error


def _int(node: Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return attribute.as_int() if attribute is not None else default


def _float(node: Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return attribute.as_float() if attribute is not None else default
