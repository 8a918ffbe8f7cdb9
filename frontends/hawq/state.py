"""HAWQ state dicts: which layers they hold, and with how many bits.

HAWQ stores neither bit widths nor modes; it stores ranges and the scales it made of them, which
give them away: the width is the one for which HAWQ's own formula yields the stored scale. Scales
and integers are then made anew from ranges and float weights, as HAWQ does in each forward pass,
so stale buffers do no harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hqc.diagnostics import HqcError, Location, reject
from hqc.frontends.hawq.fixed_point import (
    Array,
    Single,
    asymmetric_scale,
    quantise,
    symmetric_scale,
)
from hqc.frontends.hawq.network import Activation, Layer

_ACT = ".act_scaling_factor"
_SCALES = {
    "linear": ".fc_scaling_factor",
    "convbn": ".convbn_scaling_factor",
    "conv": ".conv_scaling_factor",
}
_WIDTHS = range(2, 33)
_PREFIX = "module."
_SAVE_HELP = "run one batch through the model in eval mode, then save its state dict again"


@dataclass(frozen=True)
class Hints:
    """What a state dict alone may leave open.

    Attributes:
        weight_bits, bias_bits, activation_bits: by name of the layer or activation.
        signed: whether codes are signed, by name of the activation.
        epsilon: of the folded batch norm, by name of the layer (default 1e-5).
    """

    weight_bits: Mapping[str, int] = field(default_factory=dict)
    bias_bits: Mapping[str, int] = field(default_factory=dict)
    activation_bits: Mapping[str, int] = field(default_factory=dict)
    signed: Mapping[str, bool] = field(default_factory=dict)
    epsilon: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """Names of the quantised parts in the order of the state dict."""

    activations: tuple[str, ...]
    layers: tuple[str, ...]
    kinds: Mapping[str, str]


def arrays(state_dict: Mapping[str, Any]) -> dict[str, Array]:
    """The tensors of a state dict as numpy, without the prefix of `DataParallel`.

    Raises:
        HqcError: HQC601, an entry is no tensor; HQC105, one holds NaN or infinity.
    """
    found = {}
    for key, value in state_dict.items():
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
        if not isinstance(array, np.ndarray):
            raise reject("HQC601", f"{key} of the state dict is a {type(value).__name__}")
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise reject("HQC105", f"{key} holds NaN or infinity", where=Location(node=key))
        found[str(key).removeprefix(_PREFIX)] = array
    return found


def is_hawq(keys: Sequence[str]) -> bool:
    """Whether the keys of a state dict are those of HAWQ's modules."""
    return any(str(key).endswith(_ACT) for key in keys)


def names(state: Mapping[str, Array]) -> Names:
    """The quantised parts of a state dict.

    Raises:
        HqcError: HQC601, there are none.
    """
    kinds = {
        key.removesuffix(suffix): kind
        for key in state
        for kind, suffix in _SCALES.items()
        if key.endswith(suffix)
    }
    acts = tuple(key.removesuffix(_ACT) for key in state if key.endswith(_ACT))
    if not acts or not kinds:
        raise reject(
            "HQC601",
            "the state dict holds no HAWQ layers",
            notes=("looked for QuantAct and QuantLinear, QuantConv2d or QuantBnConv2d",),
        )
    return Names(acts, tuple(kinds), kinds)


def activation(state: Mapping[str, Array], name: str, hints: Hints) -> Activation:
    """Read a `QuantAct`.

    Raises:
        HqcError: HQC601, the scale is that of no bit width.
    """
    low, high = tensor(state, f"{name}.x_min"), tensor(state, f"{name}.x_max")
    scale = tensor(state, f"{name}{_ACT}").reshape(-1)[:1].astype(np.float32)
    if float(low.min()) == float(high.max()):
        raise reject(
            "HQC601", f"{name} has seen no data", where=Location(node=name), helps=(_SAVE_HELP,)
        )
    bits = hints.activation_bits.get(name)
    signed = hints.signed.get(name)
    for kind, formula in ((True, symmetric_scale), (False, asymmetric_scale)):
        if signed is not None and kind is not signed:
            continue
        for width in _WIDTHS if bits is None else (bits,):
            made = formula(width, low, high).reshape(-1)
            if made == scale or (bits is not None and signed is not None):
                return Activation(name, width, kind, made)
    raise _unknown_width(name, "act_scaling_factor", bits)


