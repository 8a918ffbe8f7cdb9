"""What bit widths cost: bit operations, bits of weights, LUTs and area, as tables per knob.

A cost is a function from a network to a table; choosing from tables is `hqc.codesign.allocation`.
"""

from __future__ import annotations

from hqc.codesign.costs.lut_cost import AreaCost, LutCost
from hqc.codesign.costs.providers import COSTS
from hqc.codesign.costs.tables import Table, bops_table, shapes_of

__all__ = ["AreaCost", "COSTS", "LutCost", "Table", "bops_table", "shapes_of"]
