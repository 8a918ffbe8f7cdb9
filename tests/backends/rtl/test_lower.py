"""Networks as logic, against what their layers mean, with == for every layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzzing.choices import Choices
from fuzzing.emulate import lowered
from fuzzing.maker import FEATURES
from fuzzing.networks import network as fuzz_network
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model
from support.backend_graphs import zoo
from support.rtl_networks import KINDS, assert_computes, networks, samples
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

import hqc
from hqc import pipeline
from hqc.analysis.partition import Partition, partition
from hqc.backends.layers import Constant, Dense, Fork, Input, Network, Requantise
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.circuit import Constant as Number
from hqc.backends.rtl.design import Block, Design
from hqc.backends.rtl.lowering import cmvm
from hqc.backends.rtl.lowering.lower import lower
from hqc.diagnostics import HqcError
from hqc.driver import steps_of
from hqc.numerics.types import FixedType, Range
from hqc.pipeline.registry import Registry

pytest.importorskip("da4ml", reason="da4ml finds the adders")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_layer_is_what_it_means(kind: str, seed: int) -> None:
    network = networks(kind, seed)
    assert_computes(lower(network), network, samples(network, 48, seed))


GRAPHS: dict[str, Callable[[], tuple[Model, Partition]]] = {
    "conv1d": lambda: convolutions(1, slice(None)),
    "conv2d": lambda: convolutions(2, slice(None, None, 3)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_of_many_branches(name: str) -> None:
    model, parts = GRAPHS[name]()
    network = read_network(model, parts)
    assert_computes(lower(network), network, samples(network, 60, 3))


def fuzzed(seed: int) -> Network | None:
    try:
        _, model, parts = lowered(fuzz_network(Choices.seeded(seed), FEATURES))
        return read_network(model, parts)
    except HqcError:
        return None


def narrow(network: Network) -> Design | None:
    """The logic of a network, None if it has sums of more than 62 bits."""
    try:
        return lower(network)
    except HqcError as error:
        if [d.code for d in error.diagnostics] == ["HQC421"]:
            return None
        raise


def test_random_graphs() -> None:
    """A fixed sample; those that the compiler refuses are no networks."""
    done = 0
    for seed in range(60):
        network = fuzzed(seed)
        if network is not None and (design := narrow(network)) is not None:
            assert_computes(design, network, samples(network, 24, seed))
            done += 1
    assert done >= 40


MODELS = ("qkeras_jettagging.onnx", "unsw_nb15-mlp-w2a2.onnx", "hawq_jets_w6a8.pt")


@pytest.mark.parametrize("name", MODELS)
def test_public_models(name: str, shared_models: Path) -> None:
    network = read(shared_models / name)
    assert_computes(lower(network), network, samples(network, 300))


@pytest.mark.long
@pytest.mark.parametrize("name", ["TFC_1W1A.onnx", "hawq_jets_mixed_8555.pt"])
def test_larger_public_models(name: str, shared_models: Path) -> None:
    network = read(shared_models / name)
    assert_computes(lower(network), network, samples(network, 300))


def read(path: Path) -> Network:
    model = hqc.load(path)
    pipeline.run(model, steps_of(None), Registry.builtin(), verify=False)
    return read_network(model, partition(model))


# --- what becomes of bounds -------------------------------------------------------------------


def dense(name: str, source: str, weight: object, bias: object, result: FixedType) -> Dense:
    codes, start = np.array(weight, np.int64), np.array(bias, np.int64)
    wide = FixedType(True, 40, 40)
    given = {"weight": Constant(codes, wide), "bias": Constant(start, wide), "accum": wide}
    return Dense(name, (source,), (codes.shape[1],), result, **given)


def test_bounds_go_from_block_to_block() -> None:
    """Sums of correlated values are as narrow as they are, and what cannot vary is a constant."""
    wide = FixedType(True, 20, 20)
    x = Input("x", (), (2,), FixedType(False, 3, 3))
    first = dense("a", "x", [[1, 0, 3], [1, 0, 0]], [0, 5, 1], wide)
    second = dense("b", "a", [[1, 0], [1, 1], [0, 2]], [0, 0], wide)
    design = lower(Network((x, first, second), ("x",), ("b",)))
    a, b = design.of("a"), design.of("b")
    assert a.ranges == (Range(0, 14), Range(5, 5), Range(1, 22))
    assert b.ranges == (Range(5, 19), Range(7, 49))
    assert isinstance(a, Block)
    assert isinstance(a.circuit.ops[a.circuit.outputs[1]], Number)


def test_rearranged_elements_keep_their_own_bounds() -> None:
    network = networks("rearrange", 0)
    x = Input("x", (), (2,), FixedType(False, 3, 3))
    wide = FixedType(True, 20, 20)
    first = dense("a", "x", [[1, 7], [0, 0]], [0, 0], wide)
    turned = type(network.layers[-1])(
        "t", ("a",), (2,), wide, sizes=(2,), index=np.array([1, 0]), fill=0
    )
    last = dense("b", "t", [[1, 0], [0, 1]], [0, 0], wide)
    design = lower(Network((x, first, turned, last), ("x",), ("b",)))
    assert design.of("t").ranges == (Range(0, 49), Range(0, 49))
    assert design.of("b").ranges == (Range(0, 49), Range(0, 7))


# --- refusals ---------------------------------------------------------------------------------


def test_sums_wider_than_62_bits_are_refused() -> None:
    model, parts = zoo()
    with pytest.raises(HqcError) as error:
        lower(read_network(model, parts))
    assert [d.code for d in error.value.diagnostics] == ["HQC421"]


def test_streams_are_refused() -> None:
    fork = Fork("f", ("x",), (2,), FixedType(True, 4, 4), copies=("a", "b"))
    x = Input("x", (), (2,), FixedType(True, 4, 4))
    for network in (Network((x,), ("x",), ("x",), stream=True), Network((x, fork), ("x",), ("f",))):
        with pytest.raises(HqcError) as error:
            lower(network)
        assert error.value.diagnostics[0].code == "HQC401"


def test_a_wrong_solution_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    true = cmvm.solve

    def wrong(kernel: np.ndarray, *rest: object) -> object:
        kernel = kernel.copy()
        kernel[0, 0] += 1
        return true(kernel, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(cmvm, "solve", wrong)
    network = networks("dense", 3)
    with pytest.raises(HqcError) as error:
        lower(network)
    assert error.value.diagnostics[0].code == "HQC420"


def test_without_da4ml_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "da4ml.cmvm", None)
    with pytest.raises(HqcError) as error:
        lower(networks("dense", 3))
    (found,) = error.value.diagnostics
    assert (found.code, found.helps) == ("HQC404", ('pip install "hqc[rtl]"',))


def test_a_requantiser_of_wide_constants_is_exact() -> None:
    """Weights beyond float32, which the solver takes, go another way."""
    x = Input("x", (), (2,), FixedType(True, 8, 8))
    wide, huge = FixedType(True, 50, 50), (1 << 29) + 12345
    scale = Constant(np.array([huge, -huge]), wide)
    layers = (
        x,
        Requantise("r", ("x",), (2,), wide, scale=scale, bias=Constant(np.array([1]), wide)),
        dense("y", "x", [[huge, 3], [1 - huge, 5]], [0, 7], wide),
    )
    network = Network(layers, ("x",), ("y",))
    assert_computes(lower(network), network, samples(network, 99))
