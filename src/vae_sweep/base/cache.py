"""Results that are computed once and kept on disk, beside the prepared images of the dataset that they belong to."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from filelock import Timeout

from vae_sweep.base.files import atomic_write
from vae_sweep.base.locks import file_lock, has_no_locks
from vae_sweep.base.versions import METRICS_VERSION

log = logging.getLogger(__name__)

T = TypeVar("T")
DAMAGE = (  # what reading a missing, cut off or changed file may raise
    *(OSError, ValueError, KeyError, TypeError, EOFError, RecursionError),
    *(zipfile.BadZipFile, zlib.error),
)


CACHE_TAG = "CACHEDIR.TAG"  # of https://bford.info/cachedir/: backup programs leave its folder out
SIGNATURE = "Signature: 8a477f597d28d172789f06886806bc55\n"


class CannotLock(OSError):
    """The folder of a cache cannot be made or written."""


def once(path: Path, read: Callable[[Path], T], make: Callable[[], T]) -> T:
    """Return ``read(path)``; where that fails, hold the lock beside ``path`` and return ``make()``.

    ``make`` writes ``path``. Of several processes that ask at once, one makes it and the others wait and read. ``read``
    raises one of :data:`DAMAGE` for what it cannot use; a damaged file is made again, with a warning.

    Raises:
        CannotLock: where the folder is not writable.
    """
    with suppress(*DAMAGE):
        return read(path)  # without the lock: many readers, also in a folder that may only be read
    with _locked(path):
        try:
            return read(path)
        except DAMAGE as error:
            if path.exists():
                log.warning("%s is unusable (%s: %s); it is rebuilt", path, type(error).__name__, error)
        return make()


def cached_file(
    path: Path,
    read: Callable[[Path], T],
    compute: Callable[[], T],
    write: Callable[[Path, T], object],
    complete: Callable[[T], bool] = lambda result: True,
) -> T:
    """Return ``read(path)``, or ``compute()`` and keep it by ``write(path, result)``; see :func:`once`.

    A result that is not ``complete`` is returned and not kept. Where nothing can be written, nothing is kept.
    """

    def make() -> T:
        result = compute()
        if complete(result):
            with suppress(OSError), atomic_write(path) as temporary:  # a full disk: it is computed again next time
                write(temporary, result)
        return result

    try:
        return once(path, read, make)
    except CannotLock:
        return compute()


def cached(
    folder: Path,
    kind: str,
    known: object,
    keys: Collection[str],
    compute: Callable[[], dict[str, Any]],
    complete: Callable[[dict[str, Any]], bool] = lambda found: True,
) -> dict[str, Any]:
    """Return the result of ``compute()`` for this ``kind`` and ``known`` (JSON values), kept as JSON in ``folder``.

    It belongs to this version of the metrics. A file without all of ``keys`` is damaged. See :func:`cached_file`.
    """
    name = hashlib.sha256(json.dumps([METRICS_VERSION, known]).encode()).hexdigest()[:16]

    def read(path: Path) -> dict[str, Any]:
        found = json.loads(path.read_text(encoding="utf-8"))
        if missing := sorted(set(keys) - set(found)):
            raise KeyError(", ".join(missing))
        return found

    def write(path: Path, result: dict[str, Any]) -> None:
        path.write_text(json.dumps(result), encoding="utf-8")

    return cached_file(folder / f"{kind}-{name}.json", read, compute, write, complete)


def read_arrays(path: Path, version: int) -> dict[str, np.ndarray]:
    """Return the arrays that :func:`write_arrays` wrote with the same ``version``.

    Raises:
        ValueError, among :data:`DAMAGE`: for a file of another version.
    """
    # numpy leaves the file open when it is no archive, unless the file is ours
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        if int(file["format"]) != version:
            raise ValueError(f"format {file['format']}, this program writes {version}")
        return dict(file)


def write_arrays(path: Path, version: int, **arrays: Any) -> None:
    """Write named arrays as .npz, whatever ``path`` ends with."""
    with path.open("wb") as file:
        np.savez(file, format=version, **arrays)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold ``<path>.lock``, and log it where another process holds it; on a disk without locks hold nothing."""
    lock = file_lock(f"{path}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that is preparing %s", path)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        if not has_no_locks(error):
            raise CannotLock(*error.args) from error
    try:
        yield
    finally:
        lock.release()
