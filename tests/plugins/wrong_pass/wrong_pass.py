"""A plug-in with passes that break their promises, for the tests of the pass manager."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from onnx_ir import Model

from hqc.ir import add_constant, constant, nodes
from hqc.pipeline import Outcome, Pass


@dataclass(frozen=True)
class RoundWeights(Pass):
    """Claim to be exact and flip the lowest bit of one weight."""

    name: ClassVar[str] = "round-weights"

    layer: int = 0
    """Which linear layer it spoils."""

    def rewrite(self, model: Model) -> Outcome:
        linear = [n for n in nodes(model.graph) if n.op_type == "MatMul"]
        quantiser = linear[self.layer].inputs[1].producer()
        weights = np.array(constant(quantiser.inputs[0]))
        weights.flat[0] += np.asarray(constant(quantiser.inputs[1])).max()
        quantiser.replace_input_with(0, add_constant(model.graph, "spoiled", weights))
        return Outcome(model, 1)
