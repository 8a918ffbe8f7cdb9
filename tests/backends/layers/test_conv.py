"""Windows and rearrangements in the backends, without a compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir import Model, Value
from support.backend_graphs import Builder, corner_codes, signed, unsigned
from support.emulation_runs import by_backend
from support.tensor_graphs import convolutions, residual

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.readback import compare
from hqc.backends.hls4ml.vitis import Vitis
from hqc.backends.layers import Constant, Dense, MaxPool, Merge, Network
from hqc.backends.layers import accumulator as accumulator_of
from hqc.backends.layers.layout import to_hardware
from hqc.backends.layers.network import read_network
from hqc.diagnostics import HqcError
from hqc.numerics.types import Range
from hqc.pipeline.backend import BackendOptions


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def kinds(network: Network) -> list[str]:
    return [type(layer).__name__ for layer in network.layers]


def one_input(shape: tuple[int, ...]) -> tuple[Builder, Value]:
    b = Builder()
    return b, b.input("x", shape, signed(5, 2))


# --- layers ---------------------------------------------------------------------------------


def test_a_small_network_is_few_layers() -> None:
    network = read_network(*residual(np.random.default_rng(2)))
    assert "Rearrange" in kinds(network)  # the concatenation
    assert kinds(network).count("Conv") == 4
    assert {type(layer) for layer in network.layers} >= {MaxPool, Merge, Dense}


@given(st.lists(st.integers(-4, 3), min_size=6, max_size=6), st.integers(1, 7), st.integers(0, 5))
def test_padding_counts_in_the_accumulator(weights: list[int], low: int, span: int) -> None:
    """Some taps may meet padding: each subset of the products is a possible sum."""
    w = Constant(np.array(weights).reshape(6, 1), signed(3, 3))
    b = Constant(np.array([3]), unsigned(2, 2))
    limits = accumulator_of(Range(low, low + span), w, b).limits
    for subset in range(64):
        chosen = [weights[i] for i in range(6) if subset >> i & 1]
        for x in (low, low + span):
            assert limits.lo <= 3 + sum(c * x for c in chosen) <= limits.hi


def bad_conv_axes(b: Builder) -> Value:
    x = b.input("x", (2, 3, 3, 3), signed(4, 2))
    return b.conv(x, np.ones((2, 2, 1, 1, 1), int), signed(2, 2), kernel_shape=[1, 1, 1])


def bad_window(b: Builder) -> Value:
    return b.max_pool(
        b.input("x", (2, 5), signed(4, 2)), kernel_shape=[2], strides=[3], pads=[2, 0]
    )


def bad_matmul(b: Builder) -> Value:
    x = b.input("x", (2, 5), signed(4, 2))
    return b.matmul(x, np.ones((5, 2), int), signed(2, 2))


def bad_merge(b: Builder) -> Value:
    x = b.input("x", (2, 5), signed(4, 2))
    y = b.input("y", (1, 5), signed(4, 2))
    return b.merge(x, y)


def bad_fill(b: Builder) -> Value:
    x = b.input("x", (2, 5), signed(4, 2))
    found = b.move("Pad", x, ints(0, 0, 1, 0, 0, 0), np.array(0.5))
    return b.retype(found, signed(4, 4))


@by_backend
@pytest.mark.parametrize(
    ("build", "word"),
    [
        (bad_conv_axes, "3 axes"),
        (bad_window, "padding"),
        (bad_matmul, "flatten"),
        (bad_merge, "broadcast"),
        (bad_fill, "0.5"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_what_cannot_be_exact_is_refused(backend: Vitis, build: Any, word: str) -> None:
    b = Builder()
    model, parts = b.finish(b.relu(build(b)))
    found = backend.check(model, parts, BackendOptions())
    assert [d.code for d in found] == ["HQC401"]
    assert word in str(found[0])


# --- projects -------------------------------------------------------------------------------


def every_kind() -> tuple[Model, Partition]:
    """One of each new layer, with attributes that differ from each other."""
    rng = np.random.default_rng(4)
    b = Builder()
    x = b.input("x", (2, 9, 8), signed(5, 2))
    window = {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 2, 1]}
    plain = b.conv(x, rng.integers(-4, 4, (4, 2, 3, 2)), signed(3, 1), dilations=[1, 2], **window)
    grouped = b.conv(x, rng.integers(-4, 4, (4, 1, 3, 2)), signed(3, 1), group=2, **window)
    pooled = b.max_pool(x, dilations=[2, 1], **window)
    return b.finish(plain, grouped, pooled, b.move("Concat", x, b.relu(x), axis=2))


@by_backend
def test_convolutions_without_groups_are_hls4mls(backend: Vitis, tmp_path: Path) -> None:
    backend.emit(*every_kind(), BackendOptions(), tmp_path)
    top = (tmp_path / "firmware" / "network.cpp").read_text()
    own = {"vitis": "conv_2d_cl<", "catapult": "conv_2d_resource_cl<"}[backend.name]
    assert top.count(f"nnet::{own}") == 1
    assert top.count("nnet::hqc_group_conv_2d<") == 1
    assert (tmp_path / "firmware" / "nnet_utils" / "hqc_conv.h").is_file()


_MEMBERS = (
    *("in_height = 9", "out_width = 3", "filt_height = 3", "stride_width = 3"),
    *("dilation_width = 2", "dilation_height = 2", "pad_top = 1", "pad_bottom = 1"),
    *("n_group = 2", "n_pixels = 1", "n_in2 = 144", "strategy = nnet::latency"),
)


@by_backend
@pytest.mark.parametrize("member", _MEMBERS)
def test_a_changed_attribute_is_noticed(backend: Vitis, tmp_path: Path, member: str) -> None:
    name, value = member.split(" = ")
    other = "nnet::resource" if value == "nnet::latency" else str(int(value) + 1)
    edited(backend, tmp_path, "parameters.h", f" {member};", f" {name} = {other};")


@by_backend
@pytest.mark.parametrize(("array", "old"), [("t", "= {0, 1,"), ("f", "= {0."), ("w", "= {")])
def test_a_changed_table_is_noticed(backend: Vitis, tmp_path: Path, array: str, old: str) -> None:
    new = {"t": "= {1, 0,", "f": "= {1.", "w": "= {1"}[array]
    edited(backend, tmp_path, f"weights/{array}*.h", old, new)


@by_backend
def test_a_changed_function_is_noticed(backend: Vitis, tmp_path: Path) -> None:
    edited(backend, tmp_path, "network.cpp", "hqc_group_conv_2d<", "conv_2d_cl<")


def edited(backend: Vitis, folder: Path, pattern: str, old: str, new: str) -> None:
    """Emit, change one place, and see that the comparison fails, and did not before."""
    model, parts = every_kind()
    backend.emit(model, parts, BackendOptions(), folder)
    network = read_network(model, parts)
    compare(folder, network, backend.flavour, "latency")
    paths = [p for p in sorted((folder / "firmware").glob(pattern)) if old in p.read_text()]
    assert paths
    paths[0].write_text(paths[0].read_text().replace(old, new, 1))
    with pytest.raises(HqcError) as caught:
        compare(folder, network, backend.flavour, "latency")
    assert {d.code for d in caught.value.diagnostics} == {"HQC402"}


@by_backend
def test_shared_multipliers_fit_the_windows(backend: Vitis, tmp_path: Path) -> None:
    options = BackendOptions(strategy="resource", reuse_factor=5)
    emission = backend.emit(*convolutions(1, slice(0, 8), seed=4), options, tmp_path)
    reuse = [layer.reuse for layer in emission.layers if layer.kind == "conv"]
    assert reuse == [4, 5, 5, 5, 4, 5, 5, 5]  # grouped ones are pipelined: any factor will do


@by_backend
def test_a_reuse_factor_that_reads_beyond_the_window_is_noticed(
    backend: Vitis, tmp_path: Path
) -> None:
    model, parts = convolutions(1, slice(4, 5), seed=4)
    options = BackendOptions(strategy="resource", reuse_factor=2)
    backend.emit(model, parts, options, tmp_path)
    path = tmp_path / "firmware" / "parameters.h"
    path.write_text(path.read_text().replace("reuse_factor = 2;", "reuse_factor = 8;"))
    with pytest.raises(HqcError) as caught:
        compare(tmp_path, read_network(model, parts), backend.flavour, "resource")
    assert "reuse factor" in str(caught.value)


@by_backend
def test_vectors_lie_as_the_hardware_reads_them(backend: Vitis, tmp_path: Path) -> None:
    b, x = one_input((2, 3, 4))
    model, parts = b.finish(b.relu(x))
    codes = corner_codes(parts, 6, 1)
    outputs = {parts.outputs[0].name: np.maximum(codes[parts.inputs[0].name], 0)}
    backend.emit(model, parts, BackendOptions(), tmp_path, (codes, outputs))
    lines = (tmp_path / "tb_data" / "tb_input_features.dat").read_text().splitlines()
    want = to_hardware(codes[parts.inputs[0].name])[5].ravel() / 8
    assert [float(word) for word in lines[5].split()] == want.tolist()


def test_large_layers_are_warned_about(tmp_path: Path) -> None:
    b, x = one_input((4, 40, 40))
    conv = b.conv(
        x, np.ones((128, 4, 3, 3), int), signed(2, 2), kernel_shape=[3, 3], strides=[40] * 2
    )
    model, parts = b.finish(b.relu(conv))
    for strategy, reuse, count in (("latency", 1, 2), ("resource", 2, 1)):
        options = BackendOptions(strategy=strategy, reuse_factor=reuse)
        emission = Vitis().emit(model, parts, options, tmp_path)
        assert [d.code for d in emission.warnings] == ["HQC406"] * count
        assert {d.severity for d in emission.warnings} == {"warning"}
    assert "reuse factor 2" in str(
        Vitis().emit(model, parts, BackendOptions(), tmp_path).warnings[1]
    )
    assert not Catapult().emit(model, parts, BackendOptions(), tmp_path).warnings
