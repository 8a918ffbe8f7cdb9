"""Windows and rearrangements in the emulation of both backends against int64 numpy, with ==."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.emulation_runs import (
    bench_is_exact,
    by_backend,
    convolutions_are_exact,
    is_exact,
    reals_are_rounded,
    shared_cache,  # noqa: F401 - a fixture
)
from support.tensor_graphs import (
    convolutions,
    elementwise,
    large,
    movements,
    pools,
    residual,
    together,
)

from hqc.backends.hls4ml.vitis import Vitis
from hqc.pipeline.backend import BackendOptions

pytestmark = pytest.mark.emulation
LATENCY = BackendOptions()
RESOURCE = BackendOptions(strategy="resource", reuse_factor=3)


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
    convolutions_are_exact(backend, options, rank, half, tmp_path)


@by_backend
def test_the_other_layers_are_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, together(pools, movements, elementwise), LATENCY, tmp_path) > 50_000


@pytest.mark.long
@by_backend
def test_a_residual_network_is_bit_exact_on_reals_too(backend: Vitis, tmp_path: Path) -> None:
    graph = residual(np.random.default_rng(2))
    options = BackendOptions(strategy="resource", reuse_factor=9)
    is_exact(backend, graph, options, tmp_path)
    reals_are_rounded(backend, graph, options, tmp_path)


@pytest.mark.long
@by_backend
def test_images_of_common_size_fit_the_stack(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, large(), LATENCY, tmp_path) > 10_000


@pytest.mark.long
@by_backend
def test_the_vendors_test_bench_reads_images_as_the_hardware_does(
    backend: Vitis, tmp_path: Path
) -> None:
    bench_is_exact(backend, together(pools), LATENCY, tmp_path)
