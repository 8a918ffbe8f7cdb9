"""Passes that break their promises one by one, a model for them, and how to run them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as onnx_ir
import pytest
from onnx_ir import Model, Node

from hqc import ir, pipeline
from hqc.diagnostics import HqcError
from hqc.ir import add_constant, constant, nodes, set_range, set_type
from hqc.numerics.types import FixedType, Range
from hqc.pipeline import PipelineResult
from hqc.pipeline.passes import Contract, Outcome, Pass, Promise, Remark
from hqc.pipeline.registry import Registry
from hqc.text import parse_pipeline
from support.qonnx_graphs import Net

BUILTIN = Registry.builtin()


def net() -> Model:
    """4 -> 3 -> 2, a scale that is no power of two, a rectifier and a softmax."""
    rng = np.random.default_rng(3)
    n = Net()
    x = n.quant(n.input("x", 4), 0.125, 6)
    x = n.op("Relu", n.dense(x, rng.normal(0, 0.4, (4, 3)), name="fc1"))
    x = n.quant(x, 0.21, 4, 0, name="act")
    x = n.quant(n.dense(x, rng.normal(0, 0.4, (3, 2)), name="fc2"), 0.25, 6, name="q2")
    n.op("Identity", x, name="y")
    return n.model("y")


def one(kind: type[Pass], model: Model, tmp_path: Path, text: str = "") -> PipelineResult:
    """Run one extra pass."""
    registry = BUILTIN.with_pass(kind)
    return pipeline.run(
        model, parse_pipeline(text or kind.name), registry, reproducers=tmp_path, check_samples=48
    )


def refused(
    code: str, kind: type[Pass], tmp_path: Path, model: Model | None = None, text: str = ""
) -> HqcError:
    with pytest.raises(HqcError) as found:
        one(kind, model or net(), tmp_path, text)
    assert found.value.diagnostics[0].code == code, str(found.value)
    return found.value


def quantiser(model: Model, name: str) -> Node:
    return next(n for n in model.graph if n.name == f"{name}_node")


# --- passes that do wrong -----------------------------------------------------------------------


@dataclass(frozen=True)
class Wider(Pass):
    """Claim to be exact and halve a scale."""

    name: ClassVar[str] = "wider"

    def rewrite(self, model: Model) -> Outcome:
        node = quantiser(model, "act")
        scale = np.asarray(constant(node.inputs[1]))
        node.replace_input_with(1, add_constant(model.graph, "half", scale / np.float32(2)))
        return Outcome(model, 1)


@dataclass(frozen=True)
class Raises(Pass):
    """Divide by zero, half way through."""

    name: ClassVar[str] = "raises"

    def rewrite(self, model: Model) -> Outcome:
        quantiser(model, "q2").name = "half-way"
        raise ZeroDivisionError("in the middle")


@dataclass(frozen=True)
class Refuses(Pass):
    """Refuse with a code of its own."""

    name: ClassVar[str] = "refuses"

    def rewrite(self, model: Model) -> Outcome:
        from hqc.diagnostics import reject

        raise reject("HQC205", "not with me")


@dataclass(frozen=True)
class NoTypes(Pass):
    """Drop the annotations of one value."""

    name: ClassVar[str] = "no-types"

    def rewrite(self, model: Model) -> Outcome:
        value = model.graph.outputs[0]
        set_type(value, None)
        set_range(value, None)
        return Outcome(model, 1)


@dataclass(frozen=True)
class NarrowTypes(Pass):
    """Annotate a type that is too narrow for its range."""

    name: ClassVar[str] = "narrow-types"

    def rewrite(self, model: Model) -> Outcome:
        node = next(n for n in model.graph if n.op_type == "MatMul")
        set_type(node.outputs[0], FixedType(True, 2, 2))
        return Outcome(model, 1)


@dataclass(frozen=True)
class TypedWeights(Pass):
    """Annotate float weights as integers, which would truncate them."""

    name: ClassVar[str] = "typed-weights"
    contract: ClassVar[Contract] = Contract(Promise.ANNOTATION)

    def rewrite(self, model: Model) -> Outcome:
        node = next(n for n in model.graph if n.op_type == "MatMul")
        producer = node.inputs[1].producer()  # type: ignore[union-attr]
        assert producer is not None
        weights = producer.inputs[0]
        assert weights is not None
        set_type(weights, FixedType(True, 8, 8))
        return Outcome(model, 1)


@dataclass(frozen=True)
class Dangling(Pass):
    """Remove a node that is in use."""

    name: ClassVar[str] = "dangling"

    def rewrite(self, model: Model) -> Outcome:
        model.graph.remove(quantiser(model, "act"))
        return Outcome(model, 1)


@dataclass(frozen=True)
class Unquantised(Pass):
    """Replace quantised weights by floats: valid ONNX, without exact meaning."""

    name: ClassVar[str] = "unquantised"

    def rewrite(self, model: Model) -> Outcome:
        node = next(n for n in model.graph if n.op_type == "MatMul")
        shape = (4, 3)
        node.replace_input_with(1, add_constant(model.graph, "raw", np.ones(shape, np.float32)))
        return Outcome(model, 1)


@dataclass(frozen=True)
class Renames(Pass):
    """Call the input something else."""

    name: ClassVar[str] = "renames"

    def rewrite(self, model: Model) -> Outcome:
        model.graph.inputs[0].name = "renamed"
        return Outcome(model, 1)


@dataclass(frozen=True)
class ExtraOutput(Pass):
    """Put out an inner value."""

    name: ClassVar[str] = "extra-output"

    def rewrite(self, model: Model) -> Outcome:
        model.graph.outputs.append(quantiser(model, "act").outputs[0])
        return Outcome(model, 1)


@dataclass(frozen=True)
class Restless(Pass):
    """Claim a rewrite each time."""

    name: ClassVar[str] = "restless"

    def rewrite(self, model: Model) -> Outcome:
        return Outcome(model, 1)


@dataclass(frozen=True)
class Settles(Pass):
    """Need a few rounds: rename one node after another."""

    name: ClassVar[str] = "settles"

    def rewrite(self, model: Model) -> Outcome:
        for node in nodes(model.graph):
            if not str(node.name).startswith("seen_"):
                node.name = f"seen_{node.name}"
                return Outcome(model, 1, (Remark("one more"),))
        return Outcome(model)


@dataclass(frozen=True)
class Annotates(Pass):
    """Annotate; with `edit`, edit the graph as well."""

    name: ClassVar[str] = "annotates"
    contract: ClassVar[Contract] = Contract(Promise.ANNOTATION)

    edit: bool = False

    def rewrite(self, model: Model) -> Outcome:
        set_range(quantiser(model, "act").outputs[0], Range(0, 99))
        if self.edit:
            quantiser(model, "act").attributes["narrow"] = onnx_ir.AttrInt64("narrow", 0)
            quantiser(model, "act").attributes["signed"] = onnx_ir.AttrInt64("signed", 1)
        return Outcome(model, 1)


@dataclass(frozen=True)
class Shifts(Pass):
    """Promise to stay within two steps, and move the output by `steps` of them."""

    name: ClassVar[str] = "shifts"
    contract: ClassVar[Contract] = Contract(Promise.BOUNDED, 2)

    steps: int = 1
    step: float = 0.25

    def rewrite(self, model: Model) -> Outcome:
        node = quantiser(model, "q2")
        out = node.outputs[0]
        uses = [(u.node, u.idx) for u in out.uses()]
        by = add_constant(model.graph, "by", np.float32(self.steps * self.step).reshape(()))
        add = ir.make_node("Add", (out, by), like=out, name="moved")
        model.graph.insert_after(node, add)
        for user, index in uses:
            user.replace_input_with(index, add.outputs[0])
        for position, value in enumerate(tuple(model.graph.outputs)):
            if value is out:
                out.name, add.outputs[0].name = "inner", str(out.name)
                model.graph.outputs[position] = add.outputs[0]
        return Outcome(model, 1)


@dataclass(frozen=True)
class BoundedAway(Pass):
    """Promise a bound, and take the output away."""

    name: ClassVar[str] = "bounded-away"
    contract: ClassVar[Contract] = Contract(Promise.BOUNDED, 1000)

    def rewrite(self, model: Model) -> Outcome:
        model.graph.outputs[0].name = "other"
        return Outcome(model, 1)


@dataclass(frozen=True)
class Picky(Pass):
    """Have options of every type."""

    name: ClassVar[str] = "picky"

    limit: int = 1
    loud: bool = False
    ratio: float = 0.5
    label_text: str = "a"

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError("limit is negative")

    def rewrite(self, model: Model) -> Outcome:
        text = f"{self.limit} {self.loud} {self.ratio!r} {self.label_text}"
        return Outcome(model, 0, (Remark(text),))


@dataclass(frozen=True)
class Demanding(Pass):
    """Have an option without a default."""

    name: ClassVar[str] = "demanding"

    limit: int

    def rewrite(self, model: Model) -> Outcome:
        return Outcome(model)
