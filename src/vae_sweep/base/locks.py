"""Locks on folders: the operating system releases them when their owner ends, and a heartbeat shows that it lives.

On a shared disk a lock may not reach other machines, or not exist at all; there the heartbeat alone counts.
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
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vae_sweep.base.errors import UserError
from vae_sweep.base.files import atomic_write

log = logging.getLogger(__name__)

HEARTBEAT_EVERY = 2.0  # seconds
HEARTBEAT_WITHIN = 5.0  # seconds in which the heartbeat of a living owner changes, as seen through a disk's cache
HEARTBEAT_STALE = 600.0  # seconds; an older one is not watched for a change. Clocks of two machines may differ by less
STORE_LOCK = ".store.lock"  # in mlruns, of the store
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # from a file system without locks


def file_lock(path: str | Path) -> FileLock:
    """Return a lock of the operating system; taking it raises an error of :func:`has_no_locks` where there is none.

    A file that says "locked" instead is no lock: a process that is killed leaves it, and other machines wait forever.
    """
    return FileLock(path, fallback_to_soft=False)


@contextmanager
def hold_lock(folder: Path, what: str, remedy: str = "stop it") -> Iterator[None]:
    """Hold ``folder``, made where it is missing, for this process; ``what`` names it in messages.

    Raises:
        UserError: where a living process holds it; names its host and pid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = file_lock(folder / "lock")
    try:
        lock.acquire(timeout=2)  # another process may be asking whether it is held
        taken = bool(_with_living_owners([folder]))
    except Timeout:
        taken = True
    except (OSError, NotImplementedError) as error:
        if not has_no_locks(error):
            raise
        taken = bool(_with_living_owners([folder]))
    if taken:
        lock.release()
        owner = owner_of(folder) or {"pid": "of unknown number", "host": "an unknown host"}
        raise UserError(
            f"{what} is already running, in process {owner['pid']} on {owner['host']}; wait for it to end, or {remedy}"
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


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes; on a disk without locks hold nothing."""
    lock = file_lock(path)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if not has_no_locks(error):
            raise
    try:
        yield
    finally:
        lock.release()


def warn_without_locks(folder: Path) -> None:
    """Log a warning where the lock of ``folder``, which this process holds, does not stop a second process."""
    code = "import sys, filelock; filelock.FileLock(sys.argv[1], fallback_to_soft=False).acquire(timeout=0)"
    command = [sys.executable, "-c", code, str(folder / "lock")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode == 0 or "Timeout" not in done.stderr:
        log.warning(
            "%s: file locks do not work on this disk; heartbeats show which processes live, but two commands that "
            "start the same sweep within seconds may both run it",
            folder,
        )


def this_process() -> dict[str, str | int]:
    """Return host and pid of this process, as an owner."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_held(folder: Path) -> bool:
    """Return whether a living process holds ``folder``; for a process of another machine this may take seconds."""
    return bool(held([folder]))


def held(folders: Iterable[Path]) -> set[Path]:
    """Return the folders that living processes hold; all processes of other machines are watched at once."""
    known = set(folders)
    locked = {folder for folder in known if is_locked(folder)}
    return locked | _with_living_owners(known - locked)


def is_locked(folder: Path) -> bool:
    """Return whether the lock of ``folder`` is taken, as far as locks reach this machine.

    Raises:
        OSError: where the disk fails.
    """
    if not (folder / "lock").exists():
        return False
    lock = file_lock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError) as error:
        if not has_no_locks(error):
            raise
        return False
    lock.release()
    return False


def owner_of(folder: Path) -> dict[str, str | int] | None:
    """Return host and pid of the process that holds ``folder``, or died holding it; None where there is none.

    Raises:
        OSError: where the disk fails.
    """
    text = _read(folder / "owner.json")
    with suppress(ValueError):  # cut off
        return json.loads(text) if text else None
    return None


def heartbeat(folder: Path) -> str | None:
    """Return the last heartbeat of the owner of ``folder``: the time, in seconds since 1970.

    Raises:
        OSError: where the disk fails.
    """
    return _read(folder / "heartbeat")


def pid_exists(pid: int) -> bool:
    """Return whether this machine has a process of that number, zombies included."""
    if os.name == "nt":
        return True  # os.kill would end it; the heartbeat decides
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def has_no_locks(error: Exception) -> bool:
    """Return whether taking a lock failed because the file system has none."""
    return isinstance(error, NotImplementedError) or getattr(error, "errno", None) in NO_LOCKS


def _with_living_owners(folders: Iterable[Path]) -> set[Path]:
    """The folders whose owners, as they name them, still write their heartbeats."""
    first = {folder: beat for folder in folders if (beat := heartbeat(folder)) and _may_live(owner_of(folder), beat)}
    alive: set[Path] = set()
    until = time.monotonic() + HEARTBEAT_WITHIN
    while len(alive) < len(first) and time.monotonic() < until:
        time.sleep(0.1)
        alive |= {folder for folder, beat in first.items() if heartbeat(folder) != beat}
    return alive


def _may_live(owner: dict[str, str | int] | None, beat: str) -> bool:
    """Whether an owner may live whose last heartbeat is ``beat``."""
    if owner is None or abs(time.time() - float(beat)) > HEARTBEAT_STALE:
        return False
    return owner["host"] != this_process()["host"] or pid_exists(int(owner["pid"]))


def _beat(folder: Path, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_EVERY):
        with suppress(OSError):  # the next one comes soon
            _write(folder / "heartbeat", str(time.time()))


def _write(file: Path, text: str) -> None:
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
