"""A folder of images of any size and kind, with or without class folders and ready-made splits."""

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

from vae_sweep.base.cache import CACHE_TAG
from vae_sweep.base.errors import UserError, escaped
from vae_sweep.base.locks import STORE_LOCK
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
from vae_sweep.datasets.layout import File, Layout, arrange

log = logging.getLogger(__name__)

JUNK = {  # folders and files of operating systems and NAS
    *("@eadir", "@__thumb", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx"),
    *("system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini"),
}


@dataclass(frozen=True)
class Found:
    """An image file on disk."""

    name: str  # relative to the folder of the dataset, with '/'
    size: int  # bytes; -1: a broken link
    mtime_ns: int


@dataclass(kw_only=True)
class Folder(Source):
    """``path`` holds train/ and test/ (and val/ if there is one), or images anywhere below it.

    Case does not matter; splits may have other names (:data:`~vae_sweep.datasets.layout.SPLIT_OF`) and lie one or two
    folders deeper. Missing splits are drawn at random with `split_seed` from the rest.

    Raises:
        UserError: for a setting out of range.
    """

    name: str = "folder"
    path: str
    image_size: int = 32  # pixels, after centre crop to a square and resizing
    splits: str = "auto"  # folders taken for splits: auto (clear ones) | given (any called like one) | draw (none)
    value_range: list[float] | None = None  # [black, white] of images of more than 8 bits
    fraction: float = 1.0  # share of the training images to use
    val_fraction: float = 0.1  # share of those held out where there is no val/
    test_fraction: float = 0.1  # share of all held out where there is no test/
    split_seed: int = 0  # draws subset and splits
    strict: bool = False  # true: a broken image is an error; false: it is left out

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """Return path, names, sizes and times of all images, and the settings."""
        digest = hashlib.sha256()
        for file in self._walk()[0]:
            digest.update(f"{file.name}\0{file.size}\0{file.mtime_ns}\n".encode(errors="surrogateescape"))
        settings = {key: value for key, value in vars(self).items() if key not in ("name", "path", "max_images")}
        return {"format": 3, "path": str(self._root.resolve()), "files": digest.hexdigest(), **settings}

    def build(self) -> Built:
        """Return uint8 (N, 3, image_size, image_size), sorted by name; labels number the sorted class folders."""
        files, left_out = self._walk()
        layout = self._arrange([file.name for file in files])
        if layout.unused:
            log.warning("%d images in %s are outside its splits and are not used", layout.unused, escaped(self._root))
            left_out["images outside the splits"] = layout.unused
        for split, names in layout.unclassed.items():
            log.warning(
                "%d of %d %s images are in no class folder, such as %s: no class of that split is known",
                *(len(names), len(layout.given[split]), split, escaped(names[0])),
            )
        classes = sorted({cls for members in layout.given.values() for _, cls in members if cls})
        number = {cls: i for i, cls in enumerate(classes)} | {"": -1}
        given = self.value_range
        fit = Fit(self.image_size, value_range=(given[0], given[1]) if given else None)
        splits, broken, used = {}, [], 0
        for split, members in self._complete(layout.given).items():
            paths = [self._root / name for name, _ in members]
            labels = np.array([number[cls] for _, cls in members], np.int64)
            decode, what = partial(self._decode, fit), f"{split} images"
            images, labels, bad = decode_usable(paths, labels, decode, self.image_size, what, self.strict)
            splits[split] = Split(images, labels)
            broken += bad
            used += len(paths)
        facts: dict[str, Any] = {"source": f"images in {self._root}", "classes": classes, "images": len(files)}
        if fit.clipped:
            facts[NOTE] = f"{len(fit.clipped):,} images have values beyond dataset.value_range={given}: clipped"
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
                "values of black and white of all such images, as dataset.value_range=[0,1] or [0,255] or [-1,1]"
            ) from None

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def _walk(self) -> tuple[list[Found], Counter[str]]:
        """The image files, sorted by name; how many other files there are, by reason."""
        root, given = self._root, f"dataset.path={escaped(self.path)}"
        if not root.exists():
            raise UserError(f"{given}: there is no folder {escaped(root)}; give the folder of your images")
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
                f"{given}: no images in {escaped(root)} or below{f', only {others}' if others else ''}; "
                f"known endings: {kinds}"
            )
        return files, left_out

    def _arrange(self, names: list[str]) -> Layout:
        try:
            return arrange(names, self.splits)
        except UserError as error:
            raise UserError(escaped(f"dataset.path={self.path}: {error}")) from None

    def _complete(self, given: dict[str, list[File]]) -> dict[str, list[File]]:
        """All three splits: the given ones, and those drawn from train."""
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
    return "the other images" if split == "train" else "drawn from all images"


def walk(
    folder: Path, left_out: Counter[str], prefix: str = "", above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Found]:
    """Yield the image files below `folder`, following links; counts other files in `left_out`, by reason."""
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        return  # a link to a folder above
    with os.scandir(folder) as entries:
        for entry in entries:
            reason = _reason(entry.name)
            if _is_folder(entry):
                if _is_ours(Path(entry.path)):
                    continue
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


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_ours(folder: Path) -> bool:
    """Whether this program has made the folder: prepared images, or the artifacts and outputs of runs."""
    runs = folder if folder.name == "mlruns" else folder.parent / "mlruns"
    return (folder / CACHE_TAG).exists() or (folder.name in ("mlruns", "outputs") and (runs / STORE_LOCK).exists())


def _reason(name: str) -> str:
    """Why a file or folder of this name is left out; empty where it is not."""
    if name.casefold() in JUNK:
        return f"system files ({name})"
    return "hidden files" if name.startswith(".") else ""
