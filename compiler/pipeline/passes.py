"""What a pass is: a frozen dataclass with a contract, on top of onnx_ir's in-place pass.

A pass runs in hqc's pipelines, which check its contract, and in any onnx_ir pass manager.
"""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass, field
from typing import ClassVar

from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult, PreconditionError

from hqc.diagnostics import Location
from hqc.ir import State, set_state, state_of


class Promise(enum.Enum):
    """What a pass promises about the values of every graph output."""

    EXACT = "exact"
    BOUNDED = "bounded"
    ANNOTATION = "annotation only"


@dataclass(frozen=True)
class Contract:
    """A promise, checked by the pass manager on samples after each run.

    Attributes:
        promise: EXACT, outputs are equal with `==`; BOUNDED, they differ by at most `lsb` steps
            of the output's grid; ANNOTATION, the graph itself is byte for byte the same.
        lsb: the bound of a BOUNDED promise.
    """

    promise: Promise = Promise.EXACT
    lsb: int = 0

    def __str__(self) -> str:
        if self.promise is Promise.BOUNDED:
            return f"bounded by {self.lsb} LSB"
        return str(self.promise.value)


@dataclass(frozen=True)
class Remark:
    """Something a pass, or a rule of it, did or declined, with the reason, for people."""

    message: str
    where: Location = field(default_factory=Location)
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.message}  --> {self.where}" if str(self.where) else self.message


@dataclass(frozen=True)
class Change:
    """One rewrite of a pass that keeps count: the rule, and the node as it was before."""

    rule: str
    where: Location


class Outcome(PassResult):
    """A pass result with the number of rewrites, the remarks, and the rewrites where counted."""

    def __init__(
        self,
        model: Model,
        rewrites: int = 0,
        remarks: tuple[Remark, ...] = (),
        changes: tuple[Change, ...] = (),
    ):
        super().__init__(model, rewrites > 0)
        self.rewrites = rewrites
        self.remarks = remarks
        self.changes = changes


@dataclass(frozen=True)
class Pass(InPlacePass):
    """Base of all passes: a subclass sets the class variables and implements `rewrite`.

    The fields of the dataclass are the options of the pass, as they are written in pipeline
    strings: `my-pass{limit=3,verbose=true}`. The first line of the docstring is its summary.

    Attributes:
        name: how pipelines call the pass, in kebab-case.
        contract: what it promises about values.
        needs: the state it takes, or None for any.
        gives: the state it leaves, or None for the one it found.
    """

    name: ClassVar[str] = ""
    contract: ClassVar[Contract] = Contract()
    needs: ClassVar[State | None] = None
    gives: ClassVar[State | None] = None

    @abc.abstractmethod
    def rewrite(self, model: Model) -> Outcome:
        """Change the model in place and say what was done."""

    def call(self, model: Model) -> PassResult:
        """Run `rewrite`; the entry point of onnx_ir's pass infrastructure."""
        outcome = self.rewrite(model)
        if self.gives is not None:
            set_state(model, self.gives)
        return outcome

    def requires(self, model: Model) -> None:
        """Raise onnx_ir's PreconditionError when the model is not in the needed state."""
        if self.needs is not None and state_of(model) is not self.needs:
            raise PreconditionError(
                f"{self.name} takes a {self.needs.value} model, this one is {state_of(model).value}"
            )

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]
