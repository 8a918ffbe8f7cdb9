"""How far quantisers move weights and activations: |Q(w) - w|^2 by layer and width.

The quantisers are those that training and the compiler use, with the ranges that they find
themselves, not a model of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad

from hqc.codesign.costs.tables import Table, candidates
from hqc.codesign.hessian.lanczos import HessianProduct
from hqc.codesign.hessian.objective import Activations, Point, Samples, Weights, checked
from hqc.codesign.hessian.sensitivity import Sensitivity
from hqc.diagnostics import reject
from hqc.frontends.torch import ActQuant, WeightQuant

Widths = Mapping[str, Iterable[int]]
#: A quantiser of weights of some width.
MakeWeight = Callable[[int], nn.Module]
#: A quantiser of activations of some width, signed or not, that finds its range in training mode.
MakeActivation = Callable[[int, bool], nn.Module]


def weight_deltas(
    objective: Weights, widths: Widths, quantiser: MakeWeight = WeightQuant
) -> dict[str, dict[int, Tensor]]:
    """Q(w) - w by layer and width.

    Args:
        objective: names the layers.
        widths: candidates for each layer.
        quantiser: makes a module that quantises a weight tensor; for a scale per channel,
            `partial(WeightQuant, per_channel=True)`.

    Raises:
        HqcError: HQC612, a layer without candidates.
    """
    point = objective.point(Samples((), torch.empty(0)))
    found: dict[str, dict[int, Tensor]] = {}
    with torch.no_grad():
        for name, weight in point.items():
            bits = candidates(widths, name)
            found[name] = {b: quantiser(b).eval()(weight) - weight for b in bits}
    return found


def weight_perturbations(
    objective: Weights, widths: Widths, quantiser: MakeWeight = WeightQuant
) -> dict[str, dict[int, float]]:
    """|Q(w) - w|^2 by layer and width; arguments and errors as for `weight_deltas`."""
    return {
        name: {bits: float(delta.double().square().sum()) for bits, delta in column.items()}
        for name, column in weight_deltas(objective, widths, quantiser).items()
    }


def _act_quant(bits: int, signed: bool) -> nn.Module:
    return ActQuant(bits, signed=signed)


def activation_perturbations(
    objective: Activations,
    data: Samples | Iterable[Any] | tuple[Any, Tensor],
    widths: Widths,
    quantiser: MakeActivation = _act_quant,
) -> dict[str, dict[int, float]]:
    """The mean over samples of |Q(a) - a|^2 by layer and width.

    Args:
        objective: names the layers, and the side of them.
        data: samples; quantisers find their ranges on all of them.
        widths: candidates for each layer.
        quantiser: called with the width, and whether activations are ever negative.

    Raises:
        HqcError: HQC612, a layer without candidates; HQC610, a layer that runs several times.
    """
    samples = data if isinstance(data, Samples) else Samples.of(data)
    with checked(objective, samples):
        values = objective.values(samples)
    found: dict[str, dict[int, float]] = {}
    with torch.no_grad():
        for name, value in values.items():
            signed = bool((value < 0).any())
            found[name] = {}
            for bits in candidates(widths, name):
                module = quantiser(bits, signed).train()
                module(value)
                moved = (module.eval()(value) - value).double().square().sum()
                found[name][bits] = float(moved) / len(samples)
    return found


def omega_table(
    sensitivity: Sensitivity,
    perturbations: Mapping[str, Mapping[int, float]],
    *,
    suffix: str = "",
) -> Table:
    """HAWQ's objective: the sum over layers of the mean trace times the perturbation.

    It is twice the rise of the loss that is expected of errors without correlation (HAWQ-V2,
    arXiv:1911.03852, eq. 8). Negative traces, which say nothing about errors of finite size, count
    as zero.

    Args:
        sensitivity: traces by layer; the mean trace is the trace per element.
        perturbations: |Q(w) - w|^2 by layer and width.
        suffix: appended to layers to name their knobs: ".input" for activations.

    Raises:
        HqcError: HQC612, a layer without perturbations.
    """
    single = {}
    for layer in sensitivity.layers:
        if layer.name not in perturbations:
            raise reject("HQC612", f"no perturbations are given for {layer.name}")
        weight = max(layer.mean, 0.0)
        column = perturbations[layer.name]
        single[f"{layer.name}{suffix}"] = {bits: weight * p for bits, p in column.items()}
    return Table(single)


def interaction_table(
    objective: Weights, samples: Samples, deltas: Mapping[str, Mapping[int, Tensor]]
) -> Table:
    """The quadratic form d^T H d of the very errors d, with terms between layers.

    In place of the expectation over uncorrelated errors this takes the errors that the quantisers
    make, at one Hessian-vector product per layer and width, and keeps the cross terms that a sum
    over layers leaves out (as CLADO does, arXiv:2307.05657, from differences of losses). On the
    scale of `omega_table`: twice the rise of the loss, to second order.

    Raises:
        HqcError: HQC610, a loss without second derivatives; HQC612, a layer without deltas.
    """
    _require_deltas(objective, deltas)
    point = objective.point(samples)
    keys = [(name, bits) for name in objective.names for bits in deltas[name]]
    rows = [
        torch.cat([(deltas[n][b] if n == m else 0 * w).flatten() for m, w in point.items()])
        for n, b in keys
    ]
    with checked(objective, samples):
        vectors = torch.stack(rows).double()
        forms = (vectors @ HessianProduct(objective, samples)(vectors).T).tolist()
    single: dict[str, dict[int, float]] = {name: {} for name in objective.names}
    joint: dict[tuple[str, ...], dict[tuple[int, ...], float]] = {}
    order = {name: i for i, name in enumerate(objective.names)}
    for i, (a, wide_a) in enumerate(keys):
        single[a][wide_a] = forms[i][i]
        for j, (b, wide_b) in enumerate(keys):
            if order[a] < order[b]:
                joint.setdefault((a, b), {})[wide_a, wide_b] = forms[i][j] + forms[j][i]
    return Table(single, joint)


def gradient_table(
    objective: Weights, samples: Samples, deltas: Mapping[str, Mapping[int, Tensor]]
) -> Table:
    """Twice g^T d, for the gradient g of the loss and the very errors d that the quantisers make.

    To be added to `interaction_table`, on its scale: together they are twice the rise of the loss
    to second order. Training that stops anywhere but in a minimum of these very samples' loss
    leaves a gradient, and then small errors raise or lower the loss mainly by it.

    Raises:
        HqcError: HQC610, a loss that cannot be differentiated; HQC612, a layer without deltas.
    """
    _require_deltas(objective, deltas)
    with checked(objective, samples):
        point = objective.point(samples)
        slope: Point = grad(objective.loss)(point, samples.inputs, samples.targets)
    return Table(
        {
            name: {
                bits: 2.0 * float((slope[name].double() * delta.double()).sum())
                for bits, delta in deltas[name].items()
            }
            for name in objective.names
        }
    )


def _require_deltas(objective: Weights, deltas: Mapping[str, Mapping[int, Tensor]]) -> None:
    missing = [name for name in objective.names if not deltas.get(name)]
    if missing:
        raise reject("HQC612", f"no deltas are given for {missing[0]}")
