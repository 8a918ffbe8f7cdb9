"""Running one pass in a test: verified, and its outputs compared before and after."""

from __future__ import annotations

import numpy as np
from onnx_ir import Model

from hqc.equivalence.samples import generate
from hqc.equivalence.translation_validation import compare
from hqc.execution.reference import Reference
from hqc.pipeline.passes import Outcome, Pass
from hqc.pipeline.verifier import check

WEIGHTS = np.array([[1.0, -0.5, 0.25], [0.5, 0.0, -1.0]])


def run(pass_: Pass, model: Model) -> Outcome:
    """Run a pass, verify, and compare the outputs before and after on samples."""
    x = generate(model, 64, 1)
    want = Reference(model).run(x)
    outcome = pass_(model)
    assert isinstance(outcome, Outcome)
    check(model)
    found = compare(Reference(model).run(x), want)
    assert found.equal, found.first
    return outcome


def remarks(outcome: Outcome) -> str:
    return "\n".join(str(r) for r in outcome.remarks)
