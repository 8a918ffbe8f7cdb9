"""Predicted against measured: how much the loss rises when weights lose bits, without training.

Three predictions of the rise for random widths of the layers' weights:

* traces: half the mean trace of each layer's Hessian times |Q(w) - w|^2, HAWQ-V2's objective;
* diagonal: half d^T H d by layer for the errors d that the quantisers make;
* expansion: g^T d + half d^T H d over all layers at once, with the gradient g.

Measured is the loss of the network as it would be trained and compiled, quantisers calibrated on
the same samples, activations at 16 bits.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from trials import CANDIDATES, Widths, per_channel

from hqc.codesign.allocation import omega_table, weight_perturbations
from hqc.codesign.allocation.perturbation import gradient_table, interaction_table, weight_deltas
from hqc.codesign.costs import Table
from hqc.codesign.hessian import Samples, Weights, hessian_traces
from hqc.codesign.training import evaluate
from hqc.frontends.hawq.layers import Scheme
from hqc.frontends.hawq.wrap import quantize_model

ACTIVATION_BITS = 16


@dataclass(frozen=True)
class Prediction:
    """Rises of the loss by assignment.

    Attributes:
        widths: bits of weights by layer.
        measured: rises of the mean loss over the samples.
        predicted: the same by the name of the prediction.
        noise: magnitude of the rise at 16 bits everywhere, which is what is not about weights.
    """

    widths: tuple[Widths, ...]
    measured: tuple[float, ...]
    predicted: dict[str, tuple[float, ...]]
    noise: float

    def rank_correlation(self, name: str) -> float:
        """Spearman's coefficient of one prediction with what was measured."""
        from scipy.stats import spearmanr

        return float(spearmanr(self.predicted[name], self.measured).statistic)

    def ratio(self, name: str) -> float:
        """The median of predicted over measured, where what was measured is above the noise."""
        pairs = zip(self.predicted[name], self.measured, strict=True)
        found = [p / m for p, m in pairs if abs(m) > self.noise]
        return statistics.median(found) if found else math.nan


def predict(
    net: nn.Module,
    samples: Samples,
    layers: Sequence[str],
    *,
    count: int = 50,
    candidates: Sequence[int] = CANDIDATES,
    seed: int = 0,
) -> Prediction:
    """Draw `count` assignments of candidates to layers, predict and measure each."""
    source = random.Random(seed)
    widths = tuple({name: source.choice(candidates) for name in layers} for _ in range(count))
    tables = _tables(net, samples, dict.fromkeys(layers, candidates))
    predicted = {n: tuple(table.value(w) / 2 for w in widths) for n, table in tables.items()}
    base, _ = evaluate(net, [(samples.inputs[0], samples.targets)])
    noise = abs(_loss(net, samples, dict.fromkeys(layers, ACTIVATION_BITS)) - base)
    measured = tuple(_loss(net, samples, w) - base for w in widths)
    return Prediction(widths, measured, predicted, noise)


def _tables(
    net: nn.Module, samples: Samples, widths: Mapping[str, Sequence[int]]
) -> dict[str, Table]:
    """Twice the rise of the loss by layer and width, by the name of the prediction."""
    objective = Weights(net, nn.functional.cross_entropy, list(widths))
    deltas = weight_deltas(objective, widths, per_channel)
    moved = weight_perturbations(objective, widths, per_channel)
    forms = interaction_table(objective, samples, deltas)
    return {
        "traces": omega_table(hessian_traces(objective, samples), moved),
        "diagonal": Table(forms.single),
        "expansion": forms + gradient_table(objective, samples, deltas),
    }


@torch.no_grad()  # type: ignore[untyped-decorator]
def _loss(net: nn.Module, samples: Samples, widths: Widths) -> float:
    """The loss with quantisers that found their ranges on these samples."""
    bits = {name: (width, ACTIVATION_BITS) for name, width in widths.items()}
    model = quantize_model(net, bits, Scheme(per_channel=True)).train()
    model(samples.inputs[0])
    loss, _ = evaluate(model, [(samples.inputs[0], samples.targets)])
    return float(loss)


def plot(found: Prediction, names: Sequence[str] = ("traces", "expansion")) -> Any:
    """Predicted against measured rises, both axes logarithmic; a matplotlib figure.

    Rises that are not positive cannot be shown and are left out of the figure alone.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 4.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for name, colour in zip(names, ("#8a8f98", "#1f5f99"), strict=False):
        label = f"{name}: rank correlation {found.rank_correlation(name):.2f}"
        axes.plot(found.measured, found.predicted[name], "o", ms=4, color=colour, label=label)
    low, high = 1e-4, 2 * max(found.measured)
    axes.plot((low, high), (low, high), color="#e3e5e8", zorder=0)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, 3 * high))
    axes.set(xlabel="measured rise of the loss", ylabel="predicted")
    axes.legend(frameon=False, fontsize=8)
    return figure
