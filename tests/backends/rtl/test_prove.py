"""Proofs of designs: what is right is proven, and each kind of mistake is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir import Model
from support.rtl_designs import SIX
from support.tensor_graphs import convolutions, elementwise, movements, pools, residual, together

from hqc.analysis.partition import Partition
from hqc.backends import layers
from hqc.backends.layers import Constant, Layer, Network
from hqc.backends.layers.evaluate import run as run_network
from hqc.backends.layers.network import read_network
from hqc.backends.rtl.builder import Builder
from hqc.backends.rtl.circuit import (
    Add,
    Circuit,
    Clamp,
    Input,
    Larger,
    Lookup,
    Op,
    Product,
    RoundShift,
    Wrap,
)
from hqc.backends.rtl.circuit import Constant as Number
from hqc.backends.rtl.design import Block, Design, run
from hqc.backends.rtl.emission.project import write
from hqc.backends.rtl.lowering.lower import lower
from hqc.backends.rtl.options import RtlOptions
from hqc.backends.rtl.proof.certify import certify
from hqc.backends.rtl.proof.prove import prove
from hqc.diagnostics import Exit, HqcError
from hqc.numerics.types import FixedType, Overflow, Range, Rounding
from hqc.pipeline.backend import BackendOptions

GRAPHS: dict[str, Callable[[], tuple[Model, Partition]]] = {
    "conv1d": lambda: convolutions(1, slice(None, None, 2)),
    "conv2d": lambda: convolutions(2, slice(None, None, 9)),
    "others": lambda: together(pools, movements, elementwise),
    "residual": lambda: residual(np.random.default_rng(2)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_every_layer_is_proven_from_its_text(name: str, tmp_path: Path) -> None:
    model, parts = GRAPHS[name]()
    network = read_network(model, parts)
    design = lower(network)
    first = prove(network, design)
    assert first.proven
    interface = "handshake" if name == "others" else "fixed"
    options = BackendOptions(project="net", clock_ns=2.0, own=RtlOptions(interface=interface))
    write(design, parts, options, tmp_path)
    found = certify(network, parts, tmp_path)
    assert found.proven
    assert "the Verilog" in found.summary()
    assert "proven for all inputs" in found.summary()
    assert [p.name for p in found.layers] == [p.name for p in first.layers]
    record = found.describe()
    assert record["complete"]
    assert record["open"] == []
    assert len(record["proven"]) == len(design.blocks)


# --- what must be found -------------------------------------------------------------------------


def code(width: int, fraction: int = 0, signed: bool = True) -> FixedType:
    return FixedType(signed, width, width - fraction)


def constant(codes: object, fraction: int = 0) -> Constant:
    held = np.array(codes, np.int64)
    bounds = Range(int(held.min()), int(held.max()), -fraction)
    return Constant(held, bounds.fit())


def network(*made: Layer) -> Network:
    """A chain of layers behind an input of six-bit elements."""
    source = layers.Input("x", (), (made[0].size if len(made) == 1 else 4,), SIX)
    return Network((source, *made), ("x",), (made[-1].name,))


def dense(result: FixedType, seed: int = 0, inputs: int = 4, outputs: int = 3) -> layers.Dense:
    rng = np.random.default_rng(seed)
    weight, bias = rng.integers(-9, 10, (inputs, outputs)), rng.integers(-40, 41, outputs)
    held = constant(weight, 2), constant(bias, 1)
    return layers.Dense(
        "d", ("x",), (outputs,), result, weight=held[0], bias=held[1], accum=code(20, 2)
    )


def requantise(result: FixedType, size: int = 4) -> layers.Requantise:
    scale, bias = constant([3, 5, -7, 11][:size], 4), constant([1, 0, -9, 2][:size], 3)
    return layers.Requantise("d", ("x",), (size,), result, scale=scale, bias=bias)


def changed(design: Design, change: Callable[[Circuit], Circuit]) -> Design:
    """The design with another circuit in its last block."""
    *rest, last = design.blocks
    return replace(design, blocks=(*rest, replace(last, circuit=change(last.circuit))))


def with_op(kind: type[Op], change: Callable[..., Op]) -> Callable[[Circuit], Circuit]:  # type: ignore[valid-type]
    """A change of the last operation of a kind."""

    def changed_circuit(circuit: Circuit) -> Circuit:
        ops = list(circuit.ops)
        at = max(i for i, op in enumerate(ops) if isinstance(op, kind))
        ops[at] = change(ops[at])
        return Circuit(tuple(ops), circuit.ranges, circuit.outputs)

    return changed_circuit


def with_range(number: int, lo: int, hi: int) -> Callable[[Circuit], Circuit]:
    """A change of the declared range of the wire behind an output."""

    def changed_circuit(circuit: Circuit) -> Circuit:
        ranges = list(circuit.ranges)
        held = ranges[circuit.outputs[number]]
        ranges[circuit.outputs[number]] = Range(held.lo + lo, held.hi - hi)
        return Circuit(circuit.ops, tuple(ranges), circuit.outputs)

    return changed_circuit


def counting(inputs: tuple[Range, ...], thresholds: tuple[int, ...]) -> Circuit:
    """`1 + the thresholds that are reached`, for each input."""
    b = Builder(inputs)
    found = []
    for wire in b.inputs:
        total = b.constant(1)
        for threshold in thresholds:
            total = b.plus(b.at_least(wire, threshold), total)
        found.append(total)
    return b.finish(found)


ROUNDED = FixedType(True, 5, 4, Rounding.ROUND, Overflow.SAT)
EXACT = code(20, 2)
RECTIFIED = FixedType(False, 4, 4, Rounding.HALF_UP, Overflow.SAT)
MISTAKES: dict[str, tuple[Layer, Callable[[Circuit], Circuit], str]] = {
    "a constant": (
        dense(EXACT),
        with_op(Number, lambda op: Number(op.value + 1)),
        "counterexample: with",
    ),
    "operands of a difference": (
        dense(EXACT),
        with_op(Add, lambda op: replace(op, x=op.y, y=op.x, minus=True)),
        "is not the layer's sum",
    ),
    "a sign": (dense(EXACT), with_op(Add, lambda op: replace(op, minus=not op.minus)), "sum"),
    "a shift": (dense(EXACT), with_op(Add, lambda op: replace(op, left=op.left + 1)), "sum"),
    "a rounding mode": (
        dense(ROUNDED),
        with_op(RoundShift, lambda op: replace(op, rounding=Rounding.FLOOR)),
        "counterexample: v",
    ),
    "a rounding shift": (
        dense(ROUNDED),
        with_op(RoundShift, lambda op: replace(op, shift=op.shift + 1)),
        "counterexample: v",
    ),
    "a tie": (
        dense(ROUNDED),
        with_op(RoundShift, lambda op: replace(op, rounding=Rounding.HALF_UP)),
        "counterexample: v",
    ),
    "a saturation": (
        dense(ROUNDED),
        with_op(Clamp, lambda op: replace(op, hi=None if op.hi is None else op.hi - 1, lo=-15)),
        "it must be",
    ),
    "a range": (dense(EXACT), with_range(0, 0, 1), "a wire that holds"),
    "the other end of a range": (dense(EXACT), with_range(1, 1, 0), "a wire that holds"),
    "a wrap": (
        dense(replace(EXACT, width=6, integer=4)),
        with_op(Wrap, lambda op: replace(op, width=5)),
        "it must be",
    ),
    "a rectifier": (
        layers.Activation("d", ("x",), (4,), RECTIFIED, function="relu"),
        with_op(Clamp, lambda op: replace(op, lo=1)),
        "counterexample: v",
    ),
    "another output": (
        requantise(ROUNDED),
        lambda circuit: replace(circuit, outputs=circuit.outputs[::-1]),
        "reads input",
    ),
    "a table": (
        layers.Table(
            "d",
            ("x",),
            (4,),
            code(6),
            table=constant([[(7 * c) % 41 - 20 for c in range(64)]]),
            step=Constant(np.array([1]), code(1, 0, False)),
            first=-32,
        ),
        with_op(Lookup, lambda op: replace(op, table=(*op.table[:9], 31, *op.table[10:]))),
        "= -23",
    ),
    "a threshold": (
        layers.Threshold(
            "d",
            ("x",),
            (4,),
            code(3, 0, False),
            thresholds=constant([[-20, -3, 0, 11, 12]]),
            bias=1,
        ),
        lambda circuit: counting(circuit.inputs, (-20, -3, 0, 10, 12)),
        "= 10",
    ),
    "a maximum": (
        layers.MaxPool(
            "d",
            ("x",),
            (1, 1, 1),
            SIX,
            sliding=layers.Sliding((1, 4), (1, 1), (1, 4), (1, 4), (1, 1), (0, 0)),
            channels=1,
        ),
        with_op(Larger, lambda op: replace(op, x=op.y)),
        "does not read input",
    ),
    "a product": (
        layers.Merge("d", ("x", "x"), (4,), code(12), function="multiply"),
        with_op(Product, lambda op: replace(op, x=0, y=1)),
        "reads input",
    ),
}


def source_of(layer: Layer) -> Network:
    return Network((layers.Input("x", (), (4,), SIX), layer), ("x",), ("d",))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    layer, change, says = MISTAKES[name]
    net = source_of(layer)
    design = lower(net)
    assert prove(net, design).proven
    with pytest.raises(HqcError) as caught:
        prove(net, changed(design, change))
    assert caught.value.exit == Exit.NOT_EXACT
    assert {found.code for found in caught.value.diagnostics} == {"HQC424"}
    assert "layer d: " in str(caught.value)
    assert says in str(caught.value)


def test_wrong_wiring_is_found() -> None:
    net = read_network(*residual(np.random.default_rng(2)))
    design = lower(net)
    for number, block in enumerate(design.blocks):
        if len(block.index) < 2:
            continue
        index = block.index.copy()
        index[1, 0] = (index[1, 0] + 1) % index.max()
        wrong = list(design.blocks)
        wrong[number] = replace(block, index=index)
        with pytest.raises(HqcError, match=f"HQC424.*layer {block.name}: instance 1 reads"):
            prove(net, replace(design, blocks=tuple(wrong)))


def test_other_names_ports_and_types_are_found() -> None:
    net = source_of(dense(EXACT))
    design = lower(net)
    (block,) = design.blocks
    others: list[Design] = [
        replace(design, blocks=()),
        replace(design, blocks=(replace(block, name="e"),)),
        replace(design, inputs=(replace(design.inputs[0], type=code(7)),)),
        replace(design, blocks=(replace(block, type=code(20, 3)),)),
        replace(design, blocks=(replace(block, type=code(3, 2)),)),
        replace(design, blocks=(replace(block, index=block.index[:, ::-1]),)),
        replace(design, blocks=(replace(block, index=np.repeat(block.index, 2, axis=0)),)),
        replace(design, outputs=("x",)),
    ]
    for other in others:
        with pytest.raises(HqcError, match="HQC424"):
            prove(net, other)


def test_what_is_too_large_to_enumerate_is_open_or_the_definition() -> None:
    wide = code(40)
    source = layers.Input("x", (), (2,), wide)
    result = FixedType(True, 8, 8, Rounding.HALF_UP, Overflow.SAT)
    scale, bias = constant([5, 9], 20), constant([3, 3], 19)
    linear = layers.Requantise("d", ("x",), (2,), result, scale=scale, bias=bias)
    net = Network((source, linear), ("x",), ("d",))
    found = prove(net, lower(net))
    assert found.proven
    assert "the definition, literally" in found.layers[0].describe()["method"]
    wrong = changed(lower(net), with_op(Clamp, lambda op: replace(op, hi=126)))
    assert not prove(net, wrong).proven  # neither proven nor refuted

    relu = layers.Activation("d", ("x",), (2,), code(40), function="relu")
    net = Network((source, relu), ("x",), ("d",))
    found = prove(net, lower(net))
    assert not found.proven
    assert "but for d" in found.summary()
    assert found.describe()["open"][0]["open"]


# --- at random ------------------------------------------------------------------------------------

ROUNDINGS = st.sampled_from(list(Rounding))
OVERFLOWS = st.sampled_from(list(Overflow))


@st.composite
def results(draw: st.DrawFn) -> FixedType:
    width = draw(st.integers(2, 8))
    return FixedType(
        True, width, width - draw(st.integers(-2, 4)), draw(ROUNDINGS), draw(OVERFLOWS)
    )


@settings(max_examples=40, deadline=None)
@given(result=results(), seed=st.integers(0, 10**6), wrong=st.booleans())
def test_random_layers_are_proven_and_random_mistakes_found(
    result: FixedType, seed: int, wrong: bool
) -> None:
    """A changed operation is refuted, or computes the same on every input that was tried."""
    layer = dense(result, seed) if seed % 2 else requantise(result)
    net = source_of(layer)
    design = lower(net)
    assert prove(net, design).proven
    if not wrong:
        return
    rng = np.random.default_rng(seed)
    other = changed(design, lambda circuit: _random_change(circuit, rng))
    x = {"x": np.clip(rng.integers(-40, 40, (4000, 4)), -32, 31)}
    try:
        assert prove(net, other).proven
    except HqcError:
        return
    np.testing.assert_array_equal(run(other, x)["d"], run_network(net, x)["d"])


def _random_change(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    changes: dict[type, Callable[..., Op]] = {
        Add: lambda op: replace(op, right=op.right + 1) if rng.integers(2) else
        replace(op, minus=not op.minus),
        RoundShift: lambda op: replace(op, rounding=list(Rounding)[int(rng.integers(7))]),
        Clamp: lambda op: replace(op, hi=op.hi if op.hi is None else op.hi + int(rng.integers(3))),
        Wrap: lambda op: replace(op, signed=not op.signed),
        Number: lambda op: Number(op.value + int(rng.integers(-2, 3))),
    }  # fmt: skip
    ops = list(circuit.ops)
    able = [i for i, op in enumerate(ops) if type(op) in changes and not isinstance(op, Input)]
    if able:
        at = able[int(rng.integers(len(able)))]
        ops[at] = changes[type(ops[at])](ops[at])
    return Circuit(tuple(ops), circuit.ranges, circuit.outputs)


def test_blocks_are_frozen_for_a_proof() -> None:
    net = source_of(dense(EXACT))
    design = lower(net)
    before = [block.circuit.ops for block in design.blocks]
    prove(net, design)
    assert [block.circuit.ops for block in design.blocks] == before
    assert isinstance(design.blocks[0], Block)
