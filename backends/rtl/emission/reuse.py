"""Which blocks take several cycles per sample, so that fewer copies of their logic stand.

With a reuse factor of R, a sample may enter every R cycles, and a block whose circuit stands at
P places has ceil(P / R) copies of it that go through the places. It holds its inputs and results
in registers and selects among them, so a block whose logic is small stays unrolled.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hqc.backends.rtl.circuit import Circuit, Product, width_of
from hqc.backends.rtl.cost import luts
from hqc.backends.rtl.design import Block, Design

#: A six-input table adds three inputs to a multiplexer, and holds 64 constants.
_SELECTED, _CONSTANTS = 3, 64


def area(circuit: Circuit) -> float:
    """Estimated look-up tables: of a product two per pair of bits, as synthesis makes of it."""
    ranges = circuit.ranges
    products = (op for op in circuit.ops if isinstance(op, Product))
    return luts(circuit) + sum(width_of(ranges[p.x]) * width_of(ranges[p.y]) for p in products)


def steps_of(design: Design, factor: int) -> dict[str, int]:
    """Cycles that each block takes: at most the factor, 1 where it is unrolled."""
    found = {}
    for block in design.blocks:
        plain = len(block.index) * area(block.circuit)
        found[block.name] = _steps(block, factor) if cost(block, factor) < plain else 1
    return found


def copies_of(block: Block, steps: Mapping[str, int]) -> int:
    """How many of the block's circuits stand."""
    return -(-len(block.index) // steps[block.name])


def cost(block: Block, factor: int) -> float:
    """Estimated look-up tables of a block that goes through its places, selection included."""
    steps = _steps(block, factor)
    if steps == 1:
        return len(block.index) * area(block.circuit)
    first = int(block.index.max(initial=0)) + 1 - len(block.constants)
    selected = 0.0
    for column, bounds in zip(block.index.T, block.circuit.inputs, strict=True):
        numbers = bool(np.all((column < 0) | (column >= first)))
        per_bit = steps / _CONSTANTS if numbers else (steps - 1) / _SELECTED
        selected += 0.0 if np.all(column == column[0]) else width_of(bounds) * per_bit
    return -(-len(block.index) // steps) * (area(block.circuit) + selected)


def _steps(block: Block, factor: int) -> int:
    copies = -(-len(block.index) // factor)
    return -(-len(block.index) // copies)
