"""A time limit on code that runs in this thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TimeUp(BaseException):
    """The limit has passed. No `Exception`, so that `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[bool]:
    """Within, `TimeUp` is raised when the limit passes, and once a second from then on.

    It works in the main thread on systems with `setitimer` (all but Windows); elsewhere there is
    no limit. Between two bytecodes of Python it comes at once, from compiled code when that
    returns. An alarm that was set before is put off until the end.

    Args:
        seconds: 0 for no limit.

    Yields:
        Whether there is a limit.
    """
    main = threading.current_thread() is threading.main_thread()
    if seconds <= 0 or not main or not hasattr(signal, "setitimer"):
        yield False
        return

    def strike(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    handler = signal.signal(signal.SIGALRM, strike)
    before = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if before[0]:
            signal.setitimer(signal.ITIMER_REAL, *before)
