"""The cache of prepared arrays: built once, checked at every opening, memory-mapped by all processes.

One folder per source and fingerprint holds ``<split>.npy`` (uint8, (N, C, H, W)), ``<split>-labels.npy``
(int64, (N,)) and ``meta.json``. It appears by one rename, so it is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.base import plugins
from vae_sweep.base.cache import CACHE_TAG, DAMAGE, SIGNATURE, CannotLock, once
from vae_sweep.base.errors import UserError, escaped, first_line
from vae_sweep.datasets.arrays import as_built
from vae_sweep.datasets.base import MAX_FACT, SPLITS, Built, ImageDataset, Source, Split, capped
from vae_sweep.datasets.base import draw as drawn

log = logging.getLogger(__name__)

VERSION = 1  # of the folder's layout; another version is rebuilt
FILES = tuple(f"{split}{kind}.npy" for split in SPLITS for kind in ("", "-labels"))


def load(source: Source, cache_root: Path) -> ImageDataset:
    """Return the dataset of ``source``, prepared under ``cache_root`` unless it is there already.

    Of several processes that ask at once, one prepares it and the others wait. A damaged cache is rebuilt.

    Raises:
        UserError: where the source is missing or unusable, or ``cache_root`` is not writable.
    """
    fingerprint, folder = _place(source, cache_root)

    def prepare() -> ImageDataset:
        log.info("preparing %s in %s", source.name, folder)
        started = time.perf_counter()
        built = _build(source)
        _write(built, fingerprint, folder, _identity(source, built, folder.parent))
        counts = ", ".join(f"{len(built.splits[split]):,} {split}" for split in SPLITS)
        log.info("prepared %s in %.1f s: %s images", source.name, time.perf_counter() - started, counts)
        return _open(source.name, folder)

    try:
        dataset = once(folder, lambda folder: _open(source.name, folder, verify=True), prepare)
    except CannotLock as error:
        raise _not_writable(folder.parent, error) from None
    known = getattr(source, "known_factors", None)
    return replace(dataset, factors=partial(_factors, known, source.max_images)) if known else dataset


def _factors(known: Callable[[str], dict[str, np.ndarray]], most: int | None, split: str) -> dict[str, np.ndarray]:
    """The factors of those images that ``most`` leaves."""
    found = {name: np.asarray(values) for name, values in known(split).items()}
    return {
        name: values[drawn(len(values), len(values) if most is None else most, 0)] for name, values in found.items()
    }


def prepared_identity(source: Source, cache_root: Path) -> tuple[str, str] | None:
    """Return digest and arrangement of the dataset of ``source`` without its arrays; None where it is not prepared.

    Raises:
        UserError: where the source is missing.
    """
    try:
        meta = json.loads((_place(source, cache_root)[1] / "meta.json").read_text(encoding="utf-8"))
        return str(meta["digest"]), str(meta.get("arrangement", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _place(source: Source, cache_root: Path) -> tuple[dict[str, Any], Path]:
    """The source's fingerprint, and the folder of its arrays."""
    if not re.fullmatch(r"[\w.-]+", source.name):
        raise UserError(f"dataset.name={source.name} is not allowed: use letters, digits, '_', '-' and '.'")
    with _of_the_user(source, "fingerprint"):
        fingerprint = json.loads(json.dumps(source.fingerprint()))
    if source.max_images is not None:
        fingerprint = {"max_images": source.max_images, "source": fingerprint}
    canonical = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", source.name)  # not every file system takes every letter
    folder = Path(cache_root).expanduser() / f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"
    return fingerprint, folder


@contextmanager
def _of_the_user(source: Source, method: str) -> Iterator[None]:
    """Say in one line what a user's own class raises; those of vae_sweep speak for themselves."""
    cls = type(getattr(source, "source", source))  # of a permuted one
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if cls.__module__.startswith(plugins.OURS):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(
            f"dataset={source.name}: {cls.__module__}.{cls.__qualname__}.{method} failed ({reason}); "
            f"{plugins.TRACEBACK}"
        ) from error


