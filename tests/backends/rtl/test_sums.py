"""Affine forms, products by constants, and forms of step functions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hqc.backends.rtl.affine import Affine, Sums
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import Add, Circuit, Clamp, Input, RoundShift, Wrap, evaluate
from hqc.backends.rtl.cost import adder_bits, depth
from hqc.backends.rtl.lowering import steps as step_forms
from hqc.backends.rtl.lowering.chains import Chains
from hqc.backends.rtl.lowering.csd import digits
from hqc.backends.rtl.lowering.scaled import Scaled
from hqc.backends.rtl.lowering.scalings import equivalents
from hqc.backends.rtl.lowering.steps import Steps
from hqc.backends.rtl.proof.forms import derive
from hqc.numerics.types import FixedType, Overflow, Range, Rounding

SEEDS = st.integers(0, 2**32 - 1)


def products(weight: np.ndarray, bias: list[int], held: Range) -> Circuit:
    from hqc.backends.rtl.lowering.cmvm import multiply

    builder = Builder([held] * len(weight))
    found = multiply(Sums(builder), builder.inputs, weight, bias)
    return builder.finish([builder.shift(x.wire, -x.exponent) for x in found])


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_products_are_exact_narrow_and_the_same_again(seed: int) -> None:
    pytest.importorskip("da4ml")
    rng = np.random.default_rng(seed)
    n_in, n_out = (int(n) for n in rng.integers(1, 12, 2))
    weight = rng.integers(-31, 32, (n_in, n_out)) * (rng.random((n_in, n_out)) < 0.6)
    bias = [int(b) for b in rng.integers(-99, 99, n_out) * (rng.random(n_out) < 0.7)]
    held = Range(-8, 7) if rng.random() < 0.5 else Range(0, 15)
    circuit = products(weight, bias, held)
    x = rng.integers(held.lo, held.hi, (64, n_in), endpoint=True)
    got = evaluate(circuit, x)[:, list(circuit.outputs)]
    assert np.array_equal(got, x @ weight + bias)
    ends = np.minimum(weight * held.lo, weight * held.hi).sum(axis=0) + bias
    assert [r.lo for r in circuit.results] == ends.tolist()
    forms = derive(circuit, circuit.inputs).forms
    for output, column, constant in zip(circuit.outputs, weight.T, bias, strict=True):
        form = forms[output]
        assert form is not None
        assert (form.coefficients.tolist(), form.constant) == (column.tolist(), constant)
    assert products(weight, bias, held).ops == circuit.ops


def test_sums_are_shared_between_columns() -> None:
    pytest.importorskip("da4ml")
    weight = np.array([[1, 1, 2, 5], [1, 1, 2, 5], [0, 1, 0, 0]])
    circuit = products(weight, [0, 0, 0, 0], Range(0, 7))
    adders = [op for op in circuit.ops if isinstance(op, Add)]
    assert len(adders) == 3  # x + y; that and z; that and 4 times itself
    assert depth(circuit) == 2


def test_an_adder_counts_the_bits_that_carry() -> None:
    builder = Builder([Range(0, 15), Range(0, 15)])
    x, y = builder.inputs
    for op, bits in {
        Add(x, y): 5,
        Add(x, y, 0, 2): 5,  # the low two bits pass: 7 bits in all
        Add(x, y, 0, 4): 0,  # no overlap
        Add(x, y, 2, 0, True): 7,  # what is subtracted is negated
        Add(x, y, 0, 2, True): 5,
    }.items():
        one = Builder([Range(0, 15), Range(0, 15)])
        assert adder_bits(one.finish([one.add(op)])) == bits, op


def test_forms_follow_what_is_affine_and_nothing_else() -> None:
    inputs = (Range(-8, 7), Range(0, 3))
    ops = (
        Input(0),
        Input(1),
        Add(0, 1, 2, 1),  # 4 a + 2 b
        RoundShift(2, 1),  # 2 a + b, exact
        RoundShift(3, 1),  # rounds
        Clamp(3, -16, 17),  # never clamps
        Clamp(3, -16, 16),
        Wrap(3, 6, True),  # keeps all
        Wrap(3, 5, True),
    )
    wide = Range(-100, 100)
    circuit = Circuit(ops, (*inputs, *[wide] * 7), (2,))
    found = derive(circuit, inputs)
    assert {w for w, form in enumerate(found.forms) if form is not None} == {0, 1, 2, 3, 5, 7}
    form = found.forms[3]
    assert form is not None
    assert (form.coefficients.tolist(), form.constant) == ([2, 1], 0)
    assert found.reach[3] == Range(-16, 17)


def test_sums_of_the_same_terms_are_one_wire() -> None:
    builder = Builder([Range(0, 7)] * 3)
    sums = Sums(builder)
    a, b, c = builder.inputs
    one, two = sums.plus(sums.plus(a, b), c), sums.plus(sums.plus(c, b), a)
    assert one == two
    back = sums.plus(one, c, minus=True)
    assert builder.ranges[back] == Range(0, 14)
    assert builder.ranges[sums.plus(back, sums.plus(a, b), minus=True)] == Range(0, 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(number=st.integers(1, 2**18).map(lambda n: n | 1))
def test_chains_are_never_longer_than_digits(number: int) -> None:
    chain = Chains().of(number)
    assert chain.adders <= len(digits(number)) - 1
    builder = Builder([Range(-4, 3)])
    sums = Sums(builder)
    found = chain.build(sums, Scaled(builder.inputs[0]))
    form = sums.form(found.wire).times((-1 if found.negative else 1) << found.exponent)
    assert form == Affine({builder.inputs[0]: number})


def test_a_chain_reuses_values() -> None:
    assert Chains().of(45).adders == 2
    assert len(digits(45)) - 1 == 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_equivalent_scalings_give_the_same_codes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factor, shift = int(rng.integers(-999, 1000)), int(rng.integers(4, 12))
    offset = int(rng.integers(-(1 << shift), 1 << shift))
    type_ = FixedType(bool(rng.integers(2)), 5, 5, Rounding.FLOOR, Overflow.SAT)
    first, last = int(rng.integers(-400, 0)), int(rng.integers(1, 400))
    x = np.arange(first, last + 1)
    want = type_.quantise(x * factor + offset, -shift)
    slope = Fraction(factor, 1 << shift)
    found = equivalents(want, first, slope, type_.limits)
    for scaling in found:
        y = (x * scaling.factor + scaling.offset) >> scaling.shift
        assert np.array_equal(np.clip(y, type_.limits.lo, type_.limits.hi), want), scaling
    varies = want[0] != want[-1]
    assert bool(found) == bool(varies)
    if found:
        cost = [len(digits(s.factor)) + len(digits(s.offset)) for s in (found[0],)]
        assert cost[0] <= len(digits(factor)) + len(digits(offset))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=SEEDS)
def test_every_form_of_a_step_function_agrees(seed: int) -> None:
    rng = np.random.default_rng(seed)
    held = Range(int(rng.integers(-300, 0)), int(rng.integers(1, 300)))
    thresholds = rng.integers(held.lo - 20, held.hi + 20, int(rng.integers(1, 60)))
    start = int(rng.integers(-9, 9))
    steps = Steps.of([int(t) for t in thresholds], start, held)
    x = np.arange(held.lo, held.hi + 1)[:, None]
    want = (x >= thresholds).sum(axis=1) + start
    for form in (step_forms._compared, step_forms._searched, step_forms._tabulated):
        builder = Builder([held])
        circuit = builder.finish([form(steps, builder, builder.inputs[0])])
        assert np.array_equal(evaluate(circuit, x)[:, circuit.outputs[0]], want), form


def test_a_damaged_kept_result_is_found_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("da4ml")
    from hqc.backends.rtl.lowering import solver

    monkeypatch.setenv("HQC_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(solver, "_LONG", -1.0)
    kernel, ranges = np.array([[3, 5], [1, 7]], np.float32), [Range(0, 7)] * 2
    first = solver.solve(kernel, ranges, {})
    (kept,) = tmp_path.rglob("*.adders.json")
    assert solver.solve(kernel, ranges, {}) == first
    kept.write_text("{", encoding="utf-8")
    assert solver.solve(kernel, ranges, {}) == first
