"""The executable definition of the layers against the nodes they were read from, with ==."""

from __future__ import annotations

import numpy as np
import pytest
from support.backend_graphs import corner_codes, evaluate
from support.emulation_runs import assert_same
from support.layer_graphs import GRAPHS
from support.tensor_graphs import residual

from hqc.backends.layers import Fork
from hqc.backends.layers.evaluate import evaluate as evaluate_layer
from hqc.backends.layers.evaluate import run, run_ports
from hqc.backends.layers.network import read_network
from hqc.numerics.types import FixedType


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
