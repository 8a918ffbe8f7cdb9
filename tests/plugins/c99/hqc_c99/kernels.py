"""One C function for each layer: its text, its tables, and the bounds of what it computes."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

import numpy as np

from hqc.backends import layers
from hqc.ir import Array
from hqc.numerics import Codes, FixedType
from hqc_c99.moves import rearrange
from hqc_c99.tables import Table, bounds, reduced
from hqc_c99.words import Bounds, Expression, Target, Unfit, align, assign, cast, literal


@dataclass(frozen=True)
class Operand:
    """An array that a kernel reads: its C type and the bounds of its elements."""

    ctype: str
    bounds: Bounds


@dataclass(frozen=True, eq=False)
class Kernel:
    """A layer in C.

    Attributes:
        body: statements that fill `y` from `x` (and `x1`).
        bounds: of the elements of `y`.
        word: bits of the widest word that it computes with.
        tables: constants that the body reads.
        products: multiplications per sample.
    """

    body: str
    bounds: Bounds
    word: int
    tables: tuple[Table, ...] = ()
    products: int = 0


@dataclass(frozen=True)
class Context:
    """What all kernels are made with."""

    target: Target
    sources: tuple[Operand, ...]
    name: str = field(default="")

    def read(self, text: str, source: int = 0) -> Expression:
        """An element of an operand."""
        return Expression(text, self.sources[source].bounds)

    def table(self, suffix: str, codes: Codes) -> Table:
        """A table that belongs to the layer."""
        return Table.of(f"{self.name}_{suffix}", codes, self.target)


@singledispatch
def kernel(layer: layers.Layer, context: Context) -> Kernel:
    """The C function of a layer.

    Raises:
        Unfit: a value fits no word of the target, or there is no C for this kind of layer.
    """
    raise Unfit(f"there is no C for layers of kind {type(layer).__name__}")


# --- sums of products ---------------------------------------------------------------------------


@kernel.register
def _dense(layer: layers.Dense, context: Context) -> Kernel:
    n_in, n_out = layer.weight.codes.shape
    sums = _Sums.of(layer.weight.codes, layer, context)
    weight = context.table("w", np.ascontiguousarray(layer.weight.codes.T))
    acc = f"int{sums.word}_t"
    body = f"""\
    for (int32_t o = 0; o < {n_out}; o++) {{
        {acc} sum = 0;
        for (int32_t i = 0; i < {n_in}; i++)
            sum += ({acc}){weight.name}[o * INT32_C({n_in}) + i] * ({acc})x[i];
        y[o] = {sums.result.text};
    }}
"""
    return sums.kernel(body, weight, n_in * n_out)


@kernel.register
def _conv(layer: layers.Conv, context: Context) -> Kernel:
    rows, columns, n_in, n_out = layer.weight.codes.shape
    sliding = layer.sliding
    channels = n_in * layer.group
    sums = _Sums.of(layer.weight.codes.reshape(-1, n_out), layer, context)
    weight = context.table("w", np.ascontiguousarray(layer.weight.codes.transpose(3, 0, 1, 2)))
    acc = f"int{sums.word}_t"
    per_group = n_out // layer.group
    first = f" + o / {per_group} * {n_in}" if layer.group > 1 else ""
    inner = f"""\
                        for (int32_t i = 0; i < {n_in}; i++)
                            sum += ({acc})w[i] * ({acc})from[i];
"""
    body = f"""\
    for (int32_t r = 0; r < {sliding.windows[0]}; r++)
        for (int32_t c = 0; c < {sliding.windows[1]}; c++)
            for (int32_t o = 0; o < {n_out}; o++) {{
                {acc} sum = 0;
                for (int32_t kr = 0; kr < {rows}; kr++)
                    for (int32_t kc = 0; kc < {columns}; kc++) {{
{_place(sliding)}
                        const {weight.ctype} *w = {weight.name}
                            + ((o * INT32_C({rows}) + kr) * {columns} + kc) * {n_in};
                        const {context.sources[0].ctype} *from = x
                            + (row * {sliding.size[1]} + column) * {channels}{first};
{inner}                    }}
                y[(r * INT32_C({sliding.windows[1]}) + c) * {n_out} + o] = {sums.result.text};
            }}
