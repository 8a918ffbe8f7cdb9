"""Rewriters, right and wrong, for the tests of the tools for passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model, Value

from hqc.pipeline.passes import Contract, Outcome, Pass, Promise
from hqc.pipeline.rewriter import Builder, Const, Decline, Match, Op, Rewriter, Var, rule
from support.qonnx_graphs import Net


@dataclass(frozen=True)
class Halves(Rewriter):
    """Write products with two constants as one; decline negative ones."""

    name: ClassVar[str] = "halves"

    @rule(Op("Mul", (Op("Mul", (Var("x"), Const("a"))), Const("b"))))
    def two_products(self, match: Match, new: Builder) -> Value | Decline | None:
        a, b = match.array("a"), match.array("b")
        if (a * b < 0).any():
            return Decline("it is negative")
        return new.op("Mul", match["x"], a * b)


@dataclass(frozen=True)
class Ones(Rewriter):
    """Drop products with one, and sums with zero."""

    name: ClassVar[str] = "ones"

    @rule(Op("Mul", (Var("x"), Const("one", 1.0))))
    def by_one(self, match: Match, new: Builder) -> Value:
        return match["x"]

    @rule(Op("Add", (Var("x"), Const("zero", 0.0))))
    def plus_zero(self, match: Match, new: Builder) -> Value:
        return match["x"]


@dataclass(frozen=True)
class Planted(Rewriter):
    """Write every product again, one of them wrong."""

    name: ClassVar[str] = "planted"

    wrong: float = 1.375

    @rule(Op("Mul", (Var("x"), Const("c"))))
    def again(self, match: Match, new: Builder) -> Value:
        factor = match.array("c")
        return new.op("Mul", match["x"], factor + np.float32(0.125) * (factor == self.wrong))


@dataclass(frozen=True)
class PlantedBounded(Pass):
    """Move a product within a bound, without counting."""

    name: ClassVar[str] = "planted-bounded"
    contract: ClassVar[Contract] = Contract(Promise.BOUNDED, 1000)

    def rewrite(self, model: Model) -> Outcome:
        changes = Planted().rewrite(model).changes
        return Outcome(model, len(changes))


def long_net(size: int = 200, width: int = 6) -> Model:
    """A chain of `size` nodes, with one product by 1.375 in the middle: %wrong_here."""
    rng = np.random.default_rng(0)
    net = Net()
    x = net.quant(net.input("x", width), 0.125, 6)
    while len(net.nodes) < size:
        at = len(net.nodes)
        if at == size * 2 // 5 + 3:
            x = net.op("Mul", x, net.const(1.375), name="wrong_here")
        elif at % 10 == 0 and at + 2 <= size:
            x = net.dense(x, rng.normal(0, 0.6, (width, width)))
        elif at % 100 == 5:
            x = net.op("Relu", x)
        elif at % 10 == 7:
            x = net.op("Mul", x, net.const(float(rng.integers(3, 7)) / 4))
        elif at % 10 == 8:
            x = net.op("Add", x, net.const(rng.integers(-9, 9, width) / 8))
        else:
            x = net.quant(x, 0.125, 10)
    return net.model(x)
