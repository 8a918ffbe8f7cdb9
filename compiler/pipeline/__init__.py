"""What passes, backends and frontends are, where they are registered, and how passes are run.

Protocols, registry, manager, verifier and rewriter belong here; no pass and no backend does.
"""

from __future__ import annotations

from hqc.pipeline.backend import (
    Backend,
    BackendOptions,
    Batch,
    Capabilities,
    Emission,
    EmittedLayer,
    Emulator,
    Prepared,
)
from hqc.pipeline.extensions import Operator
from hqc.pipeline.manager import DEFAULT, PASS_TIMEOUT, PassEvent, PipelineResult, Record, run
from hqc.pipeline.options import CompileOptions
from hqc.pipeline.passes import Change, Contract, Outcome, Pass, Promise, Remark
from hqc.pipeline.registry import Registry
from hqc.pipeline.rewriter import Builder, Const, Decline, Match, Op, Rewriter, Var, rule

__all__ = [
    "Backend",
    "BackendOptions",
    "Batch",
    "Builder",
    "Capabilities",
    "Change",
    "CompileOptions",
    "Const",
    "Contract",
    "DEFAULT",
    "Decline",
    "Emission",
    "EmittedLayer",
    "Emulator",
    "Match",
    "Op",
    "Operator",
    "Outcome",
    "PASS_TIMEOUT",
    "Pass",
    "PassEvent",
    "PipelineResult",
    "Prepared",
    "Promise",
    "Record",
    "Registry",
    "Remark",
    "Rewriter",
    "Var",
    "rule",
    "run",
]
