"""Dead-code removal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from onnx_ir import Model

from hqc.ir.edits import remove_unused
from hqc.pipeline.passes import Outcome, Pass


@dataclass(frozen=True)
class DeadCode(Pass):
    """Remove nodes and constants that no graph output depends on."""

    name: ClassVar[str] = "dce"

    def rewrite(self, model: Model) -> Outcome:
        """One sweep against the order of the nodes, then the constants."""
        return Outcome(model, remove_unused(model))
