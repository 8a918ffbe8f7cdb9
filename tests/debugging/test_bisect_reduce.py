"""Finding and reducing what a pass does wrong, and keeping passes within bounds."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import ClassVar

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model
from support.qonnx_graphs import Net, ops
from support.rewriters import Halves, Ones, Planted, PlantedBounded, long_net
from support.wrong_passes import BUILTIN, Raises, Refuses, Unquantised, Wider, net, refused

from hqc import ir, pipeline
from hqc.debugging.bisect import bisect
from hqc.debugging.reduce import Check, reduce
from hqc.diagnostics import Exit, HqcError
from hqc.ir import State, add_constant, constant, nodes, state_of
from hqc.pipeline.passes import Outcome, Pass
from hqc.pipeline.time_limit import TimeUp, time_limit
from hqc.text import parse_pipeline, print_module


@dataclass(frozen=True)
class RaisesOnMatMul(Pass):
    """Raise where there is a MatMul."""

    name: ClassVar[str] = "raises-on-matmul"

    def rewrite(self, model: Model) -> Outcome:
        if "MatMul" in ops(model):
            raise KeyError("MatMul")
        return Outcome(model)


REGISTRY = BUILTIN
for _kind in (Halves, Ones, Planted, PlantedBounded, Wider, Raises, RaisesOnMatMul, Unquantised):
    REGISTRY = REGISTRY.with_pass(_kind)
LONG = ir.to_bytes(long_net())


def _long() -> Model:
    return ir.from_bytes(LONG, "long")


# --- bisect -------------------------------------------------------------------------------------


def test_bisect_finds_pass_rewrite_node_and_tensor() -> None:
    steps = parse_pipeline("fold-constants,dce,planted,fold-quantizers")
    found = bisect(_long(), steps, REGISTRY)
    products = ops(_long()).count("Mul")
    assert (found.step, found.run, found.contract) == ("planted", 3, "exact")
    assert found.rewrites == products
    order = [n.outputs[0].name for n in _long().graph if n.op_type == "Mul"]
    assert found.rewrite == order.index("wrong_here") + 1
    assert found.change is not None
    assert (found.change.rule, found.change.where.node) == ("again", "wrong_here_node")
    assert found.difference.startswith("wrong_here[")
    changed = [t for t in found.diff().splitlines() if t[0] in "+-" and "%wrong_here = " in t]
    assert len(changed) == 2


def test_bisect_of_passes_that_do_not_count() -> None:
    found = bisect(net(), parse_pipeline("dce,wider,fold-quantizers"), REGISTRY)
    assert (found.step, found.run, found.rewrite) == ("wider", 2, None)
    assert "act" in found.difference
    bounded = bisect(_long(), parse_pipeline("planted-bounded"), REGISTRY)
    assert "bounded by 1000 LSB" in bounded.contract
    broken = bisect(net(), parse_pipeline("repeat(dce,unquantised)"), REGISTRY)
    assert broken.difference.startswith("it cannot be run")


def test_bisect_finds_what_is_wrong_only_with_an_option() -> None:
    with pytest.raises(HqcError, match="HQC309"):
        bisect(_long(), parse_pipeline("planted{wrong=77.0},ones,halves"), REGISTRY)
    found = bisect(_long(), parse_pipeline("planted{wrong=77.0},repeat(planted)"), REGISTRY)
    assert found.run == 2


def test_bisect_uses_the_users_samples() -> None:
    """A clip that no generated sample reaches."""

    @dataclass(frozen=True)
    class Clips(Pass):
        """Clip what is never generated."""

        name: ClassVar[str] = "clips"

        def rewrite(self, model: Model) -> Outcome:
            node = next(n for n in nodes(model.graph) if n.op_type == "Quant")
            node.replace_input_with(3, add_constant(model.graph, "b", np.array(23, np.float32)))
            return Outcome(model, 1)

    n = Net()
    n.op("Identity", n.quant(n.input("x", 1), 1.0, 24), name="y")
    steps, registry = parse_pipeline("clips"), BUILTIN.with_pass(Clips)
    sample = {"x": np.full((1, 1), 2.0**22 + 1, np.float32)}
    assert bisect(n.model("y"), steps, registry, samples=sample).step == "clips"


# --- reduce -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["value-changed", "HQC303"])
def test_a_wrong_rewrite_among_200_nodes_is_reduced_to_a_few(how: str) -> None:
    assert len(_long().graph) >= 199
    check = Check(parse_pipeline("fold-constants,planted,fold-quantizers"), REGISTRY, how)
    small = reduce(_long(), check, 120)
    assert len(small.graph) <= 5
    assert "1.375" in print_module(small)
    assert [list(v.shape or ())[1:] for v in small.graph.inputs] == [[1]]
    assert Check(check.steps, REGISTRY, how).fails(ir.to_bytes(small))


@pytest.mark.parametrize(
    ("how", "text", "op"),
    [("crash", "dce,raises", "Quant"), ("HQC205", "refuses", "Quant")],
)
def test_crashes_and_refusals_are_reduced(how: str, text: str, op: str) -> None:
    registry = REGISTRY.with_pass(Refuses)
    small = reduce(net(), Check(parse_pipeline(text), registry, how))
    assert op in ops(small)
    assert len(small.graph) <= 2


def test_a_failure_of_two_operators_keeps_both() -> None:
    @dataclass(frozen=True)
    class Both(Pass):
        """Raise where a Relu is followed by a product, at any distance."""

        name: ClassVar[str] = "both"

        def rewrite(self, model: Model) -> Outcome:
            kinds = [n.op_type for n in model.graph]
            if "Relu" in kinds and "Mul" in kinds[kinds.index("Relu") :]:
                raise KeyError("both")
            return Outcome(model)

    check = Check(parse_pipeline("both"), REGISTRY.with_pass(Both), "crash")
    small = reduce(_long(), check)
    assert {"Relu", "Mul"} <= set(ops(small))
    assert len(small.graph) <= 5


def test_an_integer_graph_is_reduced() -> None:
    model = pipeline.run(net(), parse_pipeline(pipeline.DEFAULT), REGISTRY, verify=False).model
    small = reduce(model, Check(parse_pipeline("raises-on-matmul"), REGISTRY, "crash"))
    assert state_of(small) is State.INTEGER
    assert "MatMul" in ops(small)
    assert len(small.graph) < len(model.graph)


def test_what_does_not_fail_is_said() -> None:
    with pytest.raises(HqcError, match="HQC309"):
        reduce(net(), Check(parse_pipeline("dce"), REGISTRY, "value-changed"))
    with pytest.raises(HqcError, match="HQC001"):
        Check(parse_pipeline("dce"), REGISTRY, "wrong")


def test_reducing_is_bounded_in_time() -> None:
    check = Check(parse_pipeline("planted"), REGISTRY, "value-changed")
    begun = time.monotonic()
    same = reduce(_long(), check, 0)
    assert time.monotonic() - begun < 30
    assert check.tried == 1
    assert ir.to_bytes(same) == LONG


def test_a_candidate_that_takes_long_is_cut_off_too() -> None:
    """The limit of one pass is much longer: only the reduction's own can end it."""
    whole = len(net().graph)

    @dataclass(frozen=True)
    class Slow(Pass):
        """Fail on the whole graph, and think for ever about a smaller one."""

        name: ClassVar[str] = "slow"

        def rewrite(self, model: Model) -> Outcome:
            while len(model.graph) < whole:
                with suppress(Exception):
                    time.sleep(0.01)
            raise KeyError("whole")

    check = Check(parse_pipeline("slow"), BUILTIN.with_pass(Slow), "crash", pass_timeout=300)
    begun = time.monotonic()
    same = reduce(net(), check, 1.5)
    assert time.monotonic() - begun < 10
    assert check.tried == 2
    assert ops(same) == ops(net())


