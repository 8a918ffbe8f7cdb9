"""Budgets, bit widths and scales as they are written for people and by them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from hqc.diagnostics import Exit, HqcError, reject

LEAST, MOST = 2, 16
"""Widths that `quantize_model` knows."""
_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
#: What a unit is worth, and the cost that it is of.
_UNITS = {
    "B": (8.0, "size"),
    "bit": (1.0, "size"),
    "bits": (1.0, "size"),
    "mm2": (1e6, "area"),
    "um2": (1.0, "area"),
}
_WRITTEN = {"size": "in bytes or bits", "area": "in mm2 or um2"}
_BUDGET = re.compile(
    r"(?P<name>\w[\w.-]*)=(?P<number>(\d{1,3}(,\d{3})+|\d[\d_]*)\.?\d*(e\d+)?)"
    r"(?P<factor>[kMG]?)( ?(?P<unit>B|bits?|[mu]m2))?"
)
_ASSIGNED = re.compile(r"(?P<layer>[\w.]+)=(?P<weights>\d+)(/(?P<inputs>\d+))?")

#: (weight bits, bits of the activations that enter) by layer.
Bits = Mapping[str, tuple[int, int]]


def parse_budgets(texts: Iterable[str]) -> dict[str, float]:
    """Upper limits by cost: "bops=350k", "size=2kB" (in bits: "size=16kbit"), "lut=5000",
    "area=4mm2" (in square micrometres: "area=4e6", "area=4e6um2").

    Factors are k, M and G, all decimal. Sizes have a unit, bytes (B) or bits; they are bits here.
    An area is um2 here. Thousands may be grouped, as messages print them: "lut=5,000".

    Raises:
        HqcError: HQC001, a text of another form, two budgets for one cost, or a unit that does
            not fit.
    """
    found: dict[str, float] = {}
    for text in texts:
        match = _BUDGET.fullmatch(text)
        if match is None:
            raise _bad_budget(text, "it is no NAME=NUMBER")
        name, unit = match["name"], match["unit"]
        if name in found:
            raise _bad_budget(text, f"there is one for {name} already")
        value = float(re.sub("[_,]", "", match["number"])) * _FACTORS[match["factor"]]
        if name == "size" and unit is None:
            raise _bad_budget(text, "a size is in bytes or bits: size=2kB, size=16kbit")
        worth, owner = _UNITS[unit] if unit else (1.0, name)
        if name != owner:
            what = _WRITTEN.get(name, "a plain number")
            raise _bad_budget(text, f"{unit} is a unit of {owner}s: {name} is {what}")
        if not math.isfinite(value) or value <= 0:
            raise _bad_budget(text, "nothing fits into it")
        found[name] = value * worth
    return found


def _bad_budget(text: str, why: str) -> HqcError:
    helps = ("such as bops=350k, size=2kB, lut=12k, area=4mm2, or a name of the cost table",)
    return reject("HQC001", f"budget {text!r}: {why}", helps=helps, exit_=Exit.USAGE)


def parse_candidates(text: str) -> tuple[int, ...]:
    """Candidate widths, ascending: "2..8", "4,6,8", or one number.

    Raises:
        HqcError: HQC001, another form; HQC107, a width below 2 or above 16.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part.strip())
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            helps = ("such as 2..8, 4,6,8 or 6",)
            raise reject("HQC001", f"bit widths {text!r} are not of a known form", helps=helps)
        found |= set(range(int(match[1]), min(int(match[2] or match[1]), MOST + 1) + 1))
    for width in (min(found), max(found)):
        _require_width(width, text)
    return tuple(sorted(found))


def parse_assignment(text: str, layers: Sequence[str], inputs: int) -> Bits:
    """Widths of all layers: "6", "6/8" (weights/activations), or "fc1=6/8,fc2=4".

    Args:
        text: what was written.
        layers: names of the layers.
        inputs: width of activations where the text says nothing of them.

    Raises:
        HqcError: HQC001, another form; HQC107, an impossible width, or a layer that is unknown,
            missing, or there twice.
    """
    if match := re.fullmatch(r"(\d+)(?:/(\d+))?", text.strip()):
        pair = _require_width(int(match[1]), text), _require_width(int(match[2] or inputs), text)
        return dict.fromkeys(layers, pair)
    found: dict[str, tuple[int, int]] = {}
    for part in text.split(","):
        given = _ASSIGNED.fullmatch(part.strip())
        if given is None:
            helps = ("such as 6, 6/8, or fc1=6/8,fc2=4/6: weights/activations by layer",)
            raise reject("HQC001", f"bit widths {text!r} are not of a known form", helps=helps)
        if given["layer"] in found:
            raise reject("HQC107", f"{given['layer']} has two bit widths in {text!r}")
        widths = int(given["weights"]), int(given["inputs"] or inputs)
        found[given["layer"]] = _require_width(widths[0], text), _require_width(widths[1], text)
    wrong = [*(n for n in found if n not in layers), *(n for n in layers if n not in found)]
    if wrong:
        why = "no such layer" if wrong[0] in found else "its width is missing"
        raise reject("HQC107", f"{wrong[0]}: {why}", helps=(f"layers: {', '.join(layers)}",))
    return {name: found[name] for name in layers}


def _require_width(width: int, text: str) -> int:
    if not LEAST <= width <= MOST:
        raise reject("HQC107", f"bit widths {text!r}: from {LEAST} to {MOST} are possible")
    return width


def bits_text(bits: Bits) -> str:
    """Widths in a line, weights/activations by layer."""
    return " ".join(f"{w}/{a}" for w, a in bits.values())


def bits_record(bits: Bits) -> dict[str, dict[str, int]]:
    """Widths as JSON values."""
    return {name: {"weights": w, "activations": a} for name, (w, a) in bits.items()}
