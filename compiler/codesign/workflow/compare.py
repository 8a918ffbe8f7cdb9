"""Accuracies of the nets on a front before any training: how far the choice itself carries."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from hqc.codesign.allocation.plan import Plan
from hqc.codesign.training.datasets import Dataset
from hqc.codesign.training.loop import evaluate
from hqc.frontends.hawq.layers import Scheme, freeze
from hqc.frontends.hawq.wrap import quantize_model

_BATCH = 4096


def spread(points: Sequence[Plan], most: int = 24) -> list[Plan]:
    """At most so many of the points, evenly, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def untrained_accuracy(model: nn.Module, plan: Plan, data: Dataset, scheme: Scheme) -> float:
    """Accuracy of a float model with quantisers that have seen the training data once.

    On the validation samples, or the training ones where there are no others.
    """
    net = quantize_model(model, dict(plan.bits), scheme)
    freeze(net, ranges=False)
    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    with torch.no_grad():
        for x in data.x.split(_BATCH):
            net(x)
    _, accuracy = evaluate(net.eval(), data.valid_batches(_BATCH) or data.batches(_BATCH))
    return float(accuracy)
