"""A folder of pictures of any size and kind, with or without class folders and ready-made splits."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.datasets.base import (
    SPLITS,
    Built,
    Source,
    Split,
    check_common,
    draw_fraction,
    hold_out_or_fail,
)
from vae_sweep.datasets.images import Fit, broken_facts, decode_usable
from vae_sweep.errors import UserError

log = logging.getLogger(__name__)

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")


Picture = tuple[str, str]  # (relative name, class; "" where there are none)


@dataclass(frozen=True)
class Found:
    """A picture file as the walk found it."""

    name: str  # relative to the walked folder, with '/'
    size: int  # bytes; -1: a link that leads nowhere
    mtime_ns: int


@dataclass(kw_only=True)
class Folder(Source):
    """``path`` holds train/ and test/ (and val/ if there is one), or pictures anywhere below it.

    Without val/ or test/ these are drawn with `split_seed` from the rest, since files come sorted by class.

    Raises:
        UserError: a setting is out of range.
    """

    name: str = "folder"
    path: str
    image_size: int = 32  # pixels, after centre crop to a square and resizing
    fraction: float = 1.0  # share of the training images to use
    val_fraction: float = 0.1  # share of those held out where there is no val/
    test_fraction: float = 0.1  # share of all held out where there is no test/
    split_seed: int = 0  # draws subset and splits
    strict: bool = False  # a broken picture ends the run, else it is left out

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """Place, names, sizes and times of all pictures, and the settings."""
        digest = hashlib.sha256()
        for file in self._walk():
            digest.update(f"{file.name}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
        settings = {key: value for key, value in vars(self).items() if key not in ("name", "path")}
        return {"format": 1, "path": str(self._root.resolve()), "files": digest.hexdigest(), **settings}

    def build(self) -> Built:
        """uint8 (N, 3, image_size, image_size) in the order of the sorted names; labels number the class folders."""
        names = [file.name for file in self._walk()]
        given = arrange(names)
        ignored = len(names) - sum(map(len, given.values()))
        if ignored:
            log.warning("%d pictures in %s lie outside train/, val/ and test/ and are not used", ignored, self._root)
        classes = sorted({cls for pictures in given.values() for _, cls in pictures if cls})
        number = {cls: i for i, cls in enumerate(classes)} | {"": -1}
        splits, broken, used = {}, [], 0
        for split, pictures in self._complete(given).items():
            paths = [self._root / name for name, _ in pictures]
            labels = np.array([number[cls] for _, cls in pictures], np.int64)
            images, labels, bad = decode_usable(paths, labels, Fit(self.image_size), f"{split} pictures", self.strict)
            splits[split] = Split(images, labels)
            broken += bad
            used += len(paths)
        facts = {"source": f"pictures in {self._root}", "classes": classes, "pictures": len(names)}
        return Built(splits, facts | broken_facts(broken, used))

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def _walk(self) -> list[Found]:
        """The picture files, sorted by name."""
        root = self._root
        if not root.exists():
            raise UserError(f"dataset.path={self.path}: there is no folder {root}; name the folder of your pictures")
        if not root.is_dir():
            raise UserError(f"dataset.path={self.path}: {root} is a file; give a folder, and unpack an archive first")
        try:
            files = sorted(walk(root), key=lambda file: file.name)
        except OSError as error:
            raise UserError(f"dataset.path={self.path}: {error.filename} cannot be read ({error.strerror})") from None
        if not files:
            kinds = " ".join(extension[1:] for extension in EXTENSIONS)
            raise UserError(f"dataset.path={self.path}: no pictures in {root} or below; known endings: {kinds}")
        return files

    def _complete(self, given: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
        """All three splits: those given, and those drawn from train."""
        train, val, test = (given.get(split, []) for split in SPLITS)
        if not test:
            kept, held = hold_out_or_fail(len(train), "test_fraction", self.test_fraction, self.split_seed)
            train, test = [train[i] for i in kept], [train[i] for i in held]
        train = [train[i] for i in draw_fraction(len(train), self.fraction, self.split_seed)]
        if not val:
            kept, held = hold_out_or_fail(len(train), "val_fraction", self.val_fraction, self.split_seed)
            train, val = [train[i] for i in kept], [train[i] for i in held]
        return {"train": train, "val": val, "test": test}


def walk(folder: Path, prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Found]:
    """The picture files below `folder`, through links too; hidden ones and __MACOSX are passed over."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return  # a link back to a folder that leads here
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from walk(Path(entry.path), f"{prefix}{entry.name}/", above | {here})
            elif entry.name.lower().endswith(EXTENSIONS):
                try:
                    found = entry.stat()
                except OSError:
                    yield Found(prefix + entry.name, -1, 0)
                else:
                    yield Found(prefix + entry.name, found.st_size, found.st_mtime_ns)


def arrange(names: list[str]) -> dict[str, list[Picture]]:
    """The pictures of each ready-made split, or all of them as "train" where there are none."""
    tops = {name.partition("/")[0] for name in names if "/" in name}
    # A class may be called "train": it is a split if test/ stands beside it, or nothing but val/.
    only = all("/" in name for name in names) and tops <= {"train", "val"}
    if "train" in tops and ("test" in tops or only):
        given = {split: [name for name in names if name.startswith(f"{split}/")] for split in SPLITS}
        return {split: _classify(members, depth=1) for split, members in given.items() if members}
    return {"train": _classify(names, depth=0)}


def _classify(names: list[str], depth: int) -> list[Picture]:
    """Each name with its folder at `depth`; without classes if some picture has no such folder."""
    parts = [name.split("/") for name in names]
    classed = all(len(part) > depth + 1 for part in parts)
    return [(name, part[depth] if classed else "") for name, part in zip(names, parts, strict=True)]
