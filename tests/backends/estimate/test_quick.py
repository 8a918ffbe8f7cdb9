"""What is predicted without a synthesis: features of known matrices, counts, figures, bars."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_ir import Model
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

from hqc.analysis.partition import Partition
from hqc.backends.estimate import yosys
from hqc.backends.estimate.counts import Bounds, OperationCounts
from hqc.backends.estimate.features import bits_of, digit_planes, matrix_features
from hqc.backends.estimate.figures import Figures
from hqc.backends.estimate.liberty import OSU018
from hqc.backends.estimate.measure import measure
from hqc.backends.estimate.operation_counts import operation_counts
from hqc.backends.estimate.quick import AREA, LUTS, coefficients, quick_estimate
from hqc.backends.layers import (
    Activation,
    Constant,
    Dense,
    Input,
    Layer,
    Network,
    Requantise,
    accumulator,
)
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.cost import adder_bits
from hqc.backends.rtl.emission.delays import cutoff_of
from hqc.backends.rtl.emission.schedule import schedule
from hqc.backends.rtl.emission.verilog import circuit_module
from hqc.backends.rtl.lowering.csd import digits
from hqc.backends.rtl.lowering.lower import lower
from hqc.cli.console import Console
from hqc.cli.estimate_quick import predict, prediction_text
from hqc.diagnostics import HqcError
from hqc.numerics.types import Codes, FixedType, Overflow, Range, Rounding

GRAPHS = (
    lambda: residual(np.random.default_rng(2)),
    lambda: convolutions(2, slice(None, None, 3)),
    lambda: together(pools, movements, elementwise),
)


def ends(size: int, low: int, high: int) -> tuple[Codes, Codes]:
    return np.full(size, low, np.int64), np.full(size, high, np.int64)


def dense(weight: Codes, bits: int, bias: Codes | None = None) -> Network:
    n_in, n_out = weight.shape
    x = Input("x", (), (n_in,), FixedType(False, bits, bits))
    held = np.zeros(n_out, np.int64) if bias is None else bias
    widest = Range(int(weight.min()), int(weight.max())).fit()
    constants = Constant(weight, widest), Constant(held, Range(-99, 99).fit())
    accum = accumulator(x.result.limits, *constants)
    y = Dense("y", ("x",), (n_out,), accum, weight=constants[0], bias=constants[1], accum=accum)
    return Network((x, y), ("x",), ("y",))


def alone(layer: Layer, bits: int, size: int) -> Network:
    x = Input("x", (), (size,), FixedType(True, bits, bits))
    return Network((x, layer), ("x",), ("y",))


# --- features -------------------------------------------------------------------------------


@given(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=8))
def test_digit_planes_are_the_canonical_digits(numbers: list[int]) -> None:
    planes = digit_planes(np.array(numbers))
    powers = 1 << np.arange(len(planes))
    assert (powers @ planes.astype(np.int64)).tolist() == numbers
    assert np.abs(planes).sum(axis=0).tolist() == [len(digits(abs(n))) for n in numbers]


@given(st.integers(-(2**30), 2**30), st.integers(0, 2**30))
def test_bits_are_those_of_the_types(low: int, more: int) -> None:
    found = bits_of(np.array([low]), np.array([low + more]))
    assert found.tolist() == [Range(low, low + more).fit().width]


def test_features_of_a_known_matrix() -> None:
    weight = np.array([[1, 2, 3, -1], [1, 2, 0, -1], [0, 0, 0, 0]])
    found = matrix_features(weight, *ends(3, 0, 15))
    # columns 0, 1 and 3 are one, up to a power of two and a sign; column 2 is x * (4 - 1)
    assert (found.inputs, found.columns, found.digits, found.adders) == (2, 2, 4, 2)
    assert (found.deepest, found.width_in) == (2, 4.0)
    assert found.width_out == (5 + 6) / 2  # 0..30 and 0..45
    assert found.turned == 5  # x0 + x1 is needed with both signs
    assert not found.signed


def test_a_sum_that_is_subtracted_from_a_bias_is_not_turned() -> None:
    weight = np.array([[1, -1], [1, -1]])
    bounds = ends(2, 0, 15)
    assert matrix_features(weight, *bounds).turned == 5
    assert matrix_features(weight, *bounds, np.array([0, 7])).turned == 0


def test_pairs_that_recur_and_near_columns_are_seen() -> None:
    rng = np.random.default_rng(0)
    same = np.repeat(rng.integers(-7, 8, (12, 1)), 8, axis=1)
    same[0] = 2 * np.arange(8) + 1
    other = rng.integers(-7, 8, (12, 8))
    near, far = (matrix_features(w, *ends(12, 0, 15)) for w in (same, other))
    assert near.sharing > 2 * far.sharing
    assert near.tree < 0.5 * far.tree


def test_what_does_not_vary_is_left_out() -> None:
    low, high = np.array([3, 0]), np.array([3, 15])
    assert matrix_features(np.array([[5], [1]]), low, high).adders == 0
    assert matrix_features(np.zeros((4, 3), np.int64), *ends(4, 0, 15)).inputs == 0


# --- counts ---------------------------------------------------------------------------------


def test_counts_of_an_assignment() -> None:
    tally = OperationCounts(copies=3)
    x = Bounds(*ends(2, -512, 511), 4)
    y = tally.assign(x, FixedType(False, 4, 4, Rounding.ROUND, Overflow.SAT))
    assert (y.lo.tolist(), y.hi.tolist(), y.fraction) == ([0, 0], [15, 15], 0)
    assert tally.counts["round"] == 3 * 2 * 7  # -32..32 in front of the clamp
    assert tally.counts["sticky"] == 3 * 2 * 4
    assert tally.counts["clamp"] == 3 * 2 * 4


def test_bounds_are_those_of_the_lowering() -> None:
    for make in (GRAPHS[0], GRAPHS[1]):
        network = read_network(*make())
        design = lower(network)
        found = operation_counts(network)
        for block in design.blocks:
            if block.name in found and block.kind in ("relu", "requantise", "cast"):
                widths = sum(r.fit().width for r in block.ranges)
                assert found[block.name].bits_out >= widths, block.name


@pytest.mark.parametrize("make", GRAPHS)
def test_every_layer_is_counted(make: Callable[[], tuple[Model, Partition]]) -> None:
    network = read_network(*make())
    names = [layer.name for layer in network.layers if not isinstance(layer, Input)]
    found = quick_estimate(network)
    assert [row.name for row in found.rows] == names
    assert found.size == pytest.approx(sum(row.size for row in found.rows))
    assert all(row.size >= 0 for row in found.rows)


# --- figures --------------------------------------------------------------------------------


def matrix(bits: int, shape: tuple[int, int] = (24, 12), seed: int = 1) -> Codes:
    rng = np.random.default_rng(seed)
    most = (1 << (bits - 1)) - 1
    return np.rint(np.clip(rng.normal(0, 0.4, shape), -1, 1) * most).astype(np.int64)


def test_more_bits_are_more_luts() -> None:
    by_weights = [quick_estimate(dense(matrix(bits), 6)).size for bits in range(2, 9)]
    by_inputs = [quick_estimate(dense(matrix(5), bits)).size for bits in range(1, 11)]
    assert by_weights == sorted(by_weights)
    assert by_inputs == sorted(by_inputs)


def test_more_bits_are_more_area() -> None:
    by_weights = [quick_estimate(dense(matrix(bits), 6), AREA).size for bits in range(2, 9)]
    by_inputs = [quick_estimate(dense(matrix(5), bits), AREA).size for bits in range(1, 11)]
    assert by_weights == sorted(by_weights)
    assert by_inputs == sorted(by_inputs)


def test_an_area_has_the_flip_flops_in_it() -> None:
    network, table = dense(matrix(6, (48, 16)), 8), coefficients(AREA)
    slow, fast = (quick_estimate(network, AREA, clock) for clock in (5.0, 2.0))
    more = fast.flip_flops - slow.flip_flops
    assert more > 0
    assert fast.size - slow.size == pytest.approx(table.register * more)
    logic = table.logic(operation_counts(network)["y"])
    assert slow.size == pytest.approx(logic + table.register * slow.flip_flops)
    assert any("mapped for 5 ns" in note for note in fast.notes)
    assert not any("mapped for 5 ns" in note for note in slow.notes)
    luts = [quick_estimate(network, clock_ns=clock).size for clock in (5.0, 2.0)]
    assert luts[0] == luts[1]


def test_given_tables_cost_gates_by_their_content() -> None:
    codes = np.arange(64)
    smooth, rough = codes // 8, np.random.default_rng(0).integers(0, 8, 64)
    found = []
    for row in (smooth, rough):
        tally = OperationCounts()
        tally.look_up(Bounds(*ends(1, 0, 63), 0), row[None, :], 0)
        found.append(tally.counts)
    assert found[0]["table"] == found[1]["table"] == 3  # one look-up table a bit
    assert found[0]["flip"] == 1 + 3 + 7  # bits of 0..7, eight entries each
    assert found[1]["flip"] > 60


@given(st.integers(2, 7), st.integers(0, 50))
def test_a_layer_twice_as_wide_takes_more(bits: int, seed: int) -> None:
    wide = matrix(bits, (16, 16), seed)
    if np.any(wide[:, :8]):
        half = quick_estimate(dense(wide[:, :8], 6)).size
        assert half <= quick_estimate(dense(wide, 6)).size


def test_adders_are_near_those_of_the_solver() -> None:
    for bits, shape in ((3, (16, 16)), (5, (24, 12)), (7, (12, 20))):
        weight = matrix(bits, shape, 3)
        network = dense(weight, 6)
        known = adder_bits(lower(network).blocks[-1].circuit)
        (held, _), *_ = operation_counts(network)["y"].matrices
        assert coefficients().adder_bits(held) == pytest.approx(known, rel=0.3)


def test_latency_is_near_the_schedule() -> None:
    network = dense(matrix(6, (48, 16)), 8)
    for clock in (2.0, 5.0, 20.0):
        latency = schedule(lower(network), cutoff_of(clock)).latency
        assert abs(quick_estimate(network, clock_ns=clock).latency - latency) <= 1 + latency / 3


@pytest.mark.parametrize(("target", "unit"), [(LUTS, "lut"), (AREA, "area_um2")])
def test_the_document_says_what_it_is(target: str, unit: str) -> None:
    found = quick_estimate(dense(matrix(4), 6), target).to_json()
    json.dumps(found)
    assert (found["target"], found["predicted"]) == (target, True)
    assert "Yosys" in found["fitted"]["tool"]
    assert found["total"][f"{unit}_most"] > found["total"][unit] > 0
    assert found["layers"][0][unit] == found["total"][unit]
    assert any("not synthesised" in note for note in found["notes"])


def test_other_targets_are_refused() -> None:
    with pytest.raises(HqcError, match=r"HQC434(.|\n)*fpga-xcup and asic-osu018"):
        quick_estimate(dense(matrix(3), 4), "asic-my.lib")


@pytest.mark.parametrize("target", [LUTS, AREA])
def test_the_table_knows_requantisers_between_its_rows(target: str) -> None:
    table = coefficients(target)
    low, high = table.requantiser(12, 6), table.requantiser(13, 6)
    assert table.requantiser(12.5, 6) == pytest.approx((low + high) / 2)
    assert table.requantiser(99, 6) == table.requantiser(200, 6)
    assert table.requantiser(20, 6) > table.requantiser(8, 6) > 0


# --- against the tool -----------------------------------------------------------------------


def scaled(scale: int, bits: int) -> Network:
    biases = np.arange(8) * 37 - 100
    held = Constant(np.array([scale]), Range(scale, scale, -16).fit())
    bias = Constant(biases, Range(-100, 200, 0).fit())
    type_ = FixedType(False, bits, bits, Rounding.FLOOR, Overflow.SAT)
    return alone(Requantise("y", ("x",), (8,), type_, scale=held, bias=bias), 14, 8)


def synthesised(network: Network, folder: Path, target: str) -> Figures:
    design = lower(network)
    block, stages = design.blocks[-1], schedule(design, cutoff_of(5.0))
    path = folder / "layer.v"
    text = circuit_module("layer", block.circuit, stages.blocks[block.name], block.bus, False)
    path.write_text(text, encoding="utf-8")
    return measure([path], "layer", target)


def rectified() -> Network:
    type_ = FixedType(False, 6, 6, Rounding.FLOOR, Overflow.SAT)
    return alone(Activation("y", ("x",), (16,), type_, function="relu"), 12, 16)


@pytest.mark.emulation
@pytest.mark.parametrize(
    ("network", "within"),
    [
        (dense(matrix(4, (10, 8)), 6), 0.35),
        (dense(matrix(6, (8, 6)), 5, np.arange(6) - 3), 0.35),
        (scaled(46985, 8), 0.6),
        (rectified(), 0.25),
    ],
)
def test_predictions_are_near_yosys(network: Network, within: float, tmp_path: Path) -> None:
    if yosys.find_or_none() is None:
        pytest.skip("no Yosys")
    figures = synthesised(network, tmp_path, LUTS)
    assert quick_estimate(network).size == pytest.approx(figures.lut, rel=within)


@pytest.mark.emulation
@pytest.mark.parametrize(
    ("network", "within"),
    [
        (dense(matrix(4, (10, 8)), 6), 0.35),
        (dense(matrix(6, (48, 6)), 5, np.arange(6) - 3), 0.35),  # of several stages
        (scaled(46985, 8), 0.6),
        (rectified(), 0.6),  # one limit is fewer gates than two
    ],
)
def test_areas_are_near_yosys(network: Network, within: float, tmp_path: Path) -> None:
    if yosys.find_or_none() is None or not OSU018.is_file():
        pytest.skip("no Yosys, or no osu018 cells")
    figures = synthesised(network, tmp_path, AREA)
    assert quick_estimate(network, AREA).size == pytest.approx(figures.area_um2, rel=within)


@pytest.mark.parametrize("target", [LUTS, AREA])
def test_the_bars_are_of_all_kinds(target: str) -> None:
    table = coefficients(target)
    assert set(table.bars) >= {"dense", "requantise", "threshold", "table", "activation"}
    assert 0 < table.total < 0.3
    assert min(table.factors.values()) >= 0


def test_people_read_layers_bars_and_a_sum() -> None:
    text = prediction_text(quick_estimate(dense(matrix(4), 6)))
    rows = [line.split() for line in text.splitlines() if line.startswith(("y ", "sum"))]
    assert [row[0] for row in rows] == ["y", "sum"]
    assert "predicted, fitted on Yosys" in text
    assert "not synthesised" in text


def test_people_read_areas_of_cells() -> None:
    text = prediction_text(quick_estimate(dense(matrix(4), 6), AREA))
    assert text.startswith("asic-osu018: predicted")
    assert "area um2" in text
    assert "LUT" not in text


def test_one_run_for_all_is_nothing_to_predict() -> None:
    options = Namespace(directory="nowhere", flat=True, quick=True, clock=None, target="fpga-xcup")
    with pytest.raises(HqcError, match=r"HQC001.*--flat"):
        predict(options, Console())
