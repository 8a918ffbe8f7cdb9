"""`io_stream` in the emulation of both backends against int64 numpy, with ==."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.backend_graphs import Builder, corner_codes, signed, zoo
from support.emulation_runs import (
    bench_is_exact,
    by_backend,
    convolutions_are_exact,
    is_exact,
    reals_are_rounded,
    shared_cache,  # noqa: F401 - a fixture
)
from support.stream_graphs import awkward, block, order, packets, readers, tables, upsampled
from support.tensor_graphs import elementwise, large, movements, pools, residual, together

from hqc.backends.hls4ml.vitis import Vitis
from hqc.diagnostics import Exit, HqcError
from hqc.pipeline.backend import BackendOptions

pytestmark = pytest.mark.emulation
LATENCY = BackendOptions(io="io_stream")
RESOURCE = BackendOptions(io="io_stream", strategy="resource", reuse_factor=3)
by_strategy = pytest.mark.parametrize("options", [LATENCY, RESOURCE], ids=lambda o: o.strategy)


@by_backend
def test_a_residual_network_and_transposed_convolution_are_bit_exact(
    backend: Vitis, tmp_path: Path
) -> None:
    assert is_exact(backend, together(block, upsampled), LATENCY, tmp_path) > 2_000


@by_backend
def test_real_inputs_are_rounded_in_the_stream(backend: Vitis, tmp_path: Path) -> None:
    graph = together(block, upsampled)  # the project above: nothing is compiled again
    reals_are_rounded(backend, graph, LATENCY, tmp_path)


@pytest.mark.parametrize(
    ("layer", "size"),
    [
        pytest.param(3, 4, id="last reads two"),
        pytest.param(2, 8, id="first writes four", marks=pytest.mark.long),
    ],
)
def test_packets_that_stay_or_miss_are_noticed(tmp_path: Path, layer: int, size: int) -> None:
    """Two layers of three packets, one of which says another number."""
    b = Builder()
    x = b.input("x", (2, 3), signed(4, 2))
    model, parts = b.finish(b.relu(b.quant(b.relu(x), signed(3, 2))))
    backend = Vitis()
    backend.emit(model, parts, LATENCY, tmp_path)
    path = tmp_path / "firmware" / "parameters.h"
    start, mark, end = path.read_text().partition(f"_config{layer} ")
    assert "n_in = 6;" in end
    path.write_text(start + mark + end.replace("n_in = 6;", f"n_in = {size};", 1))
    emulator = backend.emulator(tmp_path, parts)
    codes = corner_codes(parts, 9, 1)
    with pytest.raises(HqcError) as caught:
        emulator.run(codes)
    assert caught.value.diagnostics[0].code == "HQC402"
    assert caught.value.exit is Exit.INTERNAL


@pytest.mark.long
@by_backend
@by_strategy
def test_awkward_streams_are_bit_exact(
    backend: Vitis, options: BackendOptions, tmp_path: Path
) -> None:
    assert is_exact(backend, awkward(), options, tmp_path) > 20_000


@pytest.mark.long
@by_backend
def test_every_layer_and_mode_is_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, zoo(), LATENCY, tmp_path) > 10_000


@pytest.mark.long
@by_backend
def test_the_other_layers_are_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, together(pools, movements, elementwise), LATENCY, tmp_path) > 50_000


@pytest.mark.long
@by_backend
@by_strategy
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("half", [0, 1])
def test_all_convolutions_are_bit_exact(
    backend: Vitis, options: BackendOptions, rank: int, half: int, tmp_path: Path
) -> None:
    convolutions_are_exact(backend, options, rank, half, tmp_path)


@pytest.mark.long
@by_backend
def test_images_of_common_size_are_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, large(), LATENCY, tmp_path) > 10_000


@pytest.mark.long
@by_backend
def test_a_deeper_network_with_shared_multipliers_is_bit_exact(
    backend: Vitis, tmp_path: Path
) -> None:
    assert is_exact(backend, residual(np.random.default_rng(2)), RESOURCE, tmp_path) > 100


@pytest.mark.long
@by_backend
def test_tables_of_arrays_are_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    assert is_exact(backend, together(tables), BackendOptions(), tmp_path) > 3_000


@pytest.mark.long
@by_backend
def test_the_vendors_test_bench_feeds_and_drains_streams(backend: Vitis, tmp_path: Path) -> None:
    bench_is_exact(backend, together(block, packets, readers, order), LATENCY, tmp_path)
