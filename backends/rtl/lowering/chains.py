"""Products by one constant: chains of adders, each of which may reuse the value before it.

`x * 45` is `y = x * 5`, `y * 9`: two adders, where signed digits need three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hqc.backends.rtl.affine import Sums
from hqc.backends.rtl.lowering.csd import digits
from hqc.backends.rtl.lowering.scaled import Scaled, add

#: Adders of which all ways are looked at; further ones go digit by digit, or by a factor.
_DEEP = 3


@dataclass(frozen=True)
class Chain:
    """An odd number as `|before * 2**left + sign * (before or 1) * 2**right|`, or 1.

    Attributes:
        number: odd and positive.
        before: the chain of the value that is used.
        own: whether the second operand is that value again, and not the argument.
        left, right: powers of two of the operands.
        minus: whether the second is subtracted.
    """

    number: int
    before: Chain | None = None
    own: bool = False
    left: int = 0
    right: int = 0
    minus: bool = False

    @property
    def adders(self) -> int:
        """How many it takes."""
        return 0 if self.before is None else 1 + self.before.adders

    def build(self, sums: Sums, x: Scaled) -> Scaled:
        """The product of a value by the number."""
        if self.before is None:
            return x
        value = self.before.build(sums, x)
        second = (value if self.own else x).times(self.right, self.minus)
        return add(sums, value.times(self.left), second)


class Chains:
    """Short chains, each found once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Chain | None] = {}

    def of(self, number: int) -> Chain:
        """The shortest chain for an odd positive number that is found in a moment."""
        most = len(digits(number)) - 1
        for adders in range(most + 1):
            if (found := self._within(number, adders)) is not None:
                return found
        raise AssertionError(number)  # its digits, one after the other, are a chain

    def _within(self, number: int, adders: int) -> Chain | None:
        key = number, adders
        if key not in self._known:
            self._known[key] = self._search(number, adders)
        return self._known[key]

    def _search(self, number: int, adders: int) -> Chain | None:
        """A chain of at most so many adders."""
        if number == 1:
            return Chain(1)
        if adders == 0 or len(digits(number)) > 1 << adders:
            return None  # an adder at most doubles the number of digits
        for rest, own, left, right, minus in _ways(number, adders <= _DEEP):
            if (before := self._within(rest, adders - 1)) is not None:
                return Chain(number, before, own, left, right, minus)
        return None


def _ways(number: int, deep: bool) -> Iterator[tuple[int, bool, int, int, bool]]:
    """(number before, own, left, right, minus): what the last adder of a chain can be."""
    size = number.bit_length()
    for power in range(1, size):
        for sign in (1, -1):
            factor = (1 << power) + sign
            if 1 < factor <= number and number % factor == 0:
                yield number // factor, True, power, 0, sign < 0
    for sign in (1, -1):
        rest, left = odd_part(number - sign)
        yield rest, False, left, 0, sign < 0
    if not deep:
        return
    for power in range(1, size + 1):
        if (1 << power) < number:
            yield number - (1 << power), False, 0, power, False
        yield number + (1 << power), False, 0, power, True


def odd_part(number: int) -> tuple[int, int]:
    """A positive number as an odd one times a power of two."""
    power = (number & -number).bit_length() - 1
    return number >> power, power
