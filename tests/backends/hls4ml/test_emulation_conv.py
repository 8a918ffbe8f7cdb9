"""Windows and rearrangements in the emulation of both backends against int64 numpy, with ==."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model
from support.backend_graphs import corner_codes, evaluate
from support.emulation_runs import assert_same, run_test_bench, shared_cache  # noqa: F401 - a fixture
from support.tensor_graphs import (
    convolutions,
    elementwise,
    large,
    movements,
    pools,
    residual,
    together,
)

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.vitis import Vitis
from hqc.pipeline.backend import BackendOptions

pytestmark = pytest.mark.emulation
BACKENDS = (Vitis(), Catapult())
by_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
LATENCY = BackendOptions()
RESOURCE = BackendOptions(strategy="resource", reuse_factor=3)


def is_exact(
    backend: Vitis, graph: tuple[Model, Partition], options: BackendOptions, folder: Path
) -> int:
    """Emit, compile and compare; how many codes were compared."""
    model, parts = graph
    codes = corner_codes(parts, 60, 3)
    backend.emit(model, parts, options, folder)
    want = evaluate(parts, codes)
    assert_same(backend.emulator(folder, parts).run(codes), want, parts)
    return sum(array.size for array in want.values())


@by_backend
def test_a_sample_of_convolutions_is_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, convolutions(2, slice(1, None, 9)), LATENCY, tmp_path) > 20_000


@by_backend
def test_a_sample_with_shared_multipliers_is_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, convolutions(1, slice(0, None, 3)), RESOURCE, tmp_path) > 10_000


@pytest.mark.long
@by_backend
@pytest.mark.parametrize("options", [LATENCY, RESOURCE], ids=lambda o: o.strategy)
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("half", [0, 1])
def test_all_convolutions_are_bit_exact(
    backend: Vitis, options: BackendOptions, rank: int, half: int, tmp_path: Path
) -> None:
    # with another seed the same windows meet other groups
    for seed, first in ((3, half), (4, half + 2)):
        graph = convolutions(rank, slice(first, None, 3), seed)
        is_exact(backend, graph, options, tmp_path / str(first))


@by_backend
def test_the_other_layers_are_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, together(pools, movements, elementwise), LATENCY, tmp_path) > 50_000


@pytest.mark.long
@by_backend
def test_a_residual_network_is_bit_exact_on_reals_too(backend: Vitis, tmp_path: Path) -> None:
    model, parts = residual(np.random.default_rng(2))
    options = BackendOptions(strategy="resource", reuse_factor=9)
    backend.emit(model, parts, options, tmp_path)
    emulator = backend.emulator(tmp_path, parts)
    reals = {p.name: np.random.default_rng(5).normal(size=(40, *p.shape)) for p in parts.inputs}
    codes = parts.encode({p.external: reals[p.name] for p in parts.inputs})
    want = evaluate(parts, codes)
    assert_same(emulator.run(codes), want, parts)
    assert_same(emulator.run_reals(reals), want, parts)


@pytest.mark.long
@by_backend
def test_images_of_common_size_fit_the_stack(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, large(), LATENCY, tmp_path) > 10_000


@pytest.mark.long
@by_backend
def test_the_vendors_test_bench_reads_images_as_the_hardware_does(
    backend: Vitis, tmp_path: Path
) -> None:
    model, parts = together(pools)
    codes = corner_codes(parts, 20, 4)
    backend.emit(model, parts, LATENCY, tmp_path, (codes, evaluate(parts, codes)))
    got, want = run_test_bench(backend.name, tmp_path)
    assert [float(x) for x in got] == [float(x) for x in want]
