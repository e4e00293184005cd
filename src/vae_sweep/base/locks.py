"""Who works on what: a lock that its owner's death releases, a note of who the owner is, and the owner's heartbeat.

On a shared disk a lock may not reach other machines, or not exist at all: there the heartbeat tells who lives.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vae_sweep.base.errors import UserError

log = logging.getLogger(__name__)

BEAT_EVERY = 2.0  # seconds
BEATS_WITHIN = 5.0  # seconds in which a living owner's heartbeat is seen to change, also through a disk's cache
OLD_AFTER = 600.0  # seconds after which nobody looks for a change; clocks of two machines may differ by less
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # from a file system without locks


@contextmanager
def hold_lock(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` for this process.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        UserError: where a living process holds it, naming its host and pid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=2)  # somebody may only be looking whether it is held
        taken = _owner_is_alive(folder)
    except Timeout:
        taken = True
    except (OSError, NotImplementedError) as error:
        if not _without_locks(error):
            raise
        taken = _owner_is_alive(folder)
    if taken:
        lock.release()
        known = owner_of(folder) or {"pid": "of unknown number", "host": "an unknown host"}
        raise UserError(
            f"{what} is at work already, in process {known['pid']} on {known['host']}; wait for it to end, stop it, "
            "or give this one another sweep.name"
        )
    done = threading.Event()
    try:
        _write(folder / "heartbeat", str(time.time()))
        _write(folder / "owner.json", json.dumps(this_process()))
        threading.Thread(target=_beat, args=(folder, done), name="vae_sweep-heartbeat", daemon=True).start()
        yield
    finally:
        done.set()
        for name in ("owner.json", "heartbeat"):
            (folder / name).unlink(missing_ok=True)
        lock.release()


def warn_without_locks(folder: Path) -> None:
    """Say it once where the lock of ``folder``, which this process holds, does not keep a second process away."""
    look = "import sys; from filelock import FileLock; FileLock(sys.argv[1]).acquire(timeout=0)"
    command = [sys.executable, "-c", look, str(folder / "lock")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode == 0 or "Timeout" not in done.stderr:
        log.warning(
            "%s: file locks do not work on this disk; heartbeats tell which processes live, but two commands that "
            "start the same sweep within seconds may both run it",
            folder,
        )


def this_process() -> dict[str, str | int]:
    """Return what this process calls itself as an owner."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_held(folder: Path) -> bool:
    """Return whether a living process holds ``folder``; to know that of another machine may take seconds."""
    return is_locked(folder) or _owner_is_alive(folder)


def is_locked(folder: Path) -> bool:
    """Return whether the lock of ``folder`` is taken, as far as locks reach this machine.

    Raises:
        OSError: where the disk cannot tell.
    """
    if not (folder / "lock").exists():
        return False
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError) as error:
        if not _without_locks(error):
            raise
        return False
    lock.release()
    return False


def owner_of(folder: Path) -> dict[str, str | int] | None:
    """Return who holds ``folder``, or held it when it died; None where nobody is known.

    Raises:
        OSError: where the disk cannot tell.
    """
    text = _read(folder / "owner.json")
    with suppress(ValueError):  # cut off
        return json.loads(text) if text else None
    return None


def heartbeat(folder: Path) -> str | None:
    """Return the last heartbeat of who holds ``folder``: another one each time, seconds since 1970.

    Raises:
        OSError: where the disk cannot tell.
    """
    return _read(folder / "heartbeat")


def _owner_is_alive(folder: Path) -> bool:
    """Whether an owner that has left its note still writes its heartbeat."""
    owner, first = owner_of(folder), heartbeat(folder)
    if owner is None or first is None or abs(time.time() - float(first)) > OLD_AFTER:
        return False
    if owner["host"] == this_process()["host"] and not runs(int(owner["pid"])):
        return False
    until = time.monotonic() + BEATS_WITHIN
    while time.monotonic() < until:
        time.sleep(0.1)
        if heartbeat(folder) != first:
            return True
    return False


def runs(pid: int) -> bool:
    """Return whether this machine has a process of that number; one that is only not reaped counts."""
    if os.name == "nt":
        return True  # os.kill would end it; its heartbeat tells
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _beat(folder: Path, done: threading.Event) -> None:
    while not done.wait(BEAT_EVERY):
        with suppress(OSError):  # a passing failure of the disk: the next beat comes soon
            _write(folder / "heartbeat", str(time.time()))


def _write(file: Path, text: str) -> None:
    """Write a file that no reader sees half."""
    temporary = file.with_name(f"{file.name}.tmp")  # what a killed process leaves is overwritten
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _without_locks(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or getattr(error, "errno", None) in NO_LOCKS
