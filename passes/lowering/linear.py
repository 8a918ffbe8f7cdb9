"""Lowering of sums over weights, poolings and rearrangements to the integer datapath."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from onnx_ir import Node, Value

from hqc.analysis.linear import weights_of
from hqc.analysis.rearrangements import sample_shape
from hqc.diagnostics import reject
from hqc.ir import Array, location_of
from hqc.ir.operators import is_power_of_two
from hqc.ir.windows import Taps, Window, divisors, spatial_shape, transposed_pads
from hqc.numerics.exact_tensor import common_unit
from hqc.numerics.monotone_chain import Affine, Chain
from hqc.passes.lowering.integer_builder import Form, IntegerBuilder
from hqc.passes.lowering.rectifiers import from_zero, straighten
from hqc.passes.lowering.sums import SIMPLE


def lower_weighted(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """A MatMul, Conv or ConvTranspose: integer weights, and scales that move on.

    Raises:
        HqcError: HQC102/103/204/205, it has no such form.
    """
    return _weighted(emitter, node, straighten(emitter, node, form))


def lower_by_scale(emitter: IntegerBuilder, node: Node, form: Form) -> tuple[Form, Form] | None:
    """A layer over channels of two scales as two layers, each over the channels of one.

    Behind a Concat of two tensors, for instance. None where one integer layer does, since the
    scales have a simple ratio, or where nothing helps.
    """
    if form.chain.channels == 1 or node.attributes.get_int("group", 1) != 1:
        return None
    form = straighten(emitter, node, form)
    affine = form.affine
    scales = sorted(set(affine.a))
    if len(scales) != 2 or 0 in scales:
        return None
    unit = common_unit([abs(a) for a in scales])
    if max(abs(a) for a in scales) / unit <= SIMPLE:
        return None
    dims = sample_shape(form.value)
    parts = []
    for scale in scales:
        channels = [c for c, a in enumerate(affine.a) if a == scale]
        index = emitter.integers("channels", channels)
        shape, axis = (len(channels), *dims[1:]), {"axis": 1}
        value = emitter.moved("Gather", (form.value, index), form.value, "_part", shape, axis)
        part = Form(value, form.chain.picked(channels))
        parts.append(_weighted(emitter, node, part, channels))
    return parts[0], parts[1]


def _weighted(
    emitter: IntegerBuilder, node: Node, form: Form, channels: list[int] | None = None
) -> Form:
    """The layer on a straight form; `channels` are the inputs that it holds, where not all."""
    affine = form.affine
    rank = len(form.value.shape or ())
    if node.op_type == "MatMul" and rank != 2:
        raise reject(
            "HQC102",
            f"{node.name} multiplies {form.value.shape}",
            where=location_of(node),
            notes=("linear layers take (batch, features) and weights (features, outputs)",),
        )
    if node.op_type != "MatMul" and Taps.of(node).pads and any(affine.b):
        form = _at_zero(emitter, node, form)
        affine = form.affine
    one_factor = affine.has_one_factor
    weights = weights_of(node, affine.a[:1] if one_factor else affine.a)
    if channels is not None:
        weights = replace(weights, codes=weights.codes[:, channels])
    if any(a == 0 for a in affine.a):
        raise reject("HQC205", f"{node.name} reads a channel scaled by 0", where=location_of(node))
    n = max(1 if one_factor else len(affine.a), len(affine.b))
    ratios = tuple(affine.at(c)[1] / affine.at(c)[0] for c in range(n))
    offsets = weights.offsets(Affine((Fraction(1),), ratios))
    total = weights.scales
    values = weights.codes.astype(np.float64)
    rest = Affine(total, offsets)
    if all(is_power_of_two(t) for t in total):
        values = values * np.array([float(t) for t in total]).reshape(-1, 1, 1)
        rest = Affine((Fraction(1),), offsets)
    if node.op_type == "MatMul":
        out = emitter.linear(node, form.value, values[:, :, 0].T)
    elif node.op_type == "Conv":
        window = Window.of(node)
        shaped = values.reshape(*values.shape[:2], *window.kernel)
        out = emitter.convolve(node, form.value, shaped, window, Taps.of(node).shape)
    else:
        out = _transposed(emitter, node, form.value, values, weights.group)
    return Form(out, Chain().then(rest))


def _at_zero(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """`from_zero`, or a refusal: padding writes code 0."""
    moved = from_zero(emitter, node, form)
    if moved is None:
        raise reject(
            "HQC205",
            f"{node.name} pads with 0, which is no value of its input's grid",
            where=location_of(node),
            helps=("use a zero point that is a whole number of steps",),
        )
    return moved


def _transposed(emitter: IntegerBuilder, node: Node, x: Value, values: Array, group: int) -> Value:
    """Zeros between the inputs, then a convolution with the kernel turned round."""
    window, spatial = Window.of(node), spatial_shape(node)
    before, _ = transposed_pads(node, window)
    out = Taps.of(node).shape
    stretched = _stretch(emitter, x, window.strides, spatial)
    reach = [d * (k - 1) for d, k in zip(window.dilations, window.kernel, strict=True)]
    low = [r - b for r, b in zip(reach, before, strict=True)]
    sizes = [n * s for n, s in zip(spatial, window.strides, strict=True)]
    high = [o - n - b + r for o, n, b, r in zip(out, sizes, low, reach, strict=True)]
    if min(*low, *high) < 0:
        stretched = _crop(emitter, stretched, low, high)
        low, high = [max(n, 0) for n in low], [max(n, 0) for n in high]
    shaped = values.reshape(*values.shape[:2], *window.kernel)
    turned = np.flip(shaped, axis=tuple(range(2, shaped.ndim)))
    ones = (1,) * len(spatial)
    plain = Window(window.kernel, ones, window.dilations, tuple(low), tuple(high), group)
    return emitter.convolve(node, stretched, turned, plain, out)


def _stretch(
    emitter: IntegerBuilder, x: Value, strides: tuple[int, ...], spatial: tuple[int, ...]
) -> Value:
    """Stride - 1 zeros behind every element."""
    if max(strides) == 1:
        return x
    channels = sample_shape(x)[0]
    apart = [n for size in spatial for n in (size, 1)]
    split = emitter.reshape(x, (channels, *apart), "_apart")
    ends = [0, 0, *(n for s in strides for n in (0, s - 1))]
    pads = emitter.integers("pads", [*(0 for _ in ends), *ends])
    filled = [n for size, s in zip(spatial, strides, strict=True) for n in (size, s)]
    padded = emitter.moved("Pad", (split, pads), split, "_zeros", (channels, *filled))
    whole = [n * s for n, s in zip(spatial, strides, strict=True)]
    return emitter.reshape(padded, (channels, *whole), "_stretched")


def _crop(emitter: IntegerBuilder, x: Value, low: list[int], high: list[int]) -> Value:
    dims = sample_shape(x)
    starts = [max(-n, 0) for n in low]
    ends = [size - max(-n, 0) for size, n in zip(dims[1:], high, strict=True)]
    axes = list(range(2, 2 + len(low)))
    parameters = [
        emitter.integers(name, numbers)
        for name, numbers in (("starts", starts), ("ends", ends), ("axes", axes))
    ]
    shape = (dims[0], *(e - s for s, e in zip(starts, ends, strict=True)))
    return emitter.moved("Slice", (x, *parameters), x, "_cropped", shape)


def lower_average(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """AveragePool: a convolution with ones for each channel; the divisor moves on.

    Raises:
        HqcError: HQC205, windows at the edge have divisors of their own.
    """
    form = straighten(emitter, node, form)
    affine = form.affine
    taps, channels = Taps.of(node), sample_shape(form.value)[0]
    counts = divisors(node, taps)
    if np.any(counts != counts[0]):
        raise reject(
            "HQC205",
            f"{node.name} averages over windows of different sizes",
            where=location_of(node),
            helps=("set count_include_pad=1, or pool without padding",),
        )
    if taps.pads and any(affine.b):
        form = _at_zero(emitter, node, form)
        affine = form.affine
    spatial = spatial_shape(node)
    window = Window.of(node) if node.op_type == "AveragePool" else _whole(node)
    size = int(counts[0])
    plain = replace(window.closed(spatial), group=channels)
    ones = np.ones((channels, 1, *window.kernel))
    out = emitter.convolve(node, form.value, ones, plain, taps.shape)
    mean = Affine(tuple(a / size for a in affine.a), affine.b)
    return Form(out, Chain().then(mean))


def _whole(node: Node) -> Window:
    """One window over everything."""
    spatial = spatial_shape(node)
    ones, none = (1,) * len(spatial), (0,) * len(spatial)
    return Window(spatial, ones, ones, none, none)


def lower_maximum(emitter: IntegerBuilder, node: Node, form: Form) -> Form:
    """MaxPool: maxima of codes, since scales and rectifiers keep their order."""
    rising = [form.chain.slope(c) for c in range(form.chain.channels)]
    value = form.value
    chain = form.chain
    if min(rising) < 0:
        signs = tuple(Fraction(1 if s >= 0 else -1) for s in rising)
        value = emitter.scaled(value, signs, "_sign")
        chain = Chain().then(Affine(signs, (Fraction(0),))).extended(form.chain.steps)
    taps = Taps.of(node)
    dims = (sample_shape(value)[0], *taps.shape)
    window = _whole(node) if node.op_type == "GlobalMaxPool" else Window.of(node)
    attributes = {k: v for k, v in window.attributes().items() if isinstance(v, list)}
    ceil = {"ceil_mode": 1} if window.ceil else {}
    out = emitter.moved("MaxPool", (value,), value, "", dims, attributes | ceil)
    return Form(out, chain)
