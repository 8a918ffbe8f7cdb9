"""Writing MLIR: values, integer tensor types, constants, reshapes and linalg.generic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hqc.numerics.types import Codes, Range

_WIDTHS = (8, 16, 32, 64)
#: The dynamic size of the batch, defined first.
BATCH = "%batch"


def width_of(range_: Range) -> int:
    """The narrowest of the integer widths that holds a range, signed."""
    type_ = range_.fit()
    bits = type_.width + (not type_.signed)
    return next(w for w in _WIDTHS if w >= bits)


def width_of_codes(codes: Codes) -> int:
    """The narrowest width that holds an array."""
    return width_of(Range(int(codes.min()), int(codes.max())))


@dataclass(frozen=True)
class Operand:
    """An SSA value that is a tensor of integers.

    Attributes:
        value: its name.
        shape: without the batch; of the whole tensor where `batch` is False.
        width: of the elements.
        batch: whether a dynamic axis comes first.
    """

    value: str
    shape: tuple[int, ...]
    width: int
    batch: bool = True

    @property
    def type(self) -> str:
        """As MLIR spells it."""
        dims = [*(["?"] if self.batch else []), *map(str, self.shape)]
        return f"tensor<{'x'.join([*dims, f'i{self.width}'])}>"


@dataclass
class Writer:
    """The lines of one function body."""

    lines: list[str] = field(default_factory=list)
    count: int = 0

    def say(self, text: str) -> str:
        """One operation; the name of its result."""
        name = f"%{self.count}"
        self.count += 1
        self.lines.append(f"{name} = {text}")
        return name

    def made(self, out: Operand, text: str) -> Operand:
        """One operation whose result is a tensor like `out`."""
        return replace(out, value=self.say(text))

    def scalar(self, code: int, width: int) -> str:
        """An integer constant."""
        return self.say(f"arith.constant {code} : i{width}")

    def dense(self, codes: Codes, width: int) -> Operand:
        """A constant tensor."""
        out = Operand("", codes.shape, width, batch=False)
        if np.all(codes == codes.flat[0]):
            text = str(int(codes.flat[0]))
        else:
            held = np.ascontiguousarray(codes).astype(f"<i{width // 8}")
            text = f'"0x{held.tobytes().hex().upper()}"'
        return self.made(out, f"arith.constant dense<{text}> : {out.type}")

    def empty(self, shape: tuple[int, ...], width: int, batch: bool = True) -> Operand:
        """An uninitialised tensor, to write results into."""
        out = Operand("", shape, width, batch)
        return self.made(out, f"tensor.empty({BATCH if batch else ''}) : {out.type}")

    def filled(self, shape: tuple[int, ...], width: int, code: int) -> Operand:
        """A tensor of one code."""
        c, out = self.scalar(code, width), self.empty(shape, width)
        text = f"linalg.fill ins({c} : i{width}) outs({out.value} : {out.type}) -> {out.type}"
        return self.made(out, text)

    def reshaped(self, x: Operand, shape: tuple[int, ...]) -> Operand:
        """The same elements of each sample, in order, in another shape."""
        if x.shape == shape:
            return x
        size = math.prod(shape)
        flat = x if len(x.shape) == 1 else self._regroup("collapse", x, (size,))
        return flat if len(shape) == 1 else self._regroup("expand", flat, shape)

    def _regroup(self, how: str, x: Operand, shape: tuple[int, ...]) -> Operand:
        rank = max(len(x.shape), len(shape))
        if min(len(x.shape), len(shape)):
            groups = f"[[0], [{', '.join(str(i + 1) for i in range(rank))}]]"
        else:
            groups = "[[0, 1]]"
        out = Operand("", shape, x.width)
        sizes = ", ".join([BATCH, *map(str, shape)])
        to = f" output_shape [{sizes}]" if how == "expand" else ""
        text = f"tensor.{how}_shape {x.value} {groups}{to} : {x.type} into {out.type}"
        return self.made(out, text)

    def padded(self, x: Operand, before: Sequence[int], after: Sequence[int], code: int) -> Operand:
        """Spatial borders of a code around (N, C, ...)."""
        if not (any(before) or any(after)):
            return x
        sizes = zip(x.shape[1:], before, after, strict=True)
        out = Operand("", (x.shape[0], *(n + a + b for n, a, b in sizes)), x.width)
        c = self.scalar(code, x.width)
        axes = ", ".join(f"%p{i}: index" for i in range(len(out.shape) + 1))
        low, high = (", ".join(map(str, (0, 0, *ends))) for ends in (before, after))
        return self.made(
            out,
            f"tensor.pad {x.value} low[{low}] high[{high}] {{\n      ^bb0({axes}):\n"
            f"        tensor.yield {c} : i{x.width}\n    }} : {x.type} to {out.type}",
        )

    def generic(
        self,
        inputs: Sequence[tuple[Operand, str]],
        out: tuple[Operand, str],
        loops: str,
        body: Sequence[str],
    ) -> Operand:
        """A linalg.generic.

        Args:
            inputs: operands, each with the indices it is read at, in terms of the loops d0, d1...
            out: the same for the result.
            loops: "p" (parallel) or "r" (reduction) for each loop.
            body: operations on the elements %a, %b of the inputs and %o of the result.
        """
        over = ", ".join(f"d{i}" for i in range(len(loops)))
        every = [*inputs, out]
        maps = ", ".join(f"affine_map<({over}) -> ({index})>" for _, index in every)
        kinds = ", ".join('"parallel"' if c == "p" else '"reduction"' for c in loops)
        given = ", ".join(x.value for x, _ in inputs)
        types = ", ".join(x.type for x, _ in inputs)
        ins = f" ins({given} : {types})" if inputs else ""
        names = [*"ab"[: len(inputs)], "o"]
        block = ", ".join(f"%{name}: i{x.width}" for name, (x, _) in zip(names, every, strict=True))
        lines = "\n".join(f"        {line}" for line in body)
        target = out[0]
        return self.made(
            target,
            f"linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}"
            f"{ins} outs({target.value} : {target.type}) {{\n"
            f"      ^bb0({block}):\n{lines}\n    }} -> {target.type}",
        )


def axes(rank: int, first: int = 0) -> str:
    """Loop indices d<first>, ... as an index expression."""
    return ", ".join(f"d{first + i}" for i in range(rank))


def resized(to: str, x: str, before: int, after: int) -> str:
    """Sign extension, or truncation of a value that fits (or of arithmetic modulo 2**after)."""
    if before == after:
        return f"{to} = arith.addi {x}, %zero{after} : i{after}"
    op = "extsi" if before < after else "trunci"
    return f"{to} = arith.{op} {x} : i{before} to i{after}"
