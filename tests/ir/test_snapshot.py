"""States kept between passes: shared data, found changes; and how many samples are affordable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model
from support.qonnx_graphs import Net

from hqc.analysis.workload import FEWEST, HELD, WORK, affordable, multiplications
from hqc.ir import add_constant, set_range, set_source, set_type, to_bytes
from hqc.ir.snapshot import is_annotated_only, is_same, snapshot
from hqc.numerics.types import FixedType, Range


def model() -> Model:
    net = Net()
    x = net.quant(net.input("x", 4), 0.125, 6)
    return net.model(net.quant(net.dense(x, np.ones((4, 3))), 0.5, 4))


def test_data_is_shared_and_protected() -> None:
    before = model()
    weights = next(iter(before.graph.initializers.values())).const_value
    copy = snapshot(before)
    assert is_same(copy, before)
    assert to_bytes(copy) == to_bytes(before)
    shared = {id(v.const_value) for v in copy.graph.initializers.values()}
    assert id(weights) in shared
    added = add_constant(before.graph, "fresh", np.ones(3))
    snapshot(before)
    assert added.const_value is not None
    with pytest.raises(ValueError, match="read-only"):
        added.const_value.numpy()[0] = 2.0


def data(changed: Model) -> None:
    value = next(v for v in changed.graph.initializers.values() if v.const_value.size == 12)
    value.const_value = onnx_ir.tensor(np.full((4, 3), 2.0, np.float32), name=value.name)


def rewired(changed: Model) -> None:
    last = tuple(changed.graph)[-1]
    last.replace_input_with(0, changed.graph.inputs[0])


def attribute(changed: Model) -> None:
    tuple(changed.graph)[-1].attributes.add(onnx_ir.AttrInt64("signed", 0))


def data_type(changed: Model) -> None:
    tuple(changed.graph)[-1].outputs[0].dtype = onnx_ir.DataType.DOUBLE


@pytest.mark.parametrize("change", [data, rewired, attribute, data_type], ids=lambda f: f.__name__)
def test_changes_are_found(change: Callable[[Model], None]) -> None:
    now = model()
    before = snapshot(now)
    change(now)
    assert not is_same(before, now)
    assert not is_annotated_only(before, now)


def test_annotations_are_told_apart() -> None:
    now = model()
    before = snapshot(now)
    node = tuple(now.graph)[-1]
    set_type(node.outputs[0], FixedType(True, 4, 4))
    set_range(node.outputs[0], Range(-8, 7, 0))
    set_source(node, "net.py:1")
    assert not is_same(before, now)
    assert is_annotated_only(before, now)


def test_work_per_sample() -> None:
    net = Net()
    x = net.quant(net.input("x", 2, 6, 6), 0.125, 6)
    x = net.op("Conv", x, net.quant(net.const(np.ones((4, 2, 3, 3))), 0.1, 4))
    x = net.op("ConvTranspose", x, net.quant(net.const(np.ones((4, 3, 2, 2))), 0.1, 4))
    x = net.dense(net.op("Flatten", x), np.ones((75, 7)))
    found = multiplications(net.model(net.quant(x, 0.5, 4)))
    assert found == 4 * 16 * 18 + 4 * 16 * 12 + 75 * 7


def test_large_models_are_run_on_fewer_samples() -> None:
    net = Net()
    x = net.quant(net.input("x", 4), 0.125, 6)
    assert affordable(net.model(net.op("Identity", x)), 96) == 96
    net = Net()
    x = net.quant(net.input("x", 1, 1024, 1024), 0.125, 6)
    for _ in range(3):
        x = net.op("Relu", x)
    large = net.model(net.quant(x, 0.5, 4))
    assert affordable(large, 96) == HELD // (1024 * 1024 * len(large.graph))
    net = Net()
    x = net.quant(net.input("x", 8, 512, 512), 0.125, 6)
    weights = net.quant(net.const(np.ones((64, 8, 9, 9))), 0.1, 4)
    wide = net.model(net.op("Conv", x, weights, pads=[4, 4, 4, 4]))
    assert multiplications(wide) > WORK
    assert affordable(wide, 96) == FEWEST
