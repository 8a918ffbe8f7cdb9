"""The compiled emulation of both backends against plain int64 arithmetic, with ==."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.backend_graphs import (
    HARDWARE_ROUNDINGS,
    Builder,
    corner_codes,
    evaluate,
    signed,
    unsigned,
    zoo,
)
from support.emulation_runs import (
    assert_same,
    by_backend,
    run_reals,
    run_test_bench,
    shared_cache,  # noqa: F401 - a fixture
)

from hqc.analysis.partition import Partition
from hqc.backends.hls4ml.catapult import Catapult
from hqc.backends.hls4ml.vitis import Vitis
from hqc.diagnostics import Exit, HqcError
from hqc.numerics.types import FixedType, Overflow
from hqc.pipeline.backend import BackendOptions

pytestmark = pytest.mark.emulation


@by_backend
def test_every_layer_and_mode_is_bit_exact(backend: Vitis, tmp_path: Path) -> None:
    model, parts = zoo()
    codes = corner_codes(parts, 1100, 3)
    backend.emit(model, parts, BackendOptions(), tmp_path)
    emulator = backend.emulator(tmp_path, parts)
    want = evaluate(parts, codes)
    assert sum(array.size for array in want.values()) > 100_000
    assert_same(emulator.run(codes), want, parts)
    assert_same(emulator.run(codes, threads=3), want, parts)
    none = {name: array[:0] for name, array in codes.items()}
    assert all(len(array) == 0 for array in emulator.run(none).values())


def inputs_and_resource() -> tuple[Builder, object]:
    """Input ports of every rounding mode, and dense layers that share multipliers."""
    rng = np.random.default_rng(11)
    b = Builder()
    outputs = []
    for index, rounding in enumerate(HARDWARE_ROUNDINGS):
        overflow = Overflow.SAT_SYM if index % 2 else Overflow.SAT
        x = b.input(f"x{index}", 6, FixedType(True, 6, 2, rounding, overflow))
        dense = b.matmul(x, rng.integers(-8, 8, (6, 4)), signed(4, 1))
        hidden = b.relu(b.add(dense, rng.integers(-8, 8, 4), signed(4, 2)))
        outputs.append(b.quant(hidden, unsigned(4, 3)))
    x = b.input("x9", 6, unsigned(5, 3))
    return b, b.finish(*outputs, b.matmul(x, rng.integers(-8, 8, (6, 2)), signed(4, 1)))


@by_backend
def test_shared_multipliers_and_real_inputs(backend: Vitis, tmp_path: Path) -> None:
    _, (model, parts) = inputs_and_resource()
    options = BackendOptions(strategy="resource", reuse_factor=3, project="shared")
    emission = backend.emit(model, parts, options, tmp_path)
    assert {layer.reuse for layer in emission.layers if layer.kind == "dense"} == {3}
    emulator = backend.emulator(tmp_path, parts)
    codes = corner_codes(parts, 500, 4)
    assert_same(emulator.run(codes), evaluate(parts, codes), parts)
    rng = np.random.default_rng(5)
    reals = {p.name: rng.normal(size=(3000, *p.shape)) for p in parts.inputs}
    for array in reals.values():  # ties of the coarsest kind too
        array[:1000] = np.round(array[:1000] * 32) / 32
        array[:500] *= 4
    host = parts.encode({p.external: reals[p.name] for p in parts.inputs})
    assert_same(run_reals(emulator, reals), emulator.run(host), parts)


@pytest.mark.long
@by_backend
def test_the_vendors_test_bench_prints_the_expected_outputs(backend: Vitis, tmp_path: Path) -> None:
    _, (model, parts) = inputs_and_resource()
    codes = corner_codes(parts, 200, 4)
    backend.emit(model, parts, BackendOptions(), tmp_path, (codes, evaluate(parts, codes)))
    got, want = run_test_bench(backend.name, tmp_path)
    assert [float(x) for x in got] == [float(x) for x in want]


def tiny() -> tuple[object, Partition]:
    b = Builder()
    x = b.input("x", 2, signed(4, 4))
    return b.finish(b.matmul(x, np.array([[1, 2], [3, -4]]), signed(4, 4)))


def test_a_changed_constant_is_noticed_and_an_unchanged_project_is_not_compiled_again(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Catapult()
    model, parts = tiny()
    backend.emit(model, parts, BackendOptions(), tmp_path / "one")
    codes = {parts.inputs[0].name: np.array([[1, 1], [2, -3]])}
    port = parts.outputs[0].name
    first = backend.emulator(tmp_path / "one", parts)
    assert first.run(codes)[port].tolist() == [[4, -2], [-7, 16]]

    shutil.copytree(tmp_path / "one", tmp_path / "moved")
    built = sorted(cache.rglob("*.so"))
    again = backend.emulator(tmp_path / "moved", parts)
    assert again.library == first.library
    assert sorted(cache.rglob("*.so")) == built
    assert not list(cache.rglob("building-*"))

    weights = tmp_path / "one" / "firmware" / "weights" / "w2.h"
    weights.write_text(weights.read_text().replace("{1,", "{5,"))
    changed = backend.emulator(tmp_path / "one", parts)
    assert changed.library != first.library
    assert changed.run(codes)[port].tolist() == [[8, -2], [1, 16]]
    assert first.run(codes)[port].tolist() == [[4, -2], [-7, 16]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Partition]:
    folder = tmp_path_factory.mktemp("project")
    model, parts = tiny()
    Catapult().emit(model, parts, BackendOptions(), folder)
    return folder, parts


def test_a_missing_compiler_is_named_with_a_remedy(
    project: tuple[Path, Partition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(HqcError) as caught:
        Catapult().emulator(*project)
    assert caught.value.exit is Exit.TOOL
    assert caught.value.diagnostics[0].code == "HQC404"
    assert any("install" in text for text in caught.value.diagnostics[0].helps)


def test_a_cache_that_cannot_be_written_is_named(
    project: tuple[Path, Partition], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(HqcError) as caught:
        Catapult().emulator(*project)
    assert caught.value.diagnostics[0].code == "HQC405"
    assert "HQC_CACHE_DIR" in str(caught.value)


def test_a_compiler_error_is_shown(project: tuple[Path, Partition], tmp_path: Path) -> None:
    folder, parts = project
    shutil.copytree(folder, tmp_path / "broken")
    top = tmp_path / "broken" / "firmware" / "network.cpp"
    top.write_text(top.read_text() + "\nthis is not C++;\n")
    with pytest.raises(HqcError) as caught:
        Catapult().emulator(tmp_path / "broken", parts)
    assert caught.value.diagnostics[0].code == "HQC405"
    assert "this is not C++" in str(caught.value)


def test_codes_that_do_not_fit_a_port_are_refused(project: tuple[Path, Partition]) -> None:
    emulator = Catapult().emulator(*project)
    name = project[1].inputs[0].name
    good = np.zeros((3, 2), np.int64)
    for bad in ({}, {name: good[:, :1]}, {name: good + 8}, {name: good.astype(np.int32)}):
        with pytest.raises(HqcError) as caught:
            emulator.run(bad)
        assert caught.value.diagnostics[0].code == "HQC005"
