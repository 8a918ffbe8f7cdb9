"""Which bit widths: the least disturbance of the loss within budgets, as an integer program.

Plans are made here, before any training with quantisers.
"""

from __future__ import annotations

from hqc.codesign.allocation.perturbation import omega_table, weight_perturbations
from hqc.codesign.allocation.problem import Allocation, Problem, front, solve
from hqc.codesign.allocation.schemes import schemes_of

__all__ = [
    "Allocation",
    "Problem",
    "front",
    "omega_table",
    "schemes_of",
    "solve",
    "weight_perturbations",
]
