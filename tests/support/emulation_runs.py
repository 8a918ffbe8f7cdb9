"""What the tests of the emulation share."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hqc.analysis.partition import Partition

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
