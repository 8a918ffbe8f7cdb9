"""Circuits: every operation's bounds hold and are reached, and building changes no value."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import (
    Add,
    AtLeast,
    Circuit,
    Clamp,
    Constant,
    Input,
    Larger,
    Lookup,
    Product,
    RoundShift,
    Select,
    Wrap,
    bounds_of,
    evaluate,
    operands,
    rewire,
)
from hqc.numerics.types import FixedType, Overflow, Range, Rounding

X, Y = Range(-7, 5), Range(0, 9)
OPERATIONS = [
    Constant(-3),
    Add(0, 1),
    Add(0, 1, 2, 0, minus=True),
    Add(0, 1, 0, 3),
    *(RoundShift(0, 2, rounding) for rounding in Rounding),
    RoundShift(1, -2),
    Clamp(0, 0, None),
    Clamp(0, -4, 3),
    Product(0, 1),
    Product(0, 0),
    Larger(0, 1),
    AtLeast(0, 2),
    AtLeast(0, 6),
    Lookup(0, -7, tuple(range(40, 14, -2))),
]


def _all_inputs(*ranges: Range) -> np.ndarray:
    return np.array(list(itertools.product(*(range(r.lo, r.hi + 1) for r in ranges))), np.int64)


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_bounds_are_exact(operation):
    ranges = (X, Y)
    bounds = bounds_of(operation, ranges)
    circuit = Circuit((Input(0), Input(1), operation), (*ranges, bounds), (2,))
    found = evaluate(circuit, _all_inputs(X, Y))[:, 2]
    assert (found.min(), found.max()) == (bounds.lo, bounds.hi)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_wrap_keeps_the_low_bits(width, signed):
    operation = Wrap(0, width, signed)
    bounds = bounds_of(operation, (X,))
    circuit = Circuit((Input(0), operation), (X, bounds), (1,))
    found = evaluate(circuit, _all_inputs(X))
    assert ((found[:, 0] - found[:, 1]) % (1 << width) == 0).all()
    assert bounds.lo <= found[:, 1].min()
    assert found[:, 1].max() <= bounds.hi
    limits = FixedType(signed, width, width).limits
    assert limits.contains(bounds)


def test_select_takes_the_first_where_the_bit_is_set():
    circuit = Circuit(
        (Input(0), Input(1), AtLeast(0, 0), Select(2, 0, 1)), (X, Y, Range(0, 1), X.join(Y)), (3,)
    )
    values = evaluate(circuit, _all_inputs(X, Y))
    assert (values[:, 3] == np.where(values[:, 0] >= 0, values[:, 0], values[:, 1])).all()
    with pytest.raises(ValueError, match="choice"):
        bounds_of(Select(0, 0, 1), (X, Y))


def test_a_lookup_outside_its_table_is_refused():
    with pytest.raises(ValueError, match="leaves a table"):
        bounds_of(Lookup(0, -6, tuple(range(12))), (X,))


def test_inputs_outside_their_range_are_refused():
    circuit = Circuit((Input(0),), (X,), (0,))
    with pytest.raises(ValueError, match="input 0"):
        evaluate(circuit, np.array([[6]]))


def test_wide_wires_are_refused():
    wide = Range(0, 1 << 63)
    circuit = Circuit((Input(0), Constant(1 << 63)), (X, wide), (1,))
    with pytest.raises(OverflowError, match="wire 1"):
        evaluate(circuit, np.zeros((1, 1), np.int64))


def test_rewiring_moves_every_operand():
    operation = Select(2, 0, 1)
    assert operands(operation) == (2, 0, 1)
    assert rewire(operation, [10, 11, 12]) == Select(12, 10, 11)


def test_equal_operations_share_a_wire_and_dead_ones_go():
    build = Builder((X, Y))
    x, y = build.inputs
    first, second = build.plus(x, y), build.plus(x, y)
    build.product(x, y)
    circuit = build.finish([first, second])
    assert first == second
    assert [type(op).__name__ for op in circuit.ops] == ["Input", "Input", "Add"]
    assert circuit.inputs == (X, Y)
    assert circuit.results == (X + Y,) * 2


def test_what_changes_nothing_is_left_out():
    build = Builder((X, Y))
    x, y = build.inputs
    zero = build.constant(0)
    assert build.plus(x, zero) == x
    assert build.plus(zero, y) == y
    assert build.clamp(x, -7, 5) == x
    assert build.wrap(x, 4, signed=True) == x
    assert build.larger(y, build.constant(9)) == build.constant(9)
    assert build.select(build.at_least(x, 0), y, y) == y
    assert build.shift(x, 0) == x


def test_an_unused_input_stays():
    build = Builder((X, Y))
    circuit = build.finish([build.inputs[1]])
    assert circuit.inputs == (X, Y)


@given(
    lo=st.integers(-200, 200),
    span=st.integers(0, 300),
    width=st.integers(1, 7),
    integer=st.integers(-3, 9),
    signed=st.booleans(),
    rounding=st.sampled_from(list(Rounding)),
    overflow=st.sampled_from(list(Overflow)),
    fraction=st.integers(-2, 8),
)
def test_assignment_is_that_of_the_type(
    lo, span, width, integer, signed, rounding, overflow, fraction
):
    if overflow is Overflow.SAT_SYM and not signed:
        overflow = Overflow.SAT
    type_ = FixedType(signed, width, integer, rounding, overflow)
    build = Builder((Range(lo, lo + span),))
    circuit = build.finish([build.assign(build.inputs[0], fraction, type_)])
    codes = np.arange(lo, lo + span + 1, dtype=np.int64)[:, None]
    found = evaluate(circuit, codes)[:, circuit.outputs[0]]
    assert (found == type_.quantise(codes[:, 0], -fraction)).all()
    assert type_.limits.contains(
        Range(circuit.results[0].lo, circuit.results[0].hi, -type_.fraction)
    )
