"""Where a generator's decisions come from: a seed, a recording, or hypothesis.

Every decision is one small integer of which 0 is the simplest, so a failing graph is shrunk by
shrinking the list of its decisions, and any list whatever is a valid graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")

#: Decisions are below this.
TOP = 1 << 16


class Choices:
    """A source of decisions that remembers what it decided."""

    def __init__(self, decide: Callable[[int], int]):
        """`decide(n)` returns an integer in 0..n-1."""
        self._decide = decide
        self.made: list[int] = []

    @classmethod
    def seeded(cls, seed: int) -> Choices:
        """Decisions of a random generator."""
        rng = np.random.default_rng(seed)
        return cls(lambda n: int(rng.integers(n)))

    @classmethod
    def replay(cls, recorded: Sequence[int]) -> Choices:
        """Recorded decisions, as far as they are possible; behind their end, the simplest."""
        left = iter(recorded)
        return cls(lambda n: min(next(left, 0), n - 1))

    def integer(self, n: int) -> int:
        """One of 0..n-1."""
        self.made.append(self._decide(n))
        return self.made[-1]

    def between(self, low: int, high: int) -> int:
        """One of low..high, low the simplest."""
        return low + self.integer(high - low + 1)

    def pick(self, *options: T) -> T:
        """One of the options, the first the simplest."""
        return options[self.integer(len(options))]

    def chance(self, probability: float) -> bool:
        """Whether something with this probability happens; not, in the simplest case."""
        return self.integer(100) >= 100 * (1 - probability)

    def rng(self) -> np.random.Generator:
        """A generator for numbers that are not worth a decision each, such as weights."""
        return np.random.default_rng(self.integer(TOP))


def sources() -> st.SearchStrategy[Choices]:
    """Decisions that hypothesis makes, and shrinks."""

    @st.composite
    def source(draw: st.DrawFn) -> Choices:
        return Choices(lambda n: draw(st.integers(0, n - 1)))

    return source()