# --- passes that do not end, or corrupt what they are given -------------------------------------


@dataclass(frozen=True)
class Endless(Pass):
    """Go on for ever, and swallow every exception."""

    name: ClassVar[str] = "endless"

    def rewrite(self, model: Model) -> Outcome:
        while True:
            with suppress(Exception):
                time.sleep(0.001)


def test_a_pass_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    registry = BUILTIN.with_pass(Endless)
    begun = time.monotonic()
    with pytest.raises(HqcError, match="HQC308") as found:
        pipeline.run(
            net(), parse_pipeline("endless"), registry, reproducers=tmp_path, pass_timeout=0.2
        )
    assert time.monotonic() - begun < 10
    assert found.value.exit is Exit.INTERNAL
    assert "endless took longer than 0.2 s" in str(found.value)
    assert pipeline.run(net(), parse_pipeline("dce"), BUILTIN, pass_timeout=0.2).records
    time.sleep(0.3)  # and no alarm is left behind


def test_limits_nest_and_end() -> None:
    with pytest.raises(TimeUp), time_limit(0.05):  # noqa: PT012
        with time_limit(30) as limited:
            assert limited
        time.sleep(1)
    with pytest.raises(TimeUp) as outer, time_limit(0.05) as soon, time_limit(30) as late:
        time.sleep(5)  # an inner limit that is longer does not put the outer one off
    assert outer.value.limit is soon
    assert outer.value.limit is not late
    with time_limit(30):  # noqa: SIM117
        with pytest.raises(TimeUp) as inner, time_limit(0.05) as soon:
            time.sleep(5)
    assert inner.value.limit is soon
    with time_limit(0) as limited:
        assert not limited
    seen: list[bool] = []

    def elsewhere() -> None:
        with time_limit(0.01) as limited:
            seen.append(bool(limited))

    thread = Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [False]


@dataclass(frozen=True)
class Corrupts(Pass):
    """Spoil what the verifier looks at."""

    name: ClassVar[str] = "corrupts"

    how: str = "dtype"

    def rewrite(self, model: Model) -> Outcome:
        node = next(n for n in model.graph if n.op_type == "Quant")
        scale = node.inputs[1]
        assert scale is not None
        if self.how == "dtype":
            scale.type = onnx_ir.TensorType(onnx_ir.DataType.INT8)
        elif self.how == "invalid":
            bad = add_constant(model.graph, "bad", np.array(np.nan, np.float32))
            node.replace_input_with(1, bad)
        elif self.how == "scale":
            zero = np.zeros_like(np.asarray(constant(scale)))
            node.replace_input_with(1, add_constant(model.graph, "bad", zero))
        else:
            node.attributes["rounding_mode"] = onnx_ir.AttrString("rounding_mode", "NEAREST")
        return Outcome(model, 1)


@pytest.mark.parametrize("how", ["dtype", "invalid", "scale", "rounding"])
def test_corrupted_graphs_are_coded_diagnostics(how: str, tmp_path: Path) -> None:
    error = refused("HQC302", Corrupts, tmp_path, text=f"corrupts{{how={how}}}")
    assert "after corrupts" in str(error)