"""
    windows = sliding.windows[0] * sliding.windows[1]
    return sums.kernel(body, weight, windows * n_out * layer.products)


def _place(sliding: layers.Sliding) -> str:
    """Row and column that a tap reads; those in the padding are passed over."""
    (sr, sc), (dr, dc), (br, bc) = sliding.strides, sliding.dilations, sliding.before
    indent = " " * 24
    lines = [
        f"{indent}const int32_t row = r * INT32_C({sr}) + kr * {dr} - {br};",
        f"{indent}const int32_t column = c * INT32_C({sc}) + kc * {dc} - {bc};",
    ]
    outside = []
    for name, before, after, size in zip(
        ("row", "column"), sliding.before, sliding.after, sliding.size, strict=True
    ):
        outside += [f"{name} < 0"] if before else []
        outside += [f"{name} >= {size}"] if after else []
    if outside:
        lines += [f"{indent}if ({' || '.join(outside)})", f"{indent}    continue;"]
    return "\n".join(lines)


@dataclass(frozen=True, eq=False)
class _Sums:
    """What dense layers and convolutions have in common: the accumulator and its end."""

    word: int
    result: Expression
    bias: tuple[Table, ...]

    @classmethod
    def of(cls, matrix: Codes, layer: layers.Dense | layers.Conv, context: Context) -> _Sums:
        """For a matrix (taps, outputs); any tap of a convolution may lie in the padding."""
        x = context.sources[0].bounds
        padded = isinstance(layer, layers.Conv) and any(layer.sliding.before + layer.sliding.after)
        low, high = _products(matrix, x)
        partial = Bounds(
            min(int(np.minimum(low, 0).sum(axis=0).min()), int(low.min())),
            max(int(np.maximum(high, 0).sum(axis=0).max()), int(high.max())),
            x.fraction + layer.weight.type.fraction,
        )
        word = context.target.word(partial, x, bounds(matrix))
        if padded:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
        lowest, highest = low.sum(axis=0), high.sum(axis=0)
        codes, fraction = reduced(layer.bias)
        ends = Bounds(int(lowest.min()), int(highest.max()), partial.fraction)
        total = Expression("sum", ends, word)
        if not codes.any():
            return cls(word, assign(total, layer.result, context.target), ())
        finest = max(fraction, partial.fraction)
        shift, up = finest - partial.fraction, finest - fraction
        bias: Array = codes.astype(object) << up
        exact = Bounds(
            int(((lowest.astype(object) << shift) + bias).min()),
            int(((highest.astype(object) << shift) + bias).max()),
            finest,
        )
        wide = max(word, context.target.word(exact, ends.at(finest), _ends(bias, finest)))
        table = context.table("b", bias.astype(np.int64))
        aligned = align(Expression("sum", ends, word), finest, context.target)
        text = f"({cast(aligned, wide)} + ({f'int{wide}_t'}){table.name}[o])"
        value = assign(Expression(text, exact, wide), layer.result, context.target)
        return cls(word, value, (table,))

    def kernel(self, body: str, weight: Table, products: int) -> Kernel:
        """The kernel around it."""
        word = max(self.word, self.result.word)
        return Kernel(body, self.result.bounds, word, (weight, *self.bias), products)


def _products(matrix: Codes, x: Bounds) -> tuple[Array, Array]:
    """The ends of each product, on integers that hold every sum of them."""
    top = max(abs(x.lo), abs(x.hi)) * int(np.abs(matrix).max(initial=0)) * len(matrix)
    kind: type = np.int64 if top < 1 << 62 else object
    ends: list[Array] = [matrix.astype(kind) * end for end in (x.lo, x.hi)]
    return np.minimum(*ends), np.maximum(*ends)


def _ends(codes: Array, fraction: int) -> Bounds:
    return Bounds(int(codes.min()), int(codes.max()), fraction)


# --- element by element -------------------------------------------------------------------------


@kernel.register
def _requantise(layer: layers.Requantise, context: Context) -> Kernel:
    x, target = context.sources[0].bounds, context.target
    (scale, sf), (bias, bf) = reduced(layer.scale), reduced(layer.bias)
    fraction = max(x.fraction + sf, bf) if bias.any() else x.fraction + sf
    factors = scale.astype(object) << (fraction - x.fraction - sf)
    offsets = bias.astype(object) << (fraction - bf) if bias.any() else bias.astype(object)
    ends = [factors * x.lo, factors * x.hi]
    products = Bounds(int(np.min(ends)), int(np.max(ends)), fraction)
    low, high = np.minimum(*ends) + offsets, np.maximum(*ends) + offsets
    sums = Bounds(int(np.min(low)), int(np.max(high)), fraction)
    parts = (x, products, sums, _ends(factors, 0), _ends(offsets, 0))
    word = target.word(*parts)
    count = max(scale.size, bias.size)
    tables, factor = _operand("s", factors, word, context)
    more, offset = _operand("b", offsets, word, context)
    text = f"(int{word}_t)x[{'i' if count == 1 else f'p * {count} + i'}]"
    multiplies = factor != literal(1, word)
    text = f"{text} * {factor}" if multiplies else text
    text = f"({text} + {offset})" if np.any(offsets != 0) else f"({text})"
    value = assign(Expression(text, sums, word), layer.result, target)
    return Kernel(
        _loops(layer.size, count, value.text),
        value.bounds,
        max(word, value.word),
        (*tables, *more),
        layer.size if multiplies else 0,
    )


def _operand(
    suffix: str, codes: Array, word: int, context: Context
) -> tuple[tuple[Table, ...], str]:
    """A table, or a literal where all elements are equal."""
    if np.all(codes == codes.flat[0]):
        return (), literal(int(codes.flat[0]), word)
    table = context.table(suffix, codes.astype(np.int64))
    return (table,), f"(int{word}_t){table.name}[i]"


def _loops(size: int, count: int, text: str) -> str:
    """Elements one by one, or by channels, which come last."""
    if count == 1:
        return f"    for (int32_t i = 0; i < {size}; i++)\n        y[i] = {text};\n"
    return f"""\
    for (int32_t p = 0; p < {size // count}; p++)
        for (int32_t i = 0; i < {count}; i++)
            y[p * {count} + i] = {text};
"""


@kernel.register
def _activation(layer: layers.Activation, context: Context) -> Kernel:
    x = context.read("x[i]")
    if layer.function == "relu":
        word = context.target.word(x.bounds)
        zero = literal(0, word)
        positive = Bounds(max(0, x.bounds.lo), max(0, x.bounds.hi), x.bounds.fraction)
        x = Expression(f"(x[i] > 0 ? (int{word}_t)x[i] : {zero})", positive, word)
    value = assign(x, layer.result, context.target)
    word = max(value.word, context.target.word(value.bounds))
    return Kernel(_loops(layer.size, 1, value.text), value.bounds, word)


@kernel.register
def _merge(layer: layers.Merge, context: Context) -> Kernel:
    x, y = context.read("x[i]"), context.read("x1[i]", 1)
    a, b = x.bounds, y.bounds
    if layer.function == "add":
        fraction = max(a.fraction, b.fraction)
        x, y = (align(v, fraction, context.target) for v in (x, y))
        a, b = x.bounds, y.bounds
        found = Bounds(a.lo + b.lo, a.hi + b.hi, fraction)
    else:
        ends = [i * j for i in (a.lo, a.hi) for j in (b.lo, b.hi)]
        found = Bounds(min(ends), max(ends), a.fraction + b.fraction)
    word = max(x.word, y.word, context.target.word(a, b, found))
    sign = "+" if layer.function == "add" else "*"
    text = f"({cast(x, word)} {sign} {cast(y, word)})"
    value = assign(Expression(text, found, word), layer.result, context.target)
    products = layer.size if layer.function == "multiply" else 0
    return Kernel(
        _loops(layer.size, 1, value.text), value.bounds, max(word, value.word), (), products
    )


@kernel.register
def _threshold(layer: layers.Threshold, context: Context) -> Kernel:
    rows, steps = layer.thresholds.codes.shape
    fraction = max(context.sources[0].bounds.fraction, layer.thresholds.type.fraction)
    limits: Array = layer.thresholds.codes.astype(object)
    limits = limits << (fraction - layer.thresholds.type.fraction)
    x = align(context.read(f"x[p * {rows} + i]"), fraction, context.target)
    word = max(x.word, context.target.word(x.bounds, _ends(limits, fraction)))
    table = context.table("t", limits.astype(np.int64))
    count = Expression("count", Bounds(layer.bias, layer.bias + steps), 32)
    value = assign(count, layer.result, context.target)
    body = f"""\
    for (int32_t p = 0; p < {layer.size // rows}; p++)
        for (int32_t i = 0; i < {rows}; i++) {{
            const int{word}_t from = {cast(x, word)};
            int32_t count = {layer.bias};
            for (int32_t k = 0; k < {steps}; k++)
                count += from >= {table.name}[i * INT32_C({steps}) + k];
            y[p * {rows} + i] = {value.text};
        }}
"""
    return Kernel(body, value.bounds, max(word, value.word), (table,))


@kernel.register
def _table(layer: layers.Table, context: Context) -> Kernel:
    rows, steps = layer.table.codes.shape
    (factor, fraction), x = reduced(layer.step), context.sources[0].bounds
    if factor.tolist() != [1]:
        raise Unfit("a look-up table whose step is not a power of two")
    integer = FixedType(True, 64, 64)
    scaled = Bounds(x.lo, x.hi, x.fraction + fraction)
    code = assign(Expression(f"x[p * {rows} + i]", scaled), integer, context.target)
    table = context.table("t", layer.table.codes)
    word = max(code.word, context.target.word(code.bounds))
    held = Expression("found", bounds(layer.table.codes, layer.table.type.fraction))
    value = assign(held, layer.result, context.target)
    index = f"{cast(code, word)} - {literal(layer.first, word)}"
    body = f"""\
    for (int32_t p = 0; p < {layer.size // rows}; p++)
        for (int32_t i = 0; i < {rows}; i++) {{
            const {table.ctype} found = {table.name}[i * INT32_C({steps}) + ({index})];
            y[p * {rows} + i] = {value.text};
        }}
"""
    return Kernel(body, value.bounds, max(word, value.word), (table,))


# --- windows and rearrangements -----------------------------------------------------------------


@kernel.register
def _max_pool(layer: layers.MaxPool, context: Context) -> Kernel:
    sliding, x = layer.sliding, context.sources[0].bounds
    channels = layer.size // (sliding.windows[0] * sliding.windows[1])
    word = context.target.word(x)
    value = assign(Expression("best", x, word), layer.result, context.target)
    at = f"x[(row * {sliding.size[1]} + column) * {channels} + o]"
    body = f"""\
    for (int32_t r = 0; r < {sliding.windows[0]}; r++)
        for (int32_t c = 0; c < {sliding.windows[1]}; c++)
            for (int32_t o = 0; o < {channels}; o++) {{
                int{word}_t best = {literal(x.lo, word)};
                for (int32_t kr = 0; kr < {sliding.kernel[0]}; kr++)
                    for (int32_t kc = 0; kc < {sliding.kernel[1]}; kc++) {{
{_place(sliding)}
                        if ({at} > best)
                            best = {at};
                    }}
                y[(r * INT32_C({sliding.windows[1]}) + c) * {channels} + o] = {value.text};
            }}
"""
    return Kernel(body, value.bounds, max(word, value.word))


@kernel.register
def _rearrange(layer: layers.Rearrange, context: Context) -> Kernel:
    values = []
    for number in range(len(layer.sources)):
        read = context.read("x[j]" if number == 0 else f"x{number}[j]", number)
        values.append(assign(read, layer.result, context.target))
    body, tables, filled = rearrange(layer, [v.text for v in values], context.table)
    found = [v.bounds for v in values]
    if filled:
        found.append(Bounds(layer.fill, layer.fill, layer.result.fraction))
    joined = found[0]
    for more in found[1:]:
        joined = joined.join(more)
    word = max(context.target.word(joined), *(v.word for v in values))
    return Kernel(body, joined, word, tables)
