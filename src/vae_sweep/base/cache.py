"""Results that depend on nothing but a dataset and the code: computed once, kept beside the prepared images."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from vae_sweep.base.versions import METRICS_VERSION


def cached(
    folder: Path,
    kind: str,
    known: object,
    keys: Collection[str],
    compute: Callable[[], dict[str, Any]],
    complete: Callable[[dict[str, Any]], bool] = lambda found: True,
) -> dict[str, Any]:
    """Return what ``compute`` returned when it was first asked for the same ``kind`` and ``known`` (JSON values).

    The version of the metrics' code is part of what is asked for.

    Of several processes that ask at once one computes and the others wait. A file without all of ``keys`` is damaged
    and replaced. What is not ``complete`` is returned, but not kept; nor is anything where ``folder`` may only be read.
    """
    name = hashlib.sha256(json.dumps([METRICS_VERSION, known]).encode()).hexdigest()[:16]
    path = folder / f"{kind}-{name}.json"
    found = _read(path, keys)
    if found is not None:
        return found
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire()
    except OSError:
        return compute()
    try:
        found = _read(path, keys)
        if found is None:
            found = compute()
            if complete(found):
                with suppress(OSError):  # a full disk: it is computed again next time
                    path.with_suffix(".tmp").write_text(json.dumps(found), encoding="utf-8")
                    os.replace(path.with_suffix(".tmp"), path)
    finally:
        lock.release()
    return found


def _read(path: Path, keys: Collection[str]) -> dict[str, Any] | None:
    """What is kept there; None where nothing is, or where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.keys() >= set(keys) else None
