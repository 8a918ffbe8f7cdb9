"""Traces of Fisher matrices: first derivatives only.

With labels of the *data*, the trace is the mean over samples of the squared norm of the gradient:
FIT (Zandonati et al., arXiv:2210.08502). It stands in for the Hessian near a minimum.

With labels of the *model*, it is the mean over samples of sum_c p_c |grad log p_c|^2 for the
probabilities p of the network's own logits. That is the trace of the Gauss-Newton matrix of the
cross entropy, and equals the layer's Hessian trace *exactly* where the logits are a piecewise
linear function of the layer (rectifiers, or no activations, after it), without any probe.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

from hqc.codesign.hessian.objective import Objective, Point, Samples, checked
from hqc.diagnostics import Exit, reject

#: Elements of per-sample gradients held at a time.
_MOST_ELEMENTS = 1 << 22
_Squares = Callable[[tuple[Tensor, ...], Tensor], Tensor]


def fisher(objective: Objective, samples: Samples, labels: str) -> tuple[list[float], list[float]]:
    """Traces, and their standard errors over the choice of samples, by layer.

    Raises:
        HqcError: HQC001, unknown labels; HQC610, a model or loss that it cannot be done with.
    """
    if labels not in {"data", "model"}:
        helps = ("one of data, model",)
        raise reject("HQC001", f"unknown labels {labels!r}", helps=helps, exit_=Exit.USAGE)
    with checked(objective, samples):
        one = samples.part(0, 1)
        point = objective.point(one)
        width = _classes(objective, point, one) if labels == "model" else 1
        squares = (_of_model if labels == "model" else _of_data)(objective, point)
        elements = width * sum(v.numel() for v in point.values())
        found = []
        for part in samples.batches(max(1, _MOST_ELEMENTS // elements)):
            alone = part.grouped(len(part), 1)
            found.append(vmap(squares)(alone.inputs, alone.targets).double())
    values = torch.cat(found)
    count = len(values)
    spread = values.std(dim=0) if count > 1 else torch.full(values.shape[1:], math.inf)
    return values.mean(dim=0).tolist(), (spread / math.sqrt(count)).tolist()


def _classes(objective: Objective, point: Point, one: Samples) -> int:
    with torch.no_grad():
        outputs = objective.outputs(point, one.inputs)
    if not isinstance(outputs, Tensor) or outputs.dim() != 2:
        raise reject("HQC610", "the model's own labels take logits (N, classes) as its output")
    return int(outputs.shape[1])


def _of_data(objective: Objective, point: Point) -> _Squares:
    def squares(inputs: tuple[Tensor, ...], targets: Tensor) -> Tensor:
        slope: Point = grad(objective.loss)(point, inputs, targets)
        return torch.stack([slope[name].square().sum() for name in objective.names])

    return squares


def _of_model(objective: Objective, point: Point) -> _Squares:
    def squares(inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        def log_probabilities(at: Point) -> tuple[Tensor, Tensor]:
            found = torch.log_softmax(objective.outputs(at, inputs)[0], dim=0)
            return found, found

        rows, logs = jacrev(log_probabilities, has_aux=True)(point)
        norms = [rows[name].square().flatten(1).sum(dim=1) for name in objective.names]
        return (torch.stack(norms) * logs.exp()).sum(dim=1)

    return squares
