"""What a zoo model is: something that hqc loads, and what the original computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hqc.ir import Array


@dataclass(frozen=True)
class Source:
    """A model as its tool leaves it.

    Attributes:
        model: what `hqc.load` and `hqc.compile` take.
        floats: the original in its own float32, (N, ...) to (N, ...); None where nothing runs it.
        keywords: for `hqc.load`: the example inputs of a module, or the HAWQ model.
        samples: inputs (N, ...) that the model was made for.
    """

    model: object
    floats: Callable[[Array], Array] | None = None
    keywords: dict[str, Any] = field(default_factory=dict)
    samples: Array | None = None


def of_module(net: nn.Module, *shape: int, samples: Array | None = None) -> Source:
    """A PyTorch module in eval mode whose input is (N, *shape)."""
    net.eval()

    def floats(x: Array) -> Array:
        with torch.no_grad():
            found = net(torch.tensor(np.asarray(x, np.float32)))
        return np.asarray(getattr(found, "value", found))

    return Source(net, floats, {"example_inputs": torch.zeros(2, *shape)}, samples)


def settle(net: nn.Module, batches: list[Tensor], seed: int) -> nn.Module:
    """Ranges and batch statistics from a few batches, and batch norms that do something."""
    torch.manual_seed(seed)
    for m in net.modules():
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.3)
    net.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)
    return net.eval()
