"""The hardware layers: a typed, frozen form of a network, its meaning, and how it is read.

No target is known here; every backend starts from this list.
"""

from __future__ import annotations

from hqc.backends.layers.backend import LayerBackend
from hqc.backends.layers.layers import (
    CONSTANT_BITS,
    OVERFLOWS,
    ROUNDINGS,
    Activation,
    Constant,
    Conv,
    Dense,
    Fork,
    Input,
    Layer,
    MaxPool,
    Merge,
    Network,
    Rearrange,
    Requantise,
    Sliding,
    Table,
    Threshold,
    accumulator,
)
from hqc.backends.layers.layout import from_hardware, to_hardware
from hqc.backends.layers.network import OPERATORS, read_network

__all__ = [
    "Activation",
    "CONSTANT_BITS",
    "Constant",
    "Conv",
    "Dense",
    "Fork",
    "Input",
    "Layer",
    "LayerBackend",
    "MaxPool",
    "Merge",
    "Network",
    "OPERATORS",
    "OVERFLOWS",
    "ROUNDINGS",
    "Rearrange",
    "Requantise",
    "Sliding",
    "Table",
    "Threshold",
    "accumulator",
    "from_hardware",
    "read_network",
    "to_hardware",
]
