"""The verdict of a compile: what was compared, what came out, in words and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Verdict:
    """What is known about the emitted project.

    Attributes:
        checked: whether the emulation was run and compared at all.
        exact: whether every output code was equal; False when not checked.
        samples: how many samples were compared.
        mismatches: how many output codes differed, of `total`.
        total: how many output codes were compared.
        first: the first output that differs: name, index, got and want; None when there is none.
        overflow_free: whether every value's proven range fits its type.
        float_samples: samples run through the model's float32 executor; 0 when it was not run.
        float_ties: of these, how many differ because a value lies within the proven float32 error
            of a rounding tie.
        float_rounding: of these, how many differ in outputs that no quantiser rounds, by no more
            than the proven float32 error.
    """

    checked: bool
    exact: bool
    samples: int
    mismatches: int
    total: int
    first: str | None
    overflow_free: bool
    float_samples: int
    float_ties: int
    float_rounding: int

    @property
    def text(self) -> str:
        """One line for people."""
        proof = ", proven free of overflow" if self.overflow_free else ", overflow not excluded"
        if not self.checked:
            return f"not checked{proof}"
        if not self.exact:
            return f"NOT bit-exact: {self.mismatches} of {self.total} output codes differ"
        return f"bit-exact on {self.samples} samples, all outputs{proof}"

    @property
    def float_text(self) -> str | None:
        """What the float32 model said, in one line; None when it was not run."""
        if not self.float_samples:
            return None
        equal = self.float_samples - self.float_ties - self.float_rounding
        reasons = [
            f"{count} {words}"
            for count, words in (
                (self.float_ties, "on a rounding tie"),
                (self.float_rounding, "by float32 error of an unquantised output"),
            )
            if count
        ]
        differ = f"; differing: {', '.join(reasons)}" if reasons else ""
        return f"float32 model: {equal} of {self.float_samples} samples equal{differ}"

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verdict:
        """Read what `dataclasses.asdict` wrote.

        Raises:
            ValueError: a field is missing or of another type.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            value = document.get(field.name)
            wanted: tuple[type, ...] = {"bool": (bool,), "int": (int,)}.get(
                str(field.type), (str, type(None))
            )
            if field.name not in document or not isinstance(value, wanted):
                raise ValueError(f"{field.name!r} is missing or of another type")
            found[field.name] = value
        return cls(**found)


def not_checked(overflow_free: bool) -> Verdict:
    """The verdict of a compile with checking switched off."""
    return Verdict(False, False, 0, 0, 0, None, overflow_free, 0, 0, 0)
