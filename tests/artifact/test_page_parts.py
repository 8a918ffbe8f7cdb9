"""Numbers, charts and figures of layers, each by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqc.artifact.page.layers import layers_of
from hqc.artifact.page.numbers import amount
from hqc.artifact.page.timing import timing_of
from hqc.artifact.page.training import HEIGHT, LEFT, TOP, WIDTH, chart, training_of
from hqc.backends.layers import Constant, Conv, Dense, Sliding
from hqc.backends.layers.figures import _work, spare_bits
from hqc.numerics.types import FixedType, Overflow, Range, Rounding

ENTERING = FixedType(False, 6, 6)
RECORD = {
    "model": "net.py:Net",
    "bits": {"fc1": {"weights": 6, "activations": 8}, "fc2": {"weights": 3, "activations": 7}},
    "costs": {"bops": 120.0, "size": 64.0},
    "loss_increase": {"predicted": 0.25},
    "accuracy": {"on": "validation", "float": 0.9, "quantised": 0.875},
    "history": {"float": [], "quantised": [
        {"number": 1, "accuracy": 0.5, "valid_accuracy": None},
        {"number": 2, "accuracy": 0.75, "valid_accuracy": 0.7},
    ]},
    "front": {"cost": "bops", "points": [[100.0, 0.5], [120.0, 0.25], [300.0, 0.01]]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1234, "1,234"),
        (12345.6, "12,346"),
        (1.5, "1.5"),
        (0.00012345, "0.0001234"),
        (349248, "349,248"),
        (4652832, "4.65 M"),
        (3e9, "3 G"),
        (-2.5e12, "-2.5 T"),
    ],
)
def test_amounts(value: float, text: str) -> None:
    assert amount(value) == text


def constant(codes: np.ndarray, width: int) -> Constant:
    return Constant(codes.astype(np.int64), FixedType(True, width, width))


def test_bit_operations_are_those_that_budgets_count() -> None:
    """The formula of the allocation, for the same layer."""
    from hqc.codesign.costs.tables import Shape, layer_bops

    rng = np.random.default_rng(1)
    dense_codes, conv_codes = rng.integers(-2, 3, (16, 5)), rng.integers(-2, 3, (3, 3, 4, 8))
    common = {"name": "l", "sources": ("x",), "result": ENTERING, "accum": FixedType(True, 20, 20)}
    bias = constant(np.zeros(8), 1)
    dense = Dense(shape=(5,), weight=constant(dense_codes, 3), bias=bias, **common)
    sliding = Sliding((6, 6), (4, 5), (3, 3), (1, 1), (1, 1), (0, 0))
    conv = Conv(
        shape=(4, 5, 8),
        weight=constant(conv_codes, 3),
        bias=bias,
        sliding=sliding,
        group=1,
        **common,
    )
    for layer, codes, positions in ((dense, dense_codes, 1), (conv, conv_codes, 20)):
        zero = int((codes == 0).sum())
        shape = Shape("l", codes.shape[-1], codes.size // codes.shape[-1], positions, zero)
        found = _work(layer, ENTERING)
        assert math.isclose(found["bit_operations"], layer_bops(shape, 3, 6))
        assert found["products"] == positions * (codes.size - zero)
        assert (found["zero_weights"], found["weight_bits"]) == (zero, 3 * codes.size)
        assert found["accumulator_bits"] == 20


@given(st.booleans(), st.integers(1, 12), st.integers(-3, 9), st.data())
def test_spare_bits_are_those_of_the_narrowest_type(
    signed: bool, width: int, integer: int, data: st.DataObject
) -> None:
    type_ = FixedType(signed, width, integer, Rounding.ROUND, Overflow.SAT)
    limits = type_.limits
    lo = data.draw(st.integers(limits.lo, limits.hi))
    hi = data.draw(st.integers(lo, limits.hi))
    bounds = Range(lo, hi, limits.exponent)
    spare = spare_bits(type_, bounds)
    assert 0 <= spare < width
    kept = FixedType(lo < 0, width - spare, integer)
    assert Range(lo, hi).fit().width == kept.width
    if spare < width - 1:
        fewer = FixedType(lo < 0, width - spare - 1, 0).limits
        assert not (fewer.lo <= lo and hi <= fewer.hi)


def test_shares_and_totals() -> None:
    def layer(name: str, work: float) -> dict[str, object]:
        types = {"result": "fixed<9,9>", "accum": "fixed<12,12>"}
        weights = {"weights": 10, "zero_weights": 5, "weight_bits": 40, "accumulator_bits": 12}
        work_ = {"products": 5, "bit_operations": work}
        shape = {"range": {"low": -3, "high": 1 << 70, "exponent": -2}, "spare_bits": 1}
        return (
            {"name": name, "kind": "dense", "where": "n", "types": types} | weights | work_ | shape
        )

    found = layers_of([layer("a", 300.0), layer("b", 100.0)])
    assert [row.share for row in found.rows] == [75.0, 25.0]
    assert dict(found.totals)["weights"] == "20, 50 % zero"
    assert found.rows[0].weights == (4, "10", 50.0)
    assert found.rows[0].bounds == "−3 … 2^71"
    assert found.rows[0].step == "× 2^−2"
    assert found.widest == 12


@pytest.mark.parametrize(
    "project", [None, {}, {"latency": "soon"}, {"latency": True}, {"ii": -1}, {"latency": 1e400}, 5]
)
def test_no_timing_where_none_is_stated(project: object) -> None:
    assert timing_of({"clock_ns": 5.0}, {"project": project}) is None


def test_a_tool_knows_better_than_the_project() -> None:
    report = {
        "project": {"latency": 3, "ii": 1},
        "build": {"CSynthesisReport": {"WorstLatency": "8", "IntervalMax": "1"}},
    }
    found = timing_of({"clock_ns": 4.0}, report)
    assert found is not None
    assert (found.latency, found.latency_ns, found.crossings) == (8, 32.0, 1.28)
    assert found.source == "C synthesis"


def test_what_was_measured_counts_more_than_what_was_said() -> None:
    measured = {"latency": 7, "simulator": "Verilator 5"}
    found = timing_of({"clock_ns": 4.0}, {"project": {"latency": 3, "ii": 2, "measured": measured}})
    assert found is not None
    assert (found.latency, found.ii, found.source) == (7, 2, "the emulation (Verilator 5)")


def test_a_training_record() -> None:
    found = training_of(RECORD)
    assert found.bits == (("fc1", 6, 8), ("fc2", 3, 7))
    assert dict(found.facts)["quantised accuracy (validation)"] == "87.50 %"
    assert found.front is not None
    assert found.front.chosen == found.front.curves[0].points[1]
    assert found.history is not None
    assert [curve.name for curve in found.history.curves] == ["quantised, training"]
    assert "scales" not in dict(found.facts)
    scales = {"per_channel": True, "power_of_two": False}
    chosen = training_of({**RECORD, "scales": scales})
    assert dict(chosen.facts)["scales"] == "free, per channel for weights"


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(0, 1e3, allow_subnormal=False)
        ),
        min_size=1,
        max_size=20,
    )
)
def test_points_stay_inside_their_chart(points: list[tuple[float, float]]) -> None:
    found = chart(("x", "y"), {"line": points})
    for x, y in found.curves[0].points:
        assert LEFT - 1e-6 <= x <= LEFT + WIDTH + 1e-6
        assert TOP - 1e-6 <= y <= TOP + HEIGHT + 1e-6
    assert 2 <= len(found.x_ticks) <= 7
    assert 2 <= len(found.y_ticks) <= 7
