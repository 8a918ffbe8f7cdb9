"""Scikit-learn's digits (8 x 8, from 0 to 1), and a short training on them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

#: Samples of the training part; the rest are for tests.
TRAINED_ON = 1400

Part = tuple[Tensor, Tensor]


def digits() -> tuple[Part, Part]:
    """Images (N, 1, 8, 8) and classes (N,), to train on and to test on."""
    datasets = pytest.importorskip("sklearn.datasets")
    found = datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images = torch.tensor(np.float32(found.data[order] / 16).reshape(-1, 1, 8, 8))
    classes = torch.tensor(found.target[order])
    return (
        (images[:TRAINED_ON], classes[:TRAINED_ON]),
        (images[TRAINED_ON:], classes[TRAINED_ON:]),
    )


def train(net: nn.Module, epochs: int, rate: float = 0.01) -> nn.Module:
    """Train to classify digits; the module in eval mode."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small batches: threads would wait for each other
    (images, classes), _ = digits()
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    net.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(images[rows]), classes[rows]).backward()
            optimiser.step()
    torch.set_num_threads(threads)
    return net.eval()


def accuracy(outputs: np.ndarray) -> float:
    """Share of the test part whose largest output (N, 10) is the right class."""
    _, (_, classes) = digits()
    return float((outputs.argmax(axis=1) == classes.numpy()).mean())