def _unknown_width(name: str, buffer: str, bits: int | None) -> HqcError:
    asked = "no bit width" if bits is None else f"{bits} bits"
    return reject(
        "HQC601",
        f"{name}.{buffer} is not the scale of {asked}",
        where=Location(node=name),
        notes=("the buffers are older than the ranges or weights, or the widths given are wrong",),
        helps=(_SAVE_HELP, "or say the bits and modes: config, or --hawq-model with HAWQ's layers"),
    )


def layer(state: Mapping[str, Array], name: str, kind: str, pre: Single, hints: Hints) -> Layer:
    """Read a layer whose input has scale `pre`.

    Raises:
        HqcError: HQC601, the scale is that of no bit width.
    """
    weight, bias = _folded(state, name, hints) if kind == "convbn" else _plain(state, name)
    stored = tensor(state, f"{name}{_SCALES[kind]}").reshape(-1).astype(np.float32)
    per_channel = stored.size > 1
    rows = weight.reshape(len(weight), -1) if per_channel else weight.reshape(1, -1)
    low, high = rows.min(axis=1), rows.max(axis=1)
    bits = hints.weight_bits.get(name) or _weight_bits(name, kind, low, high, stored)
    scale = symmetric_scale(bits, low, high)
    found = Layer(name, weight, bias, scale, bits, 32)
    width = hints.bias_bits.get(name)
    if width is None and bias is not None:
        width = _bias_bits(state, name, found, pre)
    return Layer(name, weight, bias, scale, bits, width or 32)


def _plain(state: Mapping[str, Array], name: str) -> tuple[Single, Single | None]:
    bias = state.get(f"{name}.bias")
    weight = tensor(state, f"{name}.weight").astype(np.float32)
    return weight, None if bias is None else bias.astype(np.float32)


def _folded(state: Mapping[str, Array], name: str, hints: Hints) -> tuple[Single, Single]:
    """Weights and bias with the batch norm's running statistics folded in, in float32."""
    gamma, beta, mean, variance = (
        tensor(state, f"{name}.bn.{part}").astype(np.float32)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    weight = tensor(state, f"{name}.conv.weight").astype(np.float32)
    bias = state.get(f"{name}.conv.bias", np.zeros_like(mean)).astype(np.float32)
    epsilon = np.float32(hints.epsilon.get(name, 1e-5))
    factor = gamma / np.sqrt(variance + epsilon)
    folded = weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))
    return folded, (bias - mean) * factor + beta


def _weight_bits(name: str, kind: str, low: Single, high: Single, stored: Single) -> int:
    """The width whose scale is stored; the nearest, where weights moved since it was."""
    span = float(np.maximum(np.abs(low), np.abs(high)).max())
    if not float(stored.max()) > 0 or not span > 0:
        raise _unknown_width(name, _SCALES[kind][1:], None)
    exact = math.log2(span / float(stored.max()) + 1) + 1
    bits = round(exact)
    if abs(exact - bits) > 0.25 or bits not in _WIDTHS:
        raise _unknown_width(name, _SCALES[kind][1:], None)
    return bits


def _bias_bits(state: Mapping[str, Array], name: str, found: Layer, pre: Single) -> int:
    """The width that explains the stored integers: 32 if none was cut off at the ends."""
    stored = state.get(f"{name}.bias_integer")
    if stored is None or stored.size == 0:
        return 32
    codes = np.rint(np.asarray(stored, np.float64)).astype(np.int64)
    assert found.bias is not None
    free = quantise(found.bias, found.sum_scale(pre), (-(1 << 31), (1 << 31) - 1))
    if np.array_equal(free, codes):
        return 32
    bits = 1 + max(int(c if c >= 0 else -c - 1).bit_length() for c in codes)
    cut = np.clip(free, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    if not np.array_equal(cut, codes):
        raise reject(
            "HQC601",
            f"{name}.bias_integer is not what {name}.bias gives at any bit width",
            where=Location(node=name),
            helps=(_SAVE_HELP, "or say the bias bits: config, or --hawq-model"),
        )
    return bits


def tensor(state: Mapping[str, Array], key: str) -> Array:
    """An entry of a state dict; HQC601 where it is missing."""
    if key not in state:
        raise reject("HQC601", f"the state dict has no {key}", where=Location(node=key))
    return state[key]
