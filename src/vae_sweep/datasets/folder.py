"""A folder of pictures of any size and kind, with or without class folders and ready-made splits."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.base.errors import UserError, escaped
from vae_sweep.datasets.base import (
    LEFT_OUT,
    NOTE,
    ORIGINS,
    SPLITS,
    Built,
    Source,
    Split,
    check_common,
    draw,
    draw_fraction,
    hold_out_or_fail,
)
from vae_sweep.datasets.images import Fit, UnknownScale, broken_facts, decode_usable, endings
from vae_sweep.datasets.layout import Layout, Picture, arrange

log = logging.getLogger(__name__)

JUNK = {  # folders and files that systems put among pictures
    *("@eadir", "@__thumb", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"),
}


@dataclass(frozen=True)
class Found:
    """A picture file as the walk found it."""

    name: str  # relative to the walked folder, with '/'
    size: int  # bytes; -1: a link that leads nowhere
    mtime_ns: int


@dataclass(kw_only=True)
class Folder(Source):
    """``path`` holds train/ and test/ (and val/ if there is one), or pictures anywhere below it.

    Upper case, other names of a split (:data:`~vae_sweep.datasets.layout.SPLIT_OF`) and folders around them do not
    matter. Without val/ or test/ these are drawn with `split_seed` from the rest, since files come sorted by class.

    Raises:
        UserError: a setting is out of range.
    """

    name: str = "folder"
    path: str
    image_size: int = 32  # pixels, after centre crop to a square and resizing
    splits: str = "auto"  # folders taken for splits: auto (clear ones) | given (any called like one) | draw (none)
    value_range: list[float] | None = None  # [black, white] of floating-point and 32-bit pictures
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
        files, left_out = self._walk()
        for file in files:
            digest.update(f"{file.name}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
        settings = {key: value for key, value in vars(self).items() if key not in ("name", "path", "max_images")}
        others = {reason: n for reason, n in sorted(left_out.items()) if reason.startswith("files ")}  # facts name them
        place = {"path": str(self._root.resolve()), "files": digest.hexdigest(), "others": others}
        return {"format": 2, **place, **settings}

    def build(self) -> Built:
        """uint8 (N, 3, image_size, image_size) in the order of the sorted names; labels number the class folders."""
        files, left_out = self._walk()
        layout = self._arrange([file.name for file in files])
        if layout.unused:
            log.warning("%d pictures in %s lie outside its splits and are not used", layout.unused, escaped(self._root))
            left_out["pictures outside the splits"] = layout.unused
        classes = sorted({cls for pictures in layout.given.values() for _, cls in pictures if cls})
        number = {cls: i for i, cls in enumerate(classes)} | {"": -1}
        given = self.value_range
        fit = Fit(self.image_size, value_range=(given[0], given[1]) if given else None)
        splits, broken, used = {}, [], 0
        for split, pictures in self._complete(layout.given).items():
            paths = [self._root / name for name, _ in pictures]
            labels = np.array([number[cls] for _, cls in pictures], np.int64)
            decode, what = partial(self._decode, fit), f"{split} pictures"
            images, labels, bad = decode_usable(paths, labels, decode, self.image_size, what, self.strict)
            splits[split] = Split(images, labels)
            broken += bad
            used += len(paths)
        facts: dict[str, Any] = {"source": f"pictures in {self._root}", "classes": classes, "pictures": len(files)}
        if fit.cut:
            facts[NOTE] = f"{len(fit.cut):,} pictures have values beyond dataset.value_range={given}, which are cut"
            log.warning("%s", facts[NOTE])
        known = broken_facts(broken, used)
        origins = {split: layout.origins.get(split, _drawn(split, layout)) for split in SPLITS}
        return Built(splits, facts | known | {ORIGINS: origins, LEFT_OUT: dict(left_out) | known[LEFT_OUT]})

    def _decode(self, fit: Fit, path: Path) -> np.ndarray:
        """uint8 (3, image_size, image_size)."""
        try:
            return fit(path)
        except UnknownScale as error:
            raise UserError(
                f"dataset.path={escaped(self.path)}: {escaped(path.relative_to(self._root))} holds {error}; give the "
                "values of black and white in all such pictures, as dataset.value_range=[0,1] or [0,255] or [-1,1]"
            ) from None

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def _walk(self) -> tuple[list[Found], Counter[str]]:
        """The picture files, sorted by name; how many other files there are, by reason."""
        root, given = self._root, f"dataset.path={escaped(self.path)}"
        if not root.exists():
            raise UserError(f"{given}: there is no folder {escaped(root)}; name the folder of your pictures")
        if not root.is_dir():
            raise UserError(f"{given}: {escaped(root)} is a file; give a folder, and unpack an archive first")
        left_out: Counter[str] = Counter()
        try:
            files = sorted(walk(root, left_out), key=lambda file: file.name)
        except OSError as error:
            raise UserError(f"{given}: {escaped(error.filename)} cannot be read ({error.strerror})") from None
        if not files:
            others = ", ".join(f"{n:,} {reason}" for reason, n in left_out.most_common(3))
            kinds = " ".join(ending[1:] for ending in endings())
            raise UserError(
                f"{given}: no pictures in {escaped(root)} or below{f', only {others}' if others else ''}; "
                f"known endings: {kinds}"
            )
        return files, left_out

    def _arrange(self, names: list[str]) -> Layout:
        try:
            return arrange(names, self.splits)
        except UserError as error:
            raise UserError(escaped(f"dataset.path={self.path}: {error}")) from None

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
        found = {"train": train, "val": val, "test": test}
        most = self.max_images or len(train) + len(val) + len(test)
        return {split: [part[i] for i in draw(len(part), most, self.split_seed)] for split, part in found.items()}


def _drawn(split: str, layout: Layout) -> str:
    if layout.origins:
        return "drawn from train"
    return "the other pictures" if split == "train" else "drawn from all pictures"


def walk(
    folder: Path, left_out: Counter[str], prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Found]:
    """The picture files below `folder`, through links too; counts the others in `left_out`, by reason."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return  # a link back to a folder that leads here
    with os.scandir(folder) as entries:
        for entry in entries:
            reason = _reason(entry.name)
            if entry.is_dir():
                if reason:
                    left_out[reason] += sum(len(files) for _, _, files in os.walk(entry.path))
                else:
                    yield from walk(Path(entry.path), left_out, f"{prefix}{entry.name}/", above | {here})
            elif reason or not entry.name.lower().endswith(endings()):
                ending = os.path.splitext(entry.name)[1].lower()
                left_out[reason or (f"files ending in {ending}" if ending else "files without an ending")] += 1
            else:
                try:
                    found = entry.stat()
                except OSError:
                    yield Found(prefix + entry.name, -1, 0)
                else:
                    yield Found(prefix + entry.name, found.st_size, found.st_mtime_ns)


def _reason(name: str) -> str:
    """Why a file or folder of this name holds no picture of the data set; empty where it may."""
    if name.casefold() in JUNK:
        return f"system files ({name})"
    return "hidden files" if name.startswith(".") else ""
