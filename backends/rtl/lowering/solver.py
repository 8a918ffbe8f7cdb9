"""da4ml's solver for constant matrices, with its results kept where they took long.

da4ml is a library for distributed arithmetic: from a matrix and what its inputs can be it finds
sums that many columns share. It is imported when it is first needed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hqc.backends.native import cache_folder, write_whole
from hqc.diagnostics import reject
from hqc.numerics.types import SINGLE_BITS, Range

#: Settings that are tried: the solver's own, two levels of adders more than the least, and
#: another order in which it looks for shared sums.
OPTIONS: tuple[Mapping[str, Any], ...] = ({}, {"hard_dc": 2}, {"method0": "mc"})
#: Results that took longer, in seconds, are kept.
_LONG = 0.5
_INPUT, _PLUS, _MINUS = -1, 0, 1


@dataclass(frozen=True)
class Stage:
    """One of the matrices in a row that a solution is made of.

    Attributes:
        shifts: powers of two of the inputs.
        steps: (first, second, power, minus): the sum of two values, the second shifted; a step
            without a second is an input.
        outputs: (value, power, minus), value -1 for zero.
    """

    shifts: tuple[int, ...]
    steps: tuple[tuple[int, int | None, int, bool], ...]
    outputs: tuple[tuple[int, int, bool], ...]


def fits(largest: int) -> bool:
    """Whether the solver, which takes float32, can be given a weight."""
    return abs(largest).bit_length() <= SINGLE_BITS


def solve(
    kernel: npt.NDArray[np.float32], ranges: Sequence[Range], options: Mapping[str, Any]
) -> tuple[Stage, ...]:
    """Stages that multiply by a matrix, the same each time.

    Args:
        kernel: (n_in, n_out) integers.
        ranges: of the inputs.
        options: one of `OPTIONS`.

    Raises:
        HqcError: HQC404, da4ml is missing.
    """
    solver = _solver()
    kernel = np.ascontiguousarray(kernel)  # other orders are misread
    intervals = [(float(r.lo), float(r.hi), 1.0) for r in ranges]
    kept = cache_folder() / f"{_key(kernel, intervals, options)}.adders.json"
    if (found := _read(kept)) is not None:
        return found
    begun = time.perf_counter()
    found = tuple(map(_stage, solver(kernel, qintervals=intervals, **options).solutions))
    if time.perf_counter() - begun > _LONG:
        _write(kept, found)
    return found


def _solver() -> Any:
    try:
        from da4ml.cmvm import solve  # type: ignore[import-untyped]
    except ImportError as error:
        raise reject(
            "HQC404",
            "da4ml is not installed",
            notes=("it finds the adders of constant matrices",),
            helps=('pip install "hqc[rtl]"',),
        ) from error
    return solve


def _stage(found: Any) -> Stage:
    """A stage of da4ml's pipeline as plain data."""
    outputs = zip(found.out_idxs, found.out_shifts, found.out_negs, strict=True)
    return Stage(
        tuple(int(shift) for shift in found.inp_shifts),
        tuple(_step(op) for op in found.ops),
        tuple((int(index), int(shift), bool(negative)) for index, shift, negative in outputs),
    )


def _step(op: Any) -> tuple[int, int | None, int, bool]:
    if op.opcode == _INPUT:
        return int(op.id0), None, 0, False
    if op.opcode not in (_PLUS, _MINUS):
        raise ValueError(f"da4ml gave operation {op.opcode} for a product by a matrix")
    return int(op.id0), int(op.id1), int(op.data), op.opcode == _MINUS


# --- results that are kept --------------------------------------------------------------------


def _key(kernel: npt.NDArray[np.float32], intervals: Any, options: Mapping[str, Any]) -> str:
    text = json.dumps([version("da4ml"), kernel.shape, intervals, sorted(options.items())])
    return hashlib.sha256(text.encode() + kernel.tobytes()).hexdigest()


def _read(path: Path) -> tuple[Stage, ...] | None:
    """What was kept; None if nothing was, or it is damaged (a wrong one is found out later)."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Stage(
                tuple(s["shifts"]), tuple(map(tuple, s["steps"])), tuple(map(tuple, s["outputs"]))
            )
            for s in stages
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, stages: Sequence[Stage]) -> None:
    """Keep a result, in one step; a folder that cannot be written keeps nothing."""
    with suppress(OSError):
        write_whole(path, json.dumps([vars(stage) for stage in stages]))
