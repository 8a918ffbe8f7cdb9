"""What the tests of the emulation share."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.emulation import CompiledEmulator
from hqc.backends.hls4ml.vitis import Vitis
from hqc.backends.layers.layout import to_hardware
from hqc.ir import Array
from hqc.numerics.types import Codes
from hqc.pipeline.backend import BackendOptions
from support.backend_graphs import corner_codes, evaluate
from support.tensor_graphs import convolutions

Graph = tuple[Model, Partition]
BACKENDS = (Vitis(), Catapult())
by_backend = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
_BENCH_INCLUDES = {
    "vitis": ("ap_types",),
    "catapult": ("ac_types/include", "ac_math/include", "ac_simutils/include", "nnet_utils", "."),
}


@pytest.fixture(autouse=True, name="cache")
def shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that all tests of one run share."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("HQC_CACHE_DIR", str(folder))
    return folder


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray], parts: Partition) -> None:
    for port in parts.outputs:
        differs = np.argwhere(got[port.name] != want[port.name])
        assert not len(differs), f"{port.name} {port.type} first at {differs[0]}"


def is_exact(backend: Vitis, graph: Graph, options: BackendOptions, folder: Path) -> int:
    """Emit, compile and compare, on one thread and on several; how many codes were compared."""
    model, parts = graph
    codes = corner_codes(parts, 70, 3)
    backend.emit(model, parts, options, folder)
    want = evaluate(parts, codes)
    emulator = backend.emulator(folder, parts)
    assert_same(emulator.run(codes), want, parts)
    assert_same(emulator.run(codes, threads=3), want, parts)
    return sum(array.size for array in want.values())


def convolutions_are_exact(
    backend: Vitis, options: BackendOptions, rank: int, half: int, folder: Path
) -> None:
    """Half of all windows; with another seed the same ones meet other groups."""
    for seed, first in ((3, half), (4, half + 2)):
        graph = convolutions(rank, slice(first, None, 3), seed)
        is_exact(backend, graph, options, folder / str(first))


def run_reals(emulator: CompiledEmulator, values: Mapping[str, Array]) -> dict[str, Codes]:
    """Output codes for real inputs (float64), rounded by the C++ types of the input ports."""
    given = (to_hardware(values[port.name]) for port in emulator.partition.inputs)
    arrays = [np.ascontiguousarray(array, np.float64) for array in given]
    return emulator._call("hqc_run_reals", arrays, None)


def reals_are_rounded(backend: Vitis, graph: Graph, options: BackendOptions, folder: Path) -> None:
    """Real inputs give what the host's codes of them give."""
    model, parts = graph
    backend.emit(model, parts, options, folder)
    reals = {p.name: np.random.default_rng(5).normal(size=(40, *p.shape)) for p in parts.inputs}
    want = evaluate(parts, parts.encode({p.external: reals[p.name] for p in parts.inputs}))
    assert_same(run_reals(backend.emulator(folder, parts), reals), want, parts)


def bench_is_exact(backend: Vitis, graph: Graph, options: BackendOptions, folder: Path) -> None:
    """The project's own test bench reads and writes as the hardware does."""
    model, parts = graph
    codes = corner_codes(parts, 20, 4)
    backend.emit(model, parts, options, folder, (codes, evaluate(parts, codes)))
    got, want = run_test_bench(backend.name, folder)
    assert [float(x) for x in got] == [float(x) for x in want]


def run_test_bench(backend: str, folder: Path) -> tuple[list[str], list[str]]:
    """Compile and run the project's own test bench: what it prints, and what is expected."""
    compiler = shutil.which("g++")
    assert compiler is not None
    includes = [f"-Ifirmware/{path}" for path in _BENCH_INCLUDES[backend]]
    sources = ["firmware/network.cpp", "network_test.cpp", "-o", "bench"]
    subprocess.run([compiler, "-O0", "-w", *includes, *sources], cwd=folder, check=True)
    data = [f"tb_data/tb_{name}.dat" for name in ("input_features", "output_predictions")]
    bench = [str(folder / "bench"), "firmware/weights", *data]
    subprocess.run(bench, cwd=folder, check=True, capture_output=True)
    got, want = (folder / path for path in ("tb_data/csim_results.log", data[1]))
    return got.read_text().split(), want.read_text().split()
