"""A compiled directory: its manifest, files, report and page; run it, check it, compare several.

It reaches backends through their protocol only, and never a frontend.
"""

from __future__ import annotations

from hqc.artifact.agreement import Agreement, Pair, Proof, agree
from hqc.artifact.artifact import Artifact, CheckResult, Samples, backend_named, generate, not_exact

__all__ = [
    "Agreement",
    "Artifact",
    "CheckResult",
    "Pair",
    "Proof",
    "Samples",
    "agree",
    "backend_named",
    "generate",
    "not_exact",
]
