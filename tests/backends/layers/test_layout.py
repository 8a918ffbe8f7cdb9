"""The order of elements in hardware, and rearrangements that vanish, without a compiler."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Value
from support.backend_graphs import Builder, corner_codes, evaluate, signed, unsigned
from support.tensor_graphs import movements, together

from hqc.analysis.rearrangements import Rearrangement
from hqc.backends.layers import Conv, Dense, Network, Rearrange
from hqc.backends.layers.layout import (
    from_hardware,
    hardware_index,
    hardware_shape,
    simplify,
    to_hardware,
)
from hqc.backends.layers.network import read_network

shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def kinds(network: Network) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


# --- layout ---------------------------------------------------------------------------------


def test_channels_come_last_in_hardware() -> None:
    batch = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    held = to_hardware(batch)
    assert held.shape[1:] == hardware_shape((3, 4, 5)) == (4, 5, 3)
    assert held[1, 2, 3, 0] == batch[1, 0, 2, 3]


@given(shapes, st.integers(0, 3))
def test_samples_come_back_from_hardware_as_they_were(shape: tuple[int, ...], count: int) -> None:
    batch = np.arange(count * math.prod(shape)).reshape(count, *shape)
    assert np.array_equal(
        from_hardware(to_hardware(batch).reshape(count, math.prod(shape)), shape), batch
    )


@given(st.lists(shapes, min_size=1, max_size=3), st.data())
def test_an_index_means_the_same_in_hardware(given_: list[tuple[int, ...]], data: Any) -> None:
    out = data.draw(shapes)
    total = sum(math.prod(s) for s in given_)
    picks = st.lists(st.integers(-1, total - 1), min_size=math.prod(out), max_size=math.prod(out))
    index = np.array(data.draw(picks), np.int64).reshape(out)
    samples = [np.random.default_rng(1).integers(0, 99, (2, *s)) for s in given_]
    flat = np.concatenate([s.reshape(2, -1) for s in samples] + [np.full((2, 1), -7)], axis=1)
    held = [to_hardware(s).reshape(2, -1) for s in samples] + [np.full((2, 1), -7)]
    moved = np.concatenate(held, axis=1)[:, hardware_index(Rearrangement((), index), given_)]
    assert np.array_equal(from_hardware(moved, out), flat[:, index])


# --- simplification -------------------------------------------------------------------------


def one_input(shape: tuple[int, ...]) -> tuple[Builder, Value]:
    b = Builder()
    return b, b.input("x", shape, signed(5, 2))


def test_transposes_that_cancel_leave_nothing() -> None:
    b, x = one_input((3, 4, 5))
    there = b.move("Transpose", x, perm=[0, 2, 3, 1])
    back = b.move("Transpose", there, perm=[0, 3, 1, 2])
    network = read_network(*b.finish(b.relu(back)))
    assert kinds(network) == ["Input", "Activation"]


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 3, 5), (4, 1)])
def test_flattening_without_channels_or_pixels_is_free(shape: tuple[int, ...]) -> None:
    b, x = one_input(shape)
    network = read_network(*b.finish(b.relu(b.move("Flatten", x))))
    assert kinds(network) == ["Input", "Activation"]


def test_a_permutation_before_a_matrix_becomes_one_of_its_rows() -> None:
    b, x = one_input((2, 3, 2))
    weight = np.arange(24).reshape(12, 2)
    flat = b.move("Flatten", x)
    network = read_network(*b.finish(b.matmul(flat, weight, unsigned(5, 5)), b.relu(flat)))
    assert kinds(network) == ["Input", "Rearrange", "Dense", "Activation"]
    dense = network.layers[2]
    assert isinstance(dense, Dense)
    assert dense.sources == network.inputs
    rows = to_hardware(np.arange(12).reshape(1, 2, 3, 2)).ravel()
    assert np.array_equal(dense.weight.codes, weight[rows])


def test_a_selection_before_a_matrix_stays() -> None:
    b, x = one_input((2, 3, 2))
    half = b.move("Flatten", b.move("Slice", x, ints(0), ints(1), ints(1)))
    network = read_network(*b.finish(b.matmul(half, np.ones((6, 2), int), unsigned(1, 1))))
    assert kinds(network) == ["Input", "Rearrange", "Dense"]


def test_a_bias_on_a_reshaped_convolution_is_still_its_bias() -> None:
    b, x = one_input((2, 3, 3))
    c = b.conv(x, np.ones((4, 2, 3, 3), int), signed(3, 3), kernel_shape=[3, 3])
    flat = b.move("Flatten", c)
    biased = b.add(flat, np.arange(4), signed(4, 4))
    network = read_network(*b.finish(b.quant(biased, signed(6, 5))))
    assert kinds(network) == ["Input", "Conv"]
    conv = network.layers[1]
    assert isinstance(conv, Conv)
    assert conv.bias.codes.tolist() == [0, 1, 2, 3]


def test_rearrangements_of_rearrangements_become_one() -> None:
    b, x = one_input((4, 6))
    wide = b.move("Reshape", x, ints(0, 2, 2, 6))
    turned = b.move("Transpose", wide, perm=[0, 2, 1, 3])
    joined = b.move("Concat", b.move("Reshape", turned, ints(0, 4, 6)), x, axis=2)
    network = read_network(*b.finish(b.relu(joined)))
    assert kinds(network) == ["Input", "Rearrange", "Activation"]
    assert network.layers[1].sources == network.inputs  # one source, though it is joined twice


def test_fills_of_one_value_are_joined_and_others_are_not() -> None:
    def padded(outer: float) -> list[str]:
        b, x = one_input((2, 5))
        inner = b.move("Pad", x, ints(0, 0, 1, 0, 0, 0), np.array(0.5))
        both = b.move("Pad", inner, ints(0, 0, 0, 0, 0, 2), np.array(outer))
        return kinds(read_network(*b.finish(b.relu(both))))

    assert padded(0.5) == ["Input", "Rearrange", "Activation"]
    assert padded(0.25) == ["Input", "Rearrange", "Rearrange", "Activation"]


def test_more_than_two_sources_are_joined_in_a_chain() -> None:
    b, x = one_input((2, 5))
    parts = [x, b.relu(x), b.quant(x, signed(3, 2)), b.quant(x, signed(2, 2))]
    network = read_network(*b.finish(b.move("Concat", *parts, axis=1)))
    assert kinds(network).count("Rearrange") == 3
    assert all(len(layer.sources) <= 2 for layer in network.layers)


def moves(b: Builder, x: Value) -> list[Value]:
    """Rearrangements that a value of this shape can go through."""
    dims = [int(d) for d in list(x.shape or ())[1:]]
    axes = list(range(1, len(dims) + 1))
    found = [
        b.move("Transpose", x, perm=[0, *axes[::-1]]),
        b.move("Transpose", x, perm=[0, *axes[1:], axes[0]]),
        b.move("Flatten", x),
        b.move("Unsqueeze", x, ints(len(dims) + 1)),
        b.move("Gather", x, ints(dims[-1] - 1, 0), axis=len(dims)),
        b.move("Pad", x, ints(0, 1, *[0] * (2 * len(dims) - 1), 1), np.array(0.5)),
        b.move("Concat", x, b.move("Slice", x, ints(0), ints(1), ints(1)), axis=1),
    ]
    return found if len(dims) < 4 else found[:3]


def interpret(network: Network, codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The layers of a network without arithmetic, on flat codes in hardware order."""
    known: dict[str, np.ndarray] = {}
    for name, array in zip(network.inputs, codes.values(), strict=True):
        known[name] = to_hardware(array).reshape(len(array), -1)
    for layer in network.layers[len(network.inputs) :]:
        sources = [known[name] for name in layer.sources]
        if isinstance(layer, Rearrange):
            assert layer.sizes == tuple(network.layer(name).size for name in layer.sources)
            fill = np.full((len(sources[0]), 1), layer.fill)
            known[layer.name] = np.concatenate([*sources, fill], axis=1)[:, layer.index]
        elif isinstance(layer, Dense):
            known[layer.name] = sources[0] @ layer.weight.codes
        else:
            known[layer.name] = sources[0]
        assert known[layer.name].shape[1] == layer.size
    return known


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.booleans(), shapes)
def test_any_chain_of_rearrangements_keeps_its_meaning(
    chosen: list[int], dense: bool, shape: tuple[int, ...]
) -> None:
    b, x = one_input(shape)
    last = x
    for pick in chosen:
        able = moves(b, last)
        last = able[pick % len(able)]
    if dense:
        flat = b.move("Flatten", last)
        size = int(list(flat.shape or ())[1])
        last = b.matmul(flat, np.arange(2 * size).reshape(size, 2), unsigned(16, 16))
    model, parts = b.finish(last)
    network = read_network(model, parts)
    codes = corner_codes(parts, 5, 1)
    got = interpret(network, codes)[network.outputs[0]]
    port = parts.outputs[0]
    assert np.array_equal(from_hardware(got, port.shape), evaluate(parts, codes)[port.name])
    plain = [layer for layer in network.layers if isinstance(layer, Rearrange)]
    assert len(plain) <= 1  # one fill value: everything in a row is one rearrangement


def test_simplifying_twice_changes_nothing() -> None:
    network = read_network(*together(movements))
    layers, alias = simplify(network.layers, network.outputs)
    assert [layer.name for layer in layers] == [layer.name for layer in network.layers]
    assert all(name == into for name, into in alias.items())
    for one, two in zip(layers, network.layers, strict=True):
        if isinstance(one, Rearrange) and isinstance(two, Rearrange):
            assert np.array_equal(one.index, two.index)
