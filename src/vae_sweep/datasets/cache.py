"""The cache of prepared arrays: built once, checked at every opening, memory-mapped by all processes.

One folder per source and fingerprint holds ``<split>.npy`` (uint8, (N, C, H, W)), ``<split>-labels.npy``
(int64, (N,)) and ``meta.json``. It appears by one rename, so a folder that is there is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vae_sweep.base.errors import UserError, escaped
from vae_sweep.datasets.base import MAX_FACT, SPLITS, Built, ImageDataset, Source, Split, capped

log = logging.getLogger(__name__)

VERSION = 1  # of the folder's layout; another version is rebuilt
FILES = tuple(f"{split}{kind}.npy" for split in SPLITS for kind in ("", "-labels"))


class _Unusable(Exception):
    """Prepared arrays that are there but cannot be used; the text says why."""


def load(source: Source, cache_root: Path) -> ImageDataset:
    """The data set of `source`, prepared under `cache_root` if this was not done before.

    Of several processes that ask at once one prepares and the others wait. A damaged cache is rebuilt.

    Raises:
        UserError: the source is missing or unusable, or `cache_root` cannot be written.
    """
    if not re.fullmatch(r"[\w.-]+", source.name):
        raise UserError(f"dataset.name={source.name} is not allowed: use letters, digits, '_', '-' and '.'")
    fingerprint = source.fingerprint()
    if source.max_images is not None:
        fingerprint = {"max_images": source.max_images, "source": fingerprint}
    canonical = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    cache_root = Path(cache_root).expanduser()
    shown = re.sub(r"[^A-Za-z0-9_.-]", "_", source.name)  # not every file system takes every letter
    folder = cache_root / f"{shown}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
    try:
        return _open(source.name, folder)  # without the lock: many readers, also where nothing may be written
    except (OSError, _Unusable):
        pass
    with _locked(folder):
        try:
            return _open(source.name, folder)
        except FileNotFoundError:
            log.info("preparing %s in %s", source.name, folder)
        except _Unusable as error:
            log.warning("the prepared arrays in %s are unusable (%s); preparing them again", folder, error)
        _prepare(source, fingerprint, folder)
        return _open(source.name, folder, verify=False)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, whose parent is made if need be; says so once if it has to wait."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{folder}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that prepares %s", folder)
            lock.acquire()
    except OSError as error:
        raise _not_writable(folder.parent, error) from None
    try:
        yield
    finally:
        lock.release()


def _prepare(source: Source, fingerprint: dict[str, Any], folder: Path) -> None:
    """Build into a sibling folder and rename it into place. The caller holds the lock."""
    start = time.perf_counter()
    for leftover in folder.parent.glob(f"{folder.name}.tmp-*"):  # of builds that died: we hold their lock
        shutil.rmtree(leftover, ignore_errors=True)
    built = source.build()
    limit = {} if source.max_images is None else {MAX_FACT: source.max_images}
    built = Built(capped(built.splits, source.max_images), _escaped(built.facts | limit))
    _check(source.name, built)
    scratch = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    discarded = folder.with_name(f"{folder.name}.tmp-{os.getpid()}-old")
    try:
        scratch.mkdir()
        for split in SPLITS:
            np.save(scratch / f"{split}.npy", built.splits[split].images)
            np.save(scratch / f"{split}-labels.npy", built.splits[split].labels)
        meta = {
            "version": VERSION,
            "fingerprint": fingerprint,
            "facts": built.facts,
            "digest": _digest(built),
            "sha256": {name: _sha256(scratch / name) for name in FILES},
        }
        (scratch / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        if folder.exists():
            folder.rename(discarded)
        scratch.rename(folder)
    except OSError as error:
        raise _not_writable(folder.parent, error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(discarded, ignore_errors=True)
    counts = ", ".join(f"{len(built.splits[split]):,} {split}" for split in SPLITS)
    log.info("prepared %s in %.1f s: %s images", source.name, time.perf_counter() - start, counts)


def _open(name: str, folder: Path, verify: bool = True) -> ImageDataset:
    """Map the arrays in `folder`; FileNotFoundError where there is no such folder, _Unusable for a damaged one."""
    if not folder.exists():
        raise FileNotFoundError(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta["version"] != VERSION:
            raise _Unusable(f"version {meta['version']}, this program writes {VERSION}")
        if verify:
            for file in FILES:
                if _sha256(folder / file) != meta["sha256"][file]:
                    raise _Unusable(f"{file} does not have its checksum")
        splits = {}
        for split in SPLITS:
            # Copy-on-write: writable, as torch wants it, but no write reaches the file, and pages are shared.
            images = np.load(folder / f"{split}.npy", mmap_mode="c")
            splits[split] = Split(images, np.load(folder / f"{split}-labels.npy"))
        channels, height, width = splits["train"].images.shape[1:]
        return ImageDataset(name, splits, (channels, height, width), meta["digest"], meta["facts"], folder)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        raise _Unusable(f"{type(error).__name__}: {error}") from None


def _check(name: str, built: Built) -> None:
    """Refuse arrays that break the contract of a source, and empty splits."""
    shapes = set()
    for split in SPLITS:
        if split not in built.splits:
            raise UserError(f"dataset={name} has no split {split}; a source builds {', '.join(SPLITS)}")
        images, labels = built.splits[split].images, built.splits[split].labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(
                f"dataset={name}: the {split} images are {images.dtype} {images.shape}; they must be uint8 (N, C, H, W)"
            )
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise UserError(
                f"dataset={name}: the {split} labels are {labels.dtype} {labels.shape}; "
                f"they must be int64 ({len(images)},)"
            )
        if len(images) == 0:
            raise UserError(f"dataset={name} has no {split} image; every split needs one, so give it more images")
        shapes.add(images.shape[1:])
    if len(shapes) > 1:
        raise UserError(f"dataset={name}: the splits differ in (C, H, W): {sorted(shapes)}")


def _escaped(value: Any) -> Any:
    """JSON-able values whose texts can be stored anywhere."""
    if isinstance(value, dict):
        return {escaped(key): _escaped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return escaped(value) if isinstance(value, str) else value


def _digest(built: Built) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(np.ascontiguousarray(built.splits[split].images).data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_writable(root: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(
        f"cannot write prepared images under {root.absolute()} ({reason}); "
        "make it a writable folder with free space, or choose another with paths.data=<folder>"
    )
