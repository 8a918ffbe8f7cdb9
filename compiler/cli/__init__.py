"""The `hqc` command: one file per command, with its grammar, its console and its exit statuses.

Nothing is computed here that Python users could not have.
"""

from __future__ import annotations

from hqc.cli.entry import main

__all__ = ["main"]
