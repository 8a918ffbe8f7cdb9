"""Look-ups in constant tables, and what the host does with the last codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from support.qonnx_graphs import Net

from hqc import pipeline
from hqc.diagnostics import HqcError
from hqc.execution.fast import Fast
from hqc.execution.reference import Reference
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline

RNG = np.random.default_rng(7)
TABLE = RNG.normal(0, 1, (11, 4)).astype(np.float32)
IDS = RNG.integers(0, 11, (20, 3))


def indices(net: Net) -> str:
    net.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 3]))
    return "ids"


def lowered(net: Net) -> Any:
    model = net.model("y")
    pipeline.run(model, parse_pipeline(pipeline.DEFAULT), Registry.builtin(), check_samples=16)
    return model


@pytest.mark.parametrize("behind", [False, True])
def test_rows_of_a_quantised_table(behind: bool) -> None:
    """The quantiser may stand on the table, or on what was looked up."""
    net = Net()
    table = net.const(TABLE)
    if behind:
        net.quant(net.op("Gather", table, indices(net), axis=0), 0.25, 4, name="y")
    else:
        net.op("Gather", net.quant(table, 0.25, 4), indices(net), axis=0, name="y")
    model = net.model("y")
    want = (np.clip(np.rint(TABLE / 0.25), -8, 7) * 0.25)[IDS]
    inputs = {"ids": IDS.astype(np.float32)}
    np.testing.assert_array_equal(Reference(model).run(inputs)["y"], want)
    np.testing.assert_array_equal(Fast(lowered(net)).run(inputs)["y"], want)


def test_embeddings_feed_layers() -> None:
    net = Net()
    rows = net.op("Gather", net.quant(net.const(TABLE), 0.3, 4), indices(net), axis=0)
    flat = net.op("Flatten", rows)
    net.quant(net.dense(flat, RNG.normal(0, 0.4, (12, 5))), 0.2, 4, name="y")
    inputs = {"ids": IDS.astype(np.float32)}
    want = Reference(net.model("y")).run(inputs)["y"]
    np.testing.assert_array_equal(Fast(lowered(net)).run(inputs)["y"], want)


def test_tables_that_are_not_quantised_are_refused() -> None:
    net = Net()
    net.op("Gather", net.const(TABLE), indices(net), axis=0, name="y")
    with pytest.raises(HqcError, match="HQC103"):
        net.model("y")


@pytest.mark.parametrize(
    ("op", "attributes", "outputs"),
    [
        ("Softmax", {"axis": -1}, 1),
        ("ArgMax", {"axis": 1, "keepdims": 0}, 1),
        ("TopK", {"axis": 1}, 2),
    ],
)
def test_decisions_are_the_hosts(op: str, attributes: dict[str, Any], outputs: int) -> None:
    net = Net()
    x = net.quant(net.input("x", 6), 0.25, 5)
    x = net.dense(x, RNG.normal(0, 0.4, (6, 5)))
    names = ["y", "z"][:outputs]
    inputs = [x, net.const(np.array([2]), np.int64)] if op == "TopK" else [x]
    net.nodes.append(helper.make_node(op, inputs, names, name="decide", **attributes))
    if op != "Softmax":
        net.kinds[names[-1]] = TensorProto.INT64
    model = net.model(*names)
    given = {"x": RNG.normal(0, 2, (20, 6)).astype(np.float32)}
    want = Reference(model).run(given)
    pipeline.run(model, parse_pipeline(pipeline.DEFAULT), Registry.builtin(), check_samples=16)
    got = Fast(model).run(given)
    for name in names:
        np.testing.assert_array_equal(got[name], want[name])
