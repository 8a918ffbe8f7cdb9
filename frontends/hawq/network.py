"""A HAWQ network as plain data: activations, layers, and the steps that join them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hqc.frontends.hawq.fixed_point import Single, code_limits, quantise
from hqc.numerics.types import Codes


@dataclass(frozen=True)
class Activation:
    """A `QuantAct`: codes of `bits` bits on one float32 scale, no zero point."""

    name: str
    bits: int
    signed: bool
    scale: Single

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest code."""
        return code_limits(self.bits, signed=self.signed)


@dataclass(frozen=True)
class Layer:
    """A `QuantLinear`, `QuantConv2d` or `QuantBnConv2d`, batch norm folded in.

    Attributes:
        name: as in the state dict.
        weight: float32 (out, in) or (out, in / groups, rows, columns).
        bias: float32 (out,), or None.
        scale: of the weights, (1,) or (out,).
        bits, bias_bits: widths of the codes.
    """

    name: str
    weight: Single
    bias: Single | None
    scale: Single
    bits: int
    bias_bits: int

    @property
    def weight_codes(self) -> Codes:
        """The weights as integers, of the shape of `weight`."""
        scale = self.scale.reshape(-1, *(1,) * (self.weight.ndim - 1))
        return quantise(self.weight, scale, code_limits(self.bits, signed=True))

    def bias_codes(self, pre: Single) -> Codes:
        """The bias as integers (out,) on the grid of the accumulator, `pre` the input's scale."""
        if self.bias is None:
            return np.zeros(len(self.weight), np.int64)
        return quantise(self.bias, self.sum_scale(pre), code_limits(self.bias_bits, signed=True))

    def sum_scale(self, pre: Single) -> Single:
        """Scale of the accumulator, (1,) or (out,)."""
        return np.asarray(self.scale * pre.reshape(1), np.float32)


@dataclass(frozen=True)
class Scales:
    """Which scales an activation is told about its input: of a `QuantAct`, and of a layer.

    An empty `weight` stands for 1, as HAWQ has it where a call leaves it out.
    """

    pre: str
    weight: str = ""


@dataclass(frozen=True)
class Step:
    """One operation on earlier steps.

    Attributes:
        op: input, act, linear, conv, relu, add, max_pool, average_pool, flatten, softmax or
            log_softmax.
        sources: indices of the steps it reads.
        name: of the activation, layer or pooling, else "".
        scales: what an act or a layer is told about its input.
        identity: what an act is told about the second part of a residual sum.
        window: kernel, stride, padding, dilation of a convolution or pooling, rows then columns;
            none for an average over the whole image.
        groups: of a convolution.
    """

    op: str
    sources: tuple[int, ...] = ()
    name: str = ""
    scales: Scales | None = None
    identity: Scales | None = None
    window: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    groups: int = 1


@dataclass(frozen=True)
class Network:
    """Steps in order, the last of which is the output, and what they refer to by name.

    Attributes:
        steps: the operations.
        activations, layers: by name.
        input_shape: of one sample, where it was said: a state dict with convolutions is silent.
    """

    steps: tuple[Step, ...]
    activations: Mapping[str, Activation]
    layers: Mapping[str, Layer]
    input_shape: tuple[int, ...] | None = None

    def scale_of(self, scales: Scales) -> tuple[Single, Single]:
        """Scale of the input and scale of the weights, (1,) or (out,)."""
        weight = self.layers[scales.weight].scale if scales.weight else np.ones(1, np.float32)
        return self.activations[scales.pre].scale.reshape(1), weight
