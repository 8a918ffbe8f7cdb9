"""Numbers as people read them."""

from __future__ import annotations

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"))


def amount(value: float) -> str:
    """A number in at most six digits: grouped from 1000, in millions and so on from there."""
    for unit, letter in _LARGE:
        if abs(value) >= unit:
            return f"{value / unit:.3g} {letter}"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def scales_text(per_channel: bool, power_of_two: bool) -> str:
    """Scales in words."""
    kind = "powers of two" if power_of_two else "free"
    return f"{kind}, per {'channel' if per_channel else 'layer'} for weights"
