"""The executable definition of the layers against the nodes they were read from, with ==."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx_ir import Model
from support.backend_graphs import corner_codes, evaluate, zoo
from support.emulation_runs import assert_same
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

from hqc.analysis.partition import Partition
from hqc.backends.layers import Fork
from hqc.backends.layers.evaluate import evaluate as evaluate_layer
from hqc.backends.layers.evaluate import run, run_ports
from hqc.backends.layers.network import read_network
from hqc.numerics.types import FixedType

GRAPHS: dict[str, Callable[[], tuple[Model, Partition]]] = {
    "zoo": zoo,  # with sums of 70 bits
    "conv1d": lambda: convolutions(1, slice(None)),
    "conv2d": lambda: convolutions(2, slice(None, None, 3)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_layers_compute_what_the_nodes_say(name: str) -> None:
    model, parts = GRAPHS[name]()
    codes = corner_codes(parts, 60, 3)
    found = run_ports(read_network(model, parts), parts, codes)
    assert_same(found, evaluate(parts, codes), parts)


def test_every_layer_keeps_its_shape_and_its_type() -> None:
    model, parts = residual(np.random.default_rng(3))
    network = read_network(model, parts)
    x = np.zeros((2, *network.layer(network.inputs[0]).shape), np.int64)
    values = run(network, {network.inputs[0]: x})
    for layer in network.layers:
        assert values[layer.name].shape == (2, *layer.shape)
        limits = layer.result.limits
        assert limits.lo <= values[layer.name].min() <= values[layer.name].max() <= limits.hi


def test_what_is_no_array_has_no_definition() -> None:
    fork = Fork("f", ("x",), (2,), FixedType(True, 4, 4), copies=("a", "b"))
    with pytest.raises(TypeError, match="Fork has no definition"):
        evaluate_layer(fork, [np.zeros((1, 2), np.int64)], [FixedType(True, 4, 4)])
