"""A time limit on code that runs in this thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Seconds between two strikes of a limit that has passed.
_AGAIN = 1.0


class Limit:
    """One limit: true while it is watched. Handed out by `time_limit`, carried by `TimeUp`."""

    def __init__(self, seconds: float, *, active: bool):
        self.active = active
        self.deadline = time.monotonic() + seconds

    def __bool__(self) -> bool:
        return self.active


class TimeUp(BaseException):
    """A limit has passed. No `Exception`, so that `except Exception` does not swallow it.

    Attributes:
        limit: which one; where limits nest, only the block that set it may take it.
    """

    def __init__(self, limit: Limit | None = None):
        super().__init__("the time is up")
        self.limit = limit


class _Alarm:
    """The signal handler of a limit."""

    def __init__(self, limit: Limit):
        self.limit = limit

    def __call__(self, number: int, frame: FrameType | None) -> None:
        raise TimeUp(self.limit)


@contextmanager
def time_limit(seconds: float) -> Iterator[Limit]:
    """Within, `TimeUp` is raised when the limit passes, and once a second from then on.

    It works in the main thread on systems with `setitimer` (all but Windows); elsewhere there is
    no limit. Between two bytecodes of Python it comes at once, from compiled code when that
    returns. Limits nest: the one that ends first strikes first, and an outer one is never put off.
    An alarm that something else had set is put off until the end.

    Args:
        seconds: 0 for no limit.

    Yields:
        The limit, false where there is none.
    """
    main = threading.current_thread() is threading.main_thread()
    active = seconds > 0 and main and hasattr(signal, "setitimer")
    limit = Limit(seconds, active=active)
    outer = signal.getsignal(signal.SIGALRM) if active else None
    if not active or (isinstance(outer, _Alarm) and outer.limit.deadline <= limit.deadline):
        yield limit  # nothing to watch, or the outer one watches
        return
    handler = signal.signal(signal.SIGALRM, _Alarm(limit))
    before = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        yield limit
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if isinstance(handler, _Alarm):
            rest = handler.limit.deadline - time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, max(rest, 1e-6), _AGAIN)
        elif before[0]:
            signal.setitimer(signal.ITIMER_REAL, *before)
