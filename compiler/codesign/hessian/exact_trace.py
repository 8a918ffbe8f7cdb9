"""Exact traces of Hessian blocks, one Hessian-vector product per element: the oracle in tests."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from hqc.codesign.hessian.objective import Objective, Point, Samples, checked

_AT_ONCE = 256


def exact(objective: Objective, samples: Samples) -> list[float]:
    """Sum of e_i^T H e_i over the unit vectors of each layer, in the order of the names.

    Raises:
        HqcError: HQC610, a loss without second derivatives.
    """
    with checked(objective, samples):
        point = objective.point(samples)
        return [_trace(objective, samples, point, name) for name in objective.names]


def _trace(objective: Objective, samples: Samples, point: Point, name: str) -> float:
    others = {other: value for other, value in point.items() if other != name}

    def slope(value: Tensor) -> Tensor:
        moved: Point = grad(objective.loss)(
            {**others, name: value}, samples.inputs, samples.targets
        )
        return moved[name]

    _, pull = vjp(slope, point[name])

    def element(unit: Tensor) -> Tensor:
        return (unit * pull(unit)[0]).sum()

    size = point[name].numel()
    total = 0.0
    for start in range(0, size, _AT_ONCE):
        stop = min(start + _AT_ONCE, size)
        units = torch.zeros(stop - start, size).to(point[name])
        units[torch.arange(stop - start), torch.arange(start, stop)] = 1
        found = vmap(element)(units.reshape(stop - start, *point[name].shape))
        total += float(found.double().sum())
    return total
