"""A run does not outlive its sweep: it stops with the first process, or on its request."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.base.locks import heartbeat, held, is_locked, owner_of, pid_exists, this_process
from vae_sweep.base.signals import handle_sigint, interrupt
from vae_sweep.sweeps import launchers
from vae_sweep.sweeps.folders import folder_of, request_stop, stop_requested

if TYPE_CHECKING:
    from vae_sweep.sweeps.context import Context

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted"
LOOK_EVERY = 1.0  # seconds
LOOKS = 3  # without the first process or its note, before a worker believes that it is gone
SILENT_HERE = 10.0  # seconds without lock and heartbeat before the first process counts as dead, on its own machine
SILENT_ELSEWHERE = 60.0  # and on another one: disks of networks pause
CLOSE_WITHIN = 6.0  # seconds that a run has to close before its process is ended
STOP_WITHIN = 8.0  # seconds that an interrupted sweep waits for its runs to end


@contextmanager
def ends_with_its_sweep(context: Context) -> Iterator[None]:
    """While inside, SIGTERM interrupts this process, and so does the end of the sweep that it works for.

    A batch system's jobs are meant to live on when the process that submitted them is lost; they stop when asked.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    handle_sigint()
    launchers.allow_requeue()
    done = threading.Event()
    if context.owner and context.owner != this_process():
        _end_with_parent(int(context.owner["pid"]))
        threading.Thread(target=_watch, args=(context, done), name="vae_sweep-watch", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@cache
def _end_with_parent(owner: int) -> None:
    """Let a worker of this machine not outlive the process that made it, also while it has no run."""

    def look() -> None:
        while os.getppid() == owner:
            time.sleep(LOOK_EVERY)
        time.sleep(LOOK_EVERY + CLOSE_WITHIN)  # an active run closes first
        os._exit(1)

    if os.getppid() == owner:
        threading.Thread(target=look, name="vae_sweep-parent", daemon=True).start()


def _watch(context: Context, done: threading.Event) -> None:
    """Interrupt the main thread when the sweep is over, and make sure that the process ends."""
    root = Path(context.root)
    first = _SweepOwner(folder_of(root, context.sweep_key), context.owner)
    independent = os.environ.get("SUBMITIT_EXECUTOR") == "slurm"
    while not done.wait(LOOK_EVERY):
        asked = stop_requested(root, context.sweep_key) == INTERRUPTED
        alone = not independent and first.is_lost()
        if asked or alone:
            log.warning(
                "stopping: the sweep %s", "was interrupted" if asked else "has lost the process that started it"
            )
            os.kill(os.getpid(), signal.SIGTERM)
            done.wait(CLOSE_WITHIN)
            if alone:
                os._exit(1)  # no process is left that could give this one another cell
            return


class _SweepOwner:
    """The process that holds a sweep, as a worker sees it: one look that fails, or a lock that is free, says little."""

    def __init__(self, folder: Path, owner: dict[str, str | int]) -> None:
        self._folder, self._owner, self._pid = folder, owner, int(owner["pid"])
        self._here = owner["host"] == this_process()["host"]
        self._silence = SILENT_HERE if self._here else SILENT_ELSEWHERE
        self._child = self._here and os.getppid() == self._pid
        self._missed = 0
        self._beat: str | None = None
        self._changed = time.monotonic()

    def is_lost(self) -> bool:
        """Return whether it has ended; asked every :data:`LOOK_EVERY` seconds."""
        if self._child:
            return os.getppid() != self._pid
        try:
            known, beat = owner_of(self._folder), heartbeat(self._folder)
            locked = is_locked(self._folder)
        except OSError:
            return False  # the disk cannot tell now
        ended = self._here and not locked and not pid_exists(self._pid)
        self._missed = self._missed + 1 if ended or known != self._owner else 0
        if locked or beat != self._beat:
            self._beat, self._changed = beat, time.monotonic()
        return self._missed >= LOOKS or time.monotonic() - self._changed > self._silence


def stop_workers(root: Path, sweep: str) -> None:
    """End the other processes of a sweep that was interrupted: the signal may have reached this one alone."""
    try:
        request_stop(root, sweep, INTERRUPTED)
    except OSError as error:
        log.warning("the runs of the sweep could not be asked to stop (%s)", error)
    launchers.end_workers()
    until = time.monotonic() + STOP_WITHIN
    while time.monotonic() < until and held(lock.parent for lock in folder_of(root, sweep).glob("*/lock")):
        time.sleep(0.2)
