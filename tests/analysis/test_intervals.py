"""The verifier's own interval arithmetic: sound, tight, and silent where it cannot follow."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_ir import Model, Node, Value
from support.module_texts import SMALL

from hqc.analysis.intervals import derive
from hqc.numerics.types import Range
from hqc.pipeline.integer_verifier import Datapath
from hqc.pipeline.verifier import verify
from hqc.text import parse_module

PICTURE = """
hqc.module version 1 state integer ir 10 opset 18, qonnx 1 {
  input %x : float32[N,2,2,2]
  const %s : float32[] = 0.25
  const %z : float32[] = 0.0
  const %three : float32[] = 3.0
  const %m : float32[2,1,1] as ufixed<2,1> = [[[0.5]], [[1.0]]]
  const %w : float32[8,1] as fixed<2,2>
      = [[1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0]]
  %x0 = qonnx.Quant(%x, %s, %z, %three) {signed = 0}
      : float32[N,2,2,2] as ufixed<3,1,RND_CONV,SAT> in [0, 7]*2^-2
  %scaled = Mul(%x0, %m) : float32[N,2,2,2] as ufixed<4,1> in [0, 14]*2^-3
  %flat = Flatten(%scaled) {axis = 1} : float32[N,8] as ufixed<4,1> in [0, 14]*2^-3
  %acc = MatMul(%flat, %w) : float32[N,1] as fixed<7,4> in [-42, 42]*2^-3
  output %acc
}
"""


@pytest.fixture
def model() -> Model:
    return parse_module(SMALL)


def value(model: Model, name: str) -> Value:
    given = (*model.graph.inputs, *model.graph.initializers.values())
    produced = (v for node in model.graph for v in node.outputs)
    return next(v for v in (*given, *produced) if v.name == name)


def node(model: Model, output: str) -> Node:
    found = value(model, output).producer()
    assert found is not None
    return found


def test_channels_of_a_picture_stay_apart_when_flattened() -> None:
    source = parse_module(PICTURE)
    assert verify(source) == []
    datapath = Datapath(source)
    found = derive(datapath.nodes, set(datapath.ports))
    assert found[value(source, "flat")].hi.tolist() == [7] * 4 + [14] * 4
    assert found[value(source, "acc")].join() == Range(-42, 42, -3)


def test_nothing_is_derived_behind_what_cannot_be_followed(model: Model) -> None:
    """A range there may rest on more than the annotations before it say."""
    node(model, "acc").op_type = "Gemm"
    datapath = Datapath(model)
    found = {v.name for v in derive(datapath.nodes, set(datapath.ports))}
    assert found == {"x0"}
    assert verify(model) == []


def test_intervals_hold_and_are_attained(model: Model) -> None:
    """Against all 16**3 inputs: sound at every value, and tight where channels do not interact."""
    codes = np.stack(np.meshgrid(*[np.arange(-8, 8)] * 3, indexing="ij"), -1).reshape(-1, 3)
    weights = np.array([[2, -1], [1, 3], [-4, 0]])
    acc = codes @ weights
    total = acc + np.array([2, -8])
    pos = np.maximum(total, 0)
    scaled = pos * np.array([2, 3])
    x1 = np.clip(np.rint(scaled / 16), 0, 7).astype(int)
    acc2 = x1 @ np.array([[1], [-1]])
    counts = (acc2[:, :, None] / 2 >= np.array([-1.0, 0.0, 2.0])).sum(-1)
    reached = {"acc": acc, "sum": total, "pos": pos, "scaled": scaled, "x1": x1, "acc2": acc2}
    datapath = Datapath(model)
    intervals = derive(datapath.nodes, set(datapath.ports))
    for name, values in {**reached, "y": counts}.items():
        interval = intervals[value(model, name)]
        assert np.all(interval.lo <= values.min(axis=0))
        assert np.all(interval.hi >= values.max(axis=0))
        if name != "acc2" and name != "y":
            assert interval.lo.tolist() == values.min(axis=0).tolist()
            assert interval.hi.tolist() == values.max(axis=0).tolist()
