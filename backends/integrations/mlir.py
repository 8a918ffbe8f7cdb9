"""The integer core as MLIR text: linalg, arith and tensor on integers of exact width.

Each tensor of codes has the narrowest of i8, i16, i32, i64 that holds its proven range; each
operation extends its operands to the type that its own values need. Ports carry codes, and the
batch is dynamic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hqc.analysis.partition import Port
from hqc.backends.layers.layout import is_identity
from hqc.integrations.core import Emitter, Held, Nudge, lowered, walk
from hqc.integrations.mlir_text import (
    BATCH,
    Operand,
    Writer,
    axes,
    resized,
    width_of,
    width_of_codes,
)
from hqc.ir.windows import Window
from hqc.numerics.types import Codes, Range, Rounding


def export_mlir(model: object, *, example_inputs: object = None) -> str:
    """The core of a model as an MLIR module with one function, `main`.

    Its arguments and results are codes, in the order of the ports of `lowered(model)`, whose
    `encode` and `decode` are the host's part. A comment names each port and its type.

    Args:
        model: see `hqc.integrations.core.lowered`.
        example_inputs: for a module.

    Raises:
        HqcError: HQC401, something does not fit 62 bits.
    """
    module = _Module()
    walk(lowered(model, example_inputs=example_inputs), module)
    return module.text()


class _Module(Emitter):
    """Writes the function; every held tensor is an operand of the width of its range."""

    target = "MLIR"

    def __init__(self) -> None:
        self._comments: list[str] = []
        self._arguments: list[Operand] = []
        self._results: list[Operand] = []
        self._writer = Writer()
        self._values: dict[str, Operand] = {}

    def text(self) -> str:
        """The module."""
        arguments = ", ".join(f"{x.value}: {x.type}" for x in self._arguments)
        types = ", ".join(x.type for x in self._results)
        values = ", ".join(x.value for x in self._results)
        first = self._arguments[0]
        head = [
            "%axis0 = arith.constant 0 : index",
            f"{BATCH} = tensor.dim {first.value}, %axis0 : {first.type}",
            *(f"%zero{w} = arith.constant 0 : i{w}" for w in (8, 16, 32, 64)),
        ]
        body = "\n".join(f"    {line}" for line in (*head, *self._writer.lines))
        return "\n".join(
            (
                *self._comments,
                "module {",
                f"  func.func @main({arguments}) -> ({types}) {{",
                body,
                f"    return {values} : {types}",
                "  }",
                "}\n",
            )
        )

    def _map(
        self,
        out: Held,
        x: Held,
        body: Sequence[str],
        work: int,
        other: tuple[Operand, str] | None = None,
    ) -> None:
        """Element by element: `body` makes %r from %x (and %y), both of `work` bits."""
        operand, narrow, rank = self._values[x.name], width_of(out.range), len(x.shape) + 1
        inputs = [(operand, axes(rank))]
        lines = [resized("%x", "%a", operand.width, work)]
        if other is not None:
            inputs.append(other)
            lines.append(resized("%y", "%b", other[0].width, work))
        lines += [*body, resized("%z", "%r", work, narrow), f"linalg.yield %z : i{narrow}"]
        result = self._writer.empty(out.shape, narrow), axes(rank)
        self._values[out.name] = self._writer.generic(inputs, result, "p" * rank, lines)

    # --- operations -------------------------------------------------------------------------

    def input(self, out: Held, port: Port) -> None:
        """An argument of the function."""
        number = len(self._arguments)
        self._comments.append(f"// argument {number}: {port.name}, {port.type}")
        found = Operand(f"%in{number}", out.shape, width_of(out.range))
        self._arguments.append(found)
        self._values[out.name] = found

    def output(self, x: Held, port: Port) -> None:
        """A result of the function."""
        self._comments.append(f"// result {len(self._results)}: {port.name}, {port.type}")
        self._results.append(self._values[x.name])

    def matmul(self, out: Held, x: Held, weight: Codes) -> None:
        """A sum over n_in."""
        w = self._writer.dense(weight, width_of_codes(weight))
        total = self._writer.filled(out.shape, width_of(out.range), 0)
        operand = self._values[x.name]
        self._values[out.name] = self._writer.generic(
            [(operand, "d0, d2"), (w, "d2, d1")],
            (total, "d0, d1"),
            "ppr",
            _product(operand.width, w.width, total.width),
        )

    def conv(self, out: Held, x: Held, weight: Codes, window: Window) -> None:
        """A sum over channels and taps of the padded input, group by group."""
        n, group, per_group = len(window.kernel), window.group, weight.shape[1]
        padded = self._writer.padded(self._values[x.name], window.before, window.after, 0)
        split = self._writer.reshaped(padded, (group, per_group, *padded.shape[1:]))
        rows = weight.reshape(group, -1, *weight.shape[1:])
        w = self._writer.dense(rows, width_of_codes(rows))
        total = self._writer.filled((group, rows.shape[1], *out.shape[1:]), width_of(out.range), 0)
        at = _sliding(window, 3, 4 + n)
        found = self._writer.generic(
            [
                (split, f"d0, d1, d{3 + n}, {at}"),
                (w, f"d1, d2, d{3 + n}, {axes(n, 4 + n)}"),
            ],
            (total, axes(3 + n)),
            "p" * (3 + n) + "r" * (1 + n),
            _product(split.width, w.width, total.width),
        )
        self._values[out.name] = self._writer.reshaped(found, out.shape)

    def maximum(self, out: Held, x: Held, window: Window) -> None:
        """A maximum over the taps of the padded input."""
        n, low = len(window.kernel), x.range.lo
        padded = self._writer.padded(self._values[x.name], window.before, window.after, low)
        taps = self._writer.empty(window.kernel, padded.width, batch=False)
        best = self._writer.filled(out.shape, padded.width, low)
        self._values[out.name] = self._writer.generic(
            [(padded, f"d0, d1, {_sliding(window, 2, 2 + n)}"), (taps, axes(n, 2 + n))],
            (best, axes(2 + n)),
            "p" * (2 + n) + "r" * n,
            [
                f"%m = arith.maxsi %a, %o : i{padded.width}",
                f"linalg.yield %m : i{padded.width}",
            ],
        )

    def pair(self, op: str, out: Held, x: Held, y: Held) -> None:
        """arith.addi or arith.muli of two tensors."""
        other = self._values[y.name], axes(len(y.shape) + 1)
        work = max(width_of(t.range) for t in (out, x, y))
        self._map(out, x, [f"%r = arith.{op.lower()}i %x, %y : i{work}"], work, other)

    def constant(self, op: str, out: Held, x: Held, codes: Codes) -> None:
        """The same with a constant tensor."""
        flat = codes.reshape([n for n in codes.shape if n != 1])
        index = ", ".join(f"d{i + 1}" for i, n in enumerate(codes.shape) if n != 1)
        c = self._writer.dense(flat, width_of_codes(flat))
        work = max(c.width, *(width_of(t.range) for t in (out, x)))
        self._map(out, x, [f"%r = arith.{op.lower()}i %x, %y : i{work}"], work, (c, index))

    def shift(self, out: Held, x: Held, bits: int, rounding: Rounding) -> None:
        """Nudge, then an arithmetic shift."""
        limit = 1 << (max(bits, x.range.magnitude_bits) + 1)
        work, nudge = width_of(Range(-limit, limit - 1)), Nudge.of(rounding, bits)
        lines = [
            f"%by = arith.constant {bits} : i{work}",
            f"%always = arith.constant {nudge.always} : i{work}",
            f"%s0 = arith.addi %x, %always : i{work}",
        ]
        total = "%s0"
        if nudge.condition:
            lines += [
                *_condition(nudge.condition, work),
                f"%extra = arith.constant {nudge.extra} : i{work}",
                f"%more = arith.select %when, %extra, %zero{work} : i{work}",
                f"%s1 = arith.addi %s0, %more : i{work}",
            ]
            total = "%s1"
        self._map(out, x, [*lines, f"%r = arith.shrsi {total}, %by : i{work}"], work)

    def clamp(self, out: Held, x: Held, lo: int, hi: int | None) -> None:
        """arith.maxsi and arith.minsi."""
        high = max(lo, x.range.hi) if hi is None else hi
        work = max(width_of(x.range), width_of(Range(lo, high)))
        lines = [
            f"%lo = arith.constant {lo} : i{work}",
            f"%hi = arith.constant {high} : i{work}",
            f"%m = arith.maxsi %x, %lo : i{work}",
            f"%r = arith.minsi %m, %hi : i{work}",
        ]
        self._map(out, x, lines, work)

    def thresholds(self, out: Held, x: Held, rows: Codes, bias: int) -> None:
        """A count over the thresholds."""
        operand, rank = self._values[x.name], len(x.shape) + 1
        flat = rows if len(rows) > 1 else rows[0]
        t = self._writer.dense(flat, max(operand.width, width_of_codes(flat)))
        index = f"d1, d{rank}" if len(rows) > 1 else f"d{rank}"
        width = width_of(out.range)  # sums are modulo 2**width, and the count fits
        count = self._writer.filled(out.shape, width, _wrapped(bias, width))
        self._values[out.name] = self._writer.generic(
            [(operand, axes(rank)), (t, index)],
            (count, axes(rank)),
            "p" * rank + "r",
            [
                resized("%x", "%a", operand.width, t.width),
                f"%hit = arith.cmpi sge, %x, %b : i{t.width}",
                f"%one = arith.extui %hit : i1 to i{width}",
                f"%n = arith.addi %o, %one : i{width}",
                f"linalg.yield %n : i{width}",
            ],
        )

    def move(self, out: Held, sources: Sequence[Held], index: Codes, fill: int) -> None:
        """A reshape where elements stay in order, else elements by a table of positions."""
        given = [self._values[x.name] for x in sources]
        sizes, flat = [math.prod(x.shape) for x in sources], index.ravel()
        width = width_of(out.range)
        if len(given) == 1 and given[0].width == width and is_identity(flat, sizes[0]):
            self._values[out.name] = self._writer.reshaped(given[0], out.shape)
            return
        starts = np.cumsum([0, *sizes])
        owner = np.where(flat < 0, -1, np.searchsorted(starts, flat, side="right") - 1)
        place = np.where(flat < 0, 0, flat - starts[np.maximum(owner, 0)])
        rows = [self._writer.reshaped(x, (n,)) for x, n in zip(given, sizes, strict=True)]
        tables = [self._writer.dense(t.astype(np.int64), 32) for t in (place, owner)]
        lines = [
            "%n = linalg.index 0 : index",
            "%p = arith.index_cast %a : i32 to index",
            f"%v0 = arith.constant {fill} : i{width}",
        ]
        for i, row in enumerate(rows):
            lines += [
                f"%k{i} = arith.constant {sizes[i] - 1} : index",
                f"%p{i} = arith.minui %p, %k{i} : index",
                f"%e{i} = tensor.extract {row.value}[%n, %p{i}] : {row.type}",
                resized(f"%x{i}", f"%e{i}", row.width, width),
                f"%i{i} = arith.constant {i} : i32",
                f"%is{i} = arith.cmpi eq, %b, %i{i} : i32",
                f"%v{i + 1} = arith.select %is{i}, %x{i}, %v{i} : i{width}",
            ]
        lines.append(f"linalg.yield %v{len(rows)} : i{width}")
        result = self._writer.empty((flat.size,), width), "d0, d1"
        moved = self._writer.generic([(t, "d1") for t in tables], result, "pp", lines)
        self._values[out.name] = self._writer.reshaped(moved, out.shape)


def _wrapped(code: int, width: int) -> int:
    """A code modulo 2**width, as a signed integer."""
    half = 1 << (width - 1)
    return (code + half) % (2 * half) - half


def _product(x: int, weight: int, total: int) -> list[str]:
    """One step of a sum of products, modulo 2**total, which the sum itself fits."""
    return [
        resized("%x", "%a", x, total),
        resized("%w", "%b", weight, total),
        f"%p = arith.muli %x, %w : i{total}",
        f"%s = arith.addi %o, %p : i{total}",
        f"linalg.yield %s : i{total}",
    ]


def _sliding(window: Window, first: int, taps: int) -> str:
    """Input positions of the windows d<first>, ... at the taps d<taps>, ..."""
    pairs = zip(window.strides, window.dilations, strict=True)
    return ", ".join(
        f"d{first + i} * {stride} + d{taps + i} * {dilation}"
        for i, (stride, dilation) in enumerate(pairs)
    )


def _condition(what: str, work: int) -> list[str]:
    """%when: a condition of `Nudge` on %x."""
    if what == "odd":
        return [
            f"%quotient = arith.shrsi %x, %by : i{work}",
            f"%when = arith.trunci %quotient : i{work} to i1",
        ]
    compare = "slt" if what == "negative" else "sgt"
    return [f"%when = arith.cmpi {compare}, %x, %zero{work} : i{work}"]
