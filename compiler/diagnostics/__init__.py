"""Coded, located messages, their long explanations, and the versions of file formats.

What a message is, not when it is raised: every other room raises them.
"""

from __future__ import annotations

from hqc.diagnostics.messages import CODES, Diagnostic, Exit, HqcError, Location, joined, reject

__all__ = ["CODES", "Diagnostic", "Exit", "HqcError", "Location", "joined", "reject"]
