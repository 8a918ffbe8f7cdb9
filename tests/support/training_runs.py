"""Nets, data and arguments of a few hundred weights, for the tests of the training commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hqc.frontends.torch_export.program_files import load_program
from support.small_model import Ended

MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.act = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU()
        self.fc2 = nn.Linear(12, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        x = self.act(self.norm(self.fc1(x)))
        return self.out(torch.relu(self.fc2(x)))

def broken():
    missing = {}
    return missing["layer"]

def number():
    return 3

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc1(x) if x.sum() > 0 else x

def nan():
    net = Net()
    net.out.bias.data[0] = float("nan")
    return net
"""
DATA = """
import torch
from torch import nn
from hqc.codesign.training.loop import Batches

def make(n, seed):
    x = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x @ torch.arange(18.0).sin().reshape(6, 3)).argmax(1)

def data():
    return Batches(*make(600, 1)), Batches(*make(200, 2))

def loader():
    x, y = make(64, 1)
    return list(zip(x.split(16), y.split(16))), None

def empty():
    return [], []

def fails():
    yield torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64)
    raise OSError("disk on fire")
"""
QUANTIZE = ("quantize", "nets.py:Net", "--data", "sets.py:data", "-o", "out.pt")
SHORT = ("--float-epochs", "3", "--float-lr", "1e-2", "--epochs", "3", "--lr", "3e-3")
BUDGET = ("--budget", "bops=12k")


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(MODELS)
    (tmp_path / "sets.py").write_text(DATA)


def document(ended: Ended) -> Any:
    return json.loads(ended.out)["result"]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_program(path).state_dict)


def mlp() -> nn.Module:
    """Three layers and a batch norm."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Linear(10, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )
