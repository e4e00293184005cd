"""Who works on what: a lock that its owner's death releases, and a note of who the owner is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vae_sweep.errors import UserError


@contextmanager
def lease(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` for this process.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        UserError: where a living process holds it, naming its host and pid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    owner = folder / "owner.json"
    try:
        lock.acquire(timeout=2)  # somebody may only be looking whether it is held
    except Timeout:
        known = owner_of(folder) or {"pid": "of unknown number", "host": "an unknown host"}
        raise UserError(
            f"{what} is at work already, in process {known['pid']} on {known['host']}; wait for it to end, stop it, "
            "or give this one another sweep.name"
        ) from None
    try:
        owner.write_text(json.dumps(me()), encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def me() -> dict[str, str | int]:
    """Return what this process calls itself as an owner."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def is_held(folder: Path) -> bool:
    """Return whether a living process holds ``folder``."""
    if not (folder / "lock").exists():
        return False
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def owner_of(folder: Path) -> dict[str, str | int] | None:
    """Return who holds ``folder``, or held it when it died; None where nobody is known."""
    try:
        return json.loads((folder / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
