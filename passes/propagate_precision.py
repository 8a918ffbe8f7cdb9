"""Precision propagation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Model

from hqc.analysis.precision_propagation import annotate
from hqc.ir import State
from hqc.pipeline.passes import Contract, Outcome, Pass, Promise


@dataclass(frozen=True)
class PropagatePrecision(Pass):
    """Annotate every value of the datapath with its proven range and the narrowest type for it.

    Ranges are exact sums over the weights, channel by channel; types have no bit that the range
    does not need, on the coarsest step that all values share. Quantisers keep the rounding and
    saturation they perform.
    """

    name: ClassVar[str] = "propagate-precision"
    contract: ClassVar[Contract] = Contract(Promise.ANNOTATION)
    needs: ClassVar[State | None] = State.INTEGER
    gives: ClassVar[State | None] = State.INTEGER

    def rewrite(self, model: Model) -> Outcome:
        """One forward sweep."""
        return Outcome(model, annotate(model))
