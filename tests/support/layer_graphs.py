"""Graphs that hold every layer between them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx_ir import Model

from hqc.analysis.partition import Partition
from support.backend_graphs import zoo
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

GRAPHS: dict[str, Callable[[], tuple[Model, Partition]]] = {
    "zoo": zoo,  # with sums of 70 bits
    "conv1d": lambda: convolutions(1, slice(None)),
    "conv2d": lambda: convolutions(2, slice(None, None, 3)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}
