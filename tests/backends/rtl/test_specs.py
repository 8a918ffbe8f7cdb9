"""What proofs take for the meaning of layers, against the layers' executable definition."""

from __future__ import annotations

import numpy as np
import pytest
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

from hqc.backends.layers import Input
from hqc.backends.layers.evaluate import run
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.proof.specs import (
    PADDING,
    Linear,
    Maximum,
    Spec,
    Times,
    Unary,
    assigned,
    spec_of,
)
from hqc.numerics.types import Codes

GRAPHS = {
    "conv1d": lambda: convolutions(1, slice(None)),
    "conv2d": lambda: convolutions(2, slice(None, None, 3)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}


def computed(spec: Spec, given: Codes) -> Codes:
    """Results (N, elements) of a description, for its sources side by side."""
    filled = np.append(given, np.zeros((len(given), 1), np.int64), axis=1)
    taps = filled[:, spec.reads]  # padding reads the 0 behind the sources
    match spec:
        case Linear():
            total = taps.astype(object) @ spec.weight + spec.bias
            return assigned(
                total.astype(np.int64).reshape(len(given), -1), spec.fraction, spec.result
            )
        case Unary():
            columns = [
                np.full(len(given), spec.padding)
                if spec.reads[e, 0] == PADDING
                else spec.functions[spec.keys[e]](taps[:, e, 0])
                for e in range(len(spec.reads))
            ]
            return np.stack(columns, axis=1)
        case Maximum():
            assert np.all(spec.reads != PADDING)
            return assigned(taps.max(axis=2), spec.fraction, spec.result)
        case Times():
            return assigned(taps.prod(axis=2), spec.fraction, spec.result)
    raise TypeError(spec)


@pytest.mark.parametrize("name", GRAPHS)
def test_descriptions_compute_what_the_layers_do(name: str) -> None:
    network = read_network(*GRAPHS[name]())
    rng = np.random.default_rng(5)
    inputs = {}
    for name_ in network.inputs:
        layer = network.layer(name_)
        limits = layer.result.limits
        inputs[name_] = rng.integers(limits.lo, limits.hi + 1, (30, *layer.shape))
    values = {name_: held.reshape(30, -1) for name_, held in run(network, inputs).items()}
    for layer in network.layers:
        if isinstance(layer, Input):
            continue
        sources = [network.layer(source) for source in layer.sources]
        spec = spec_of(layer, [s.result for s in sources], [s.size for s in sources])
        given = np.concatenate([values[source] for source in layer.sources], axis=1)
        np.testing.assert_array_equal(computed(spec, given), values[layer.name])


def test_what_is_written_as_a_sum_too_is_the_same_function() -> None:
    network = read_network(*together(elementwise, movements))
    codes = np.arange(-200, 200)
    for layer in network.layers:
        if isinstance(layer, Input):
            continue
        sources = [network.layer(source) for source in layer.sources]
        spec = spec_of(layer, [s.result for s in sources], [s.size for s in sources])
        if not isinstance(spec, Unary) or not spec.linear:
            continue
        for key in set(spec.keys.tolist()) - {PADDING}:
            factor, offset, fraction = spec.linear[key]
            want = assigned(codes * factor + offset, fraction, spec.result)
            np.testing.assert_array_equal(spec.functions[key](codes), want)
