"""The jet tagger whose bit operations are published, layer by layer."""

from __future__ import annotations

from hqc.codesign.costs.tables import PUBLISHED_INPUT_BITS, Shape

SHAPES = (*(Shape("fc1", 64, 16), Shape("fc2", 32, 64), Shape("fc3", 32, 32), Shape("fc4", 5, 32)),)
NAMES = tuple(shape.name for shape in SHAPES)
WIDTHS = {name: range(4, 9) for name in NAMES}
UNCOUPLED = {"fc1": PUBLISHED_INPUT_BITS, "fc2": "fc2", "fc3": "fc3", "fc4": "fc4"}
COUPLED = {"fc1": PUBLISHED_INPUT_BITS, "fc2": "fc1", "fc3": "fc2", "fc4": "fc3"}


def at(*bits: int) -> dict[str, int]:
    return dict(zip(NAMES, bits, strict=True))
