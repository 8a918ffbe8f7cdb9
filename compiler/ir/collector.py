"""Python's cyclic garbage collector, kept out of the way while a large graph is built or rewritten.

Nodes, values and uses refer to each other, so the collector walks the whole graph again and again
while it grows; that takes more than half of the time on ten thousand nodes, and the time per node
doubles. Almost nothing of a graph that is being built is garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within, no cyclic garbage is collected; behind it, all is as it was. Also a decorator.

    For one pass or one file: what becomes garbage inside stays in memory until it ends.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
