"""Shrinking a failure: fewer and simpler decisions that fail in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence


def shrink(
    made: Sequence[int],
    fails: Callable[[Sequence[int]], Sequence[int] | None],
    seconds: float = 120.0,
) -> list[int]:
    """The simplest list of decisions found that still fails.

    Args:
        made: decisions that fail.
        fails: the decisions really made on replaying a list if it fails in the same way, else
            None.
        seconds: give up improving after that long.
    """
    deadline = time.monotonic() + seconds
    best = _trimmed(made)

    def better(candidate: Sequence[int]) -> bool:
        nonlocal best
        candidate = _trimmed(candidate)
        if time.monotonic() > deadline or _cost(candidate) >= _cost(best):
            return False
        really = fails(candidate)
        if really is None or _cost(_trimmed(really)) >= _cost(best):
            return False
        best = _trimmed(really)
        return True

    improved = True
    while improved and time.monotonic() < deadline:
        improved = _without_spans(lambda: best, better) | _smaller(lambda: best, better)
    return best


def _without_spans(best: Callable[[], list[int]], better: Callable[[Sequence[int]], bool]) -> bool:
    """Leave out, or make simplest, spans of decisions, long ones first."""
    improved = False
    size = max(1, len(best()) // 2)
    while size:
        start = 0
        while start < len(best()):
            now = best()
            rest = now[start + size :]
            if better(now[:start] + rest) or better([*now[:start], *[0] * size, *rest]):
                improved = True
            else:
                start += size
        size //= 2
    return improved


def _smaller(best: Callable[[], list[int]], better: Callable[[Sequence[int]], bool]) -> bool:
    """Make single decisions simpler."""
    improved = False
    for position in range(len(best())):
        now = best()
        if position >= len(now) or not now[position]:
            continue
        for value in (0, 1, now[position] // 2, now[position] - 1):
            if value < now[position] and better([*now[:position], value, *now[position + 1 :]]):
                improved = True
                break
    return improved


def _trimmed(made: Sequence[int]) -> list[int]:
    found = list(made)
    while found and not found[-1]:
        found.pop()
    return found


def _cost(made: Sequence[int]) -> tuple[int, int]:
    return len(made), sum(made)
