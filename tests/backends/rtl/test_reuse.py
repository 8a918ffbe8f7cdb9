from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model
from support.backend_graphs import Builder, corner_codes, signed
from support.rtl_designs import bench, chain, lint, needs_icarus, needs_verilator, samples, written
from support.tensor_graphs import residual

from hqc.analysis.partition import Partition
from hqc.backends.layers.evaluate import run_ports
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.design import Block, run
from hqc.backends.rtl.emission.project import RtlProject, write
from hqc.backends.rtl.emission.reuse import area, copies_of, cost, steps_of
from hqc.backends.rtl.emission.schedule import schedule
from hqc.backends.rtl.emission.shared import share
from hqc.backends.rtl.lowering.lower import lower
from hqc.backends.rtl.options import RtlOptions
from hqc.pipeline.backend import BackendOptions

FACTORS = [2, 3, 4, 8, 11]


def mlp(seed: int = 1) -> tuple[Model, Partition]:
    rng = np.random.default_rng(seed)
    b = Builder()
    x = b.input("x", 7, signed(6, 3))
    weight = rng.integers(-31, 32, (7, 10))
    weight[2] = 5  # one for all outputs: no constants to select
    h = b.relu(b.quant(b.matmul(x, weight, signed(6, 1)), signed(6, 4)))
    product = b.matmul(h, rng.integers(-31, 32, (10, 4)), signed(6, 1))
    return b.finish(b.quant(b.add(product, rng.integers(-99, 99, 4), signed(8, 2)), signed(8, 5)))


def emitted(
    graph: tuple[Model, Partition], factor: int, folder: Path, interface: str = "fixed"
) -> RtlProject:
    """The project of a graph; the vectors are what its layers mean, not what circuits compute."""
    model, parts = graph
    network = read_network(model, parts)
    codes = corner_codes(parts, 30, 3)
    own = RtlOptions(interface=interface)  # type: ignore[arg-type]
    options = BackendOptions(project="net", reuse_factor=factor, own=own)
    design = share(lower(network), network, factor)
    return write(design, parts, options, folder, (codes, run_ports(network, parts, codes)))


@pytest.mark.emulation
@needs_icarus
@pytest.mark.parametrize("factor", FACTORS)
def test_residual_network(factor: int, tmp_path: Path) -> None:
    interface = ("fixed", "handshake")[factor % 2]
    project = emitted(residual(np.random.default_rng(2)), factor, tmp_path, interface)
    assert bench(tmp_path).startswith("PASS: 60 samples")
    blocks = [block for block in project.record["blocks"] if block["steps"] > 1]
    assert {block["kind"] for block in blocks} >= {"conv"}
    assert 1 < project.record["ii"] <= factor
    for block in blocks:
        assert block["copies"] == -(-block["instances"] // factor)


@pytest.mark.emulation
@needs_icarus
@pytest.mark.parametrize("factor", FACTORS)
def test_mlp(factor: int, tmp_path: Path) -> None:
    interface = ("handshake", "fixed")[factor % 2]
    project = emitted(mlp(), factor, tmp_path, interface)
    assert bench(tmp_path).startswith("PASS: 60 samples")
    shared = [block["steps"] > 1 for block in project.record["blocks"] if block["kind"] == "dense"]
    assert any(shared) == (project.record["ii"] > 1)
    assert factor < 10 or any(shared)  # few steps: adders made for the numbers are smaller


@pytest.mark.emulation
@needs_icarus
@pytest.mark.parametrize("seed", range(3))
def test_random_circuits_of_four_places(seed: int, tmp_path: Path) -> None:
    """Every kind of operation, a source that comes late, wires, and a fill."""
    rng = np.random.default_rng(seed)
    design = chain(rng, 15)
    project = written(design, samples(rng, design), tmp_path, 1.0, reuse_factor=3)
    third = next(block for block in project.record["blocks"] if block["name"] == "third")
    assert bench(tmp_path).startswith("PASS: 120 samples")
    assert third["steps"] in (1, 2)


@pytest.mark.emulation
@needs_verilator
@pytest.mark.parametrize("interface", ["fixed", "handshake"])
def test_verilator_has_nothing_to_say(interface: str, tmp_path: Path) -> None:
    project = emitted(mlp(), 16, tmp_path / "mlp", interface)
    assert project.record["ii"] > 1
    assert lint(project) == ""
    assert lint(emitted(residual(np.random.default_rng(2)), 3, tmp_path / "conv", interface)) == ""


@pytest.mark.parametrize("factor", FACTORS)
def test_shared_products_compute_the_same(factor: int) -> None:
    model, parts = mlp(factor)
    network = read_network(model, parts)
    plain = lower(network)
    found = share(plain, network, factor)
    rng = np.random.default_rng(0)
    inputs = samples(rng, plain, 200)
    want, got = run(plain, inputs), run(found, inputs)
    for name in plain.outputs:
        assert np.array_equal(want[name], got[name])
    for old, new in zip(plain.blocks, found.blocks, strict=True):
        assert new is old or cost(new, factor) < area(old.circuit)
    assert share(plain, network, 1).blocks == plain.blocks


def test_copies_go_through_all_places() -> None:
    model, parts = residual(np.random.default_rng(2))
    design = lower(read_network(model, parts))
    for factor in (1, *FACTORS):
        steps = steps_of(design, factor)
        for block in design.blocks:
            assert steps[block.name] <= factor
            copies, places = copies_of(block, steps), len(block.index)
            assert copies * steps[block.name] >= places
            assert copies == (places if steps[block.name] == 1 else -(-places // factor))
    assert set(steps_of(design, 1).values()) == {1}


def test_a_block_of_several_steps_takes_them() -> None:
    model, parts = residual(np.random.default_rng(2))
    design = lower(read_network(model, parts))
    steps = steps_of(design, 4)
    found = schedule(design, 2.0, steps)
    assert found.interval == max(steps.values()) == 4
    for block in design.blocks:
        timing = found.blocks[block.name]
        if steps[block.name] > 1:
            depth = timing.last - timing.first
            taken = found.leave[block.name] - found.enter[block.name]
            assert taken == 1 + depth + steps[block.name]
        for name in block.sources:
            owner = design.of(name)
            leave = found.leave[name] if isinstance(owner, Block) else 0
            assert leave <= found.enter[block.name] <= found.until[name]
