"""From whatever a user calls a model to a checked directory: `compile`, `load`, `run_passes`.

Here frontends, passes and backends are put together; none of them is here.
"""

from __future__ import annotations

from hqc.driver.driver import compile, load, prepare, run_passes, steps_of

__all__ = ["compile", "load", "prepare", "run_passes", "steps_of"]
