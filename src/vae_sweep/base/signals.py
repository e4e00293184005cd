"""Signals that end a run: a KeyboardInterrupt in the main thread, but not in the middle of a write to a database.

One that came while SQLAlchemy takes a connection, or gives it back, could leave it taken, and with it SQLite's lock, as
long as the traceback lives: the run could not be closed any more.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INSISTS_AFTER = 2.0  # seconds after the first signal that waits, when another one does not


class Terminated(KeyboardInterrupt):
    """SIGTERM to this process; a Ctrl-C to everybody is a plain KeyboardInterrupt."""


_held = 0  # how often the main thread is inside deferred_interrupts()
_waiting: list[tuple[float, type[KeyboardInterrupt]]] = []  # what came meanwhile, and when


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Signal handler: end like Ctrl-C does, with everything closed, as soon as :func:`deferred_interrupts` allows."""
    error = KeyboardInterrupt if signum == signal.SIGINT else Terminated
    now = time.monotonic()
    if _held and (not _waiting or now - _waiting[0][0] < INSISTS_AFTER):
        _waiting.append((now, error))
        return
    _waiting.clear()
    raise error


def handle_sigint() -> None:
    """Let :func:`interrupt` handle Ctrl-C, unless it is ignored here or somebody else's."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """While inside, signals of :func:`interrupt` wait; the first of them counts afterwards, whatever else was raised.

    In other threads than the main one this does nothing, since signals are not theirs.
    """
    global _held
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
        if not _held and _waiting:
            error = _waiting[0][1]
            _waiting.clear()
            raise error