def _build(source: Source) -> Built:
    """What the source builds, checked, with ``source.max_images`` applied and facts that can be stored."""
    with _of_the_user(source, "build"):
        returned = source.build()
    built = as_built(source.name, returned)
    limit = {} if source.max_images is None else {MAX_FACT: source.max_images}
    built = Built(capped(built.splits, source.max_images), _escaped(built.facts | limit))
    _check(source.name, built)
    return built


def _write(built: Built, fingerprint: dict[str, Any], folder: Path, identity: dict[str, str]) -> None:
    """Write beside ``folder`` and rename; the caller holds the lock."""
    temporary = folder.with_name(f"{folder.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        temporary.mkdir()
        (folder.parent / CACHE_TAG).write_text(SIGNATURE, encoding="ascii")
        for split in SPLITS:
            np.save(temporary / f"{split}.npy", built.splits[split].images)
            np.save(temporary / f"{split}-labels.npy", built.splits[split].labels)
        meta = {
            "version": VERSION,
            "fingerprint": fingerprint,
            "facts": built.facts,
            **identity,
            "sha256": {name: _sha256(temporary / name) for name in FILES},
        }
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # damaged
        temporary.rename(folder)
    except OSError as error:
        raise _not_writable(folder.parent, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open(name: str, folder: Path, verify: bool = False) -> ImageDataset:
    """Map the arrays in ``folder``; raises one of DAMAGE where there are none, or where they are damaged."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if meta["version"] != VERSION:
        raise ValueError(f"version {meta['version']}, this program writes {VERSION}")
    if verify:
        for file in FILES:
            if _sha256(folder / file) != meta["sha256"][file]:
                raise ValueError(f"{file} does not have its checksum")
    splits = {}
    for split in SPLITS:
        # Copy-on-write: writable, as torch wants it, but no write reaches the file, and pages are shared.
        images = np.load(folder / f"{split}.npy", mmap_mode="c")
        splits[split] = Split(images, np.load(folder / f"{split}-labels.npy"))
    channels, height, width = splits["train"].images.shape[1:]
    known = meta["digest"], meta["facts"], folder, meta.get("arrangement", "")
    return ImageDataset(name, splits, (channels, height, width), *known)


def _check(name: str, built: Built) -> None:
    """Check that each split is there, not empty, and has arrays of the right type and shape."""
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
    """JSON values whose texts are UTF-8."""
    if isinstance(value, dict):
        return {escaped(key): _escaped(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return escaped(value) if isinstance(value, str) else value


def _identity(source: Source, built: Built, cache_root: Path) -> dict[str, str]:
    """Digest of the images and hash of the splits; the latter "" where an earlier version has prepared the same data.

    Those had no such hash, so the runs on them continue.
    """
    digest = _digest(built)
    arrangement = "" if source.fixed_splits else _arrangement(built.splits)
    for file in cache_root.glob("*/meta.json") if arrangement else ():
        with suppress(*DAMAGE):
            meta = json.loads(file.read_text(encoding="utf-8"))
            if meta["digest"] == digest and not meta.get("arrangement"):
                before = _open(source.name, file.parent).splits
                arrangement = "" if _arrangement(before) == arrangement else arrangement
    return {"digest": digest, "arrangement": arrangement}


def _digest(built: Built) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(np.ascontiguousarray(built.splits[split].images).data)
    return digest.hexdigest()


def _arrangement(splits: Mapping[str, Split]) -> str:
    """Images may move from the end of one split to the beginning of the next without another digest."""
    digest = hashlib.sha256(json.dumps([len(splits[split]) for split in SPLITS]).encode())
    for split in SPLITS:
        digest.update(np.ascontiguousarray(splits[split].labels).data)
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _not_writable(root: Path, error: OSError) -> UserError:
    reason = error.strerror or str(error)
    return UserError(
        f"cannot write prepared images under {root.absolute()} ({reason}); "
        "make it a writable folder with free space, or choose another with paths.data=<folder>"
    )
