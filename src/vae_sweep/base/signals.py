"""Signals that end a run: a KeyboardInterrupt in the main thread, but not in the middle of a write to a database.

A KeyboardInterrupt while SQLAlchemy takes or returns a connection could leave the connection open, and SQLite locked,
as long as the traceback lives: the run could not be closed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SECOND_SIGNAL_AFTER = 2.0  # seconds after a deferred signal from which on another one is not deferred


class Terminated(KeyboardInterrupt):
    """SIGTERM to this process; Ctrl-C is a plain KeyboardInterrupt."""


_depth = 0  # how often the main thread is inside deferred_interrupts()
_deferred: list[tuple[float, type[KeyboardInterrupt]]] = []  # signals that came meanwhile, and when


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Signal handler: raise KeyboardInterrupt or :class:`Terminated`, after :func:`deferred_interrupts` if inside."""
    error = KeyboardInterrupt if signum == signal.SIGINT else Terminated
    now = time.monotonic()
    if _depth and (not _deferred or now - _deferred[0][0] < SECOND_SIGNAL_AFTER):
        _deferred.append((now, error))
        return
    _deferred.clear()
    raise error


def handle_sigint() -> None:
    """Install :func:`interrupt` for Ctrl-C, unless Ctrl-C is ignored or has another handler than Python's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Defer signals of :func:`interrupt` to the end of the block; the first one counts, whatever else was raised.

    Does nothing in other threads than the main one: Python handles signals in the main thread only.
    """
    global _depth
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth and _deferred:
            error = _deferred[0][1]
            _deferred.clear()
            raise error
