"""CelebA, aligned and cropped (178x218 pixels, or copies of another size); never downloaded."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.base.errors import UserError, escaped
from vae_sweep.datasets.base import ORIGINS, Built, Source, Split, check, check_common, draw, draw_fraction
from vae_sweep.datasets.images import Broken, Fit, broken_facts, decode_usable, size_of

log = logging.getLogger(__name__)

IMAGE_FOLDER = "img_align_celeba"
PARTITIONS = ("list_eval_partition.txt", "list_eval_partition.csv")
CODES = {"train": 0, "val": 1, "test": 2}  # of the official partition file
WIDTH, HEIGHT = 178, 218  # pixels of an aligned image
CROP = 148  # pixels of its width, as is customary: the face without the border
SAMPLED = 50  # images of each split whose size is read before any is decoded


def choose(partition: np.ndarray, fraction: float, max_val: int, seed: int) -> dict[str, np.ndarray]:
    """Return the rows of each split: sorted indices into ``partition``, int (N,), whose values are 0, 1, 2.

    Exactly round(fraction * n) of the n training rows, at most ``max_val`` validation rows (0: all), every test row.

    Raises:
        UserError: where a split would be empty.
    """
    rows = {split: np.flatnonzero(partition == code) for split, code in CODES.items()}
    for split, members in rows.items():
        if len(members) == 0:
            raise UserError(
                f"dataset=celeba: the partition file lists no {split} image (code {CODES[split]}); "
                "use the list_eval_partition.txt that comes with the images"
            )
    train = rows["train"][draw_fraction(len(rows["train"]), fraction, seed)]
    val = rows["val"][draw(len(rows["val"]), max_val or len(rows["val"]), seed)]
    return {"train": train, "val": val, "test": rows["test"]}


@dataclass(kw_only=True)
class CelebA(Source):
    """202,599 faces in the official partition (162,770 train, 19,867 validation, 19,962 test).

    Read as torchvision lays it out (root/celeba/img_align_celeba/), as a plain root/img_align_celeba/, or as
    Kaggle nests it (img_align_celeba/img_align_celeba/), with the partition as .txt or .csv.

    Raises:
        UserError: for a setting out of range.
    """

    fixed_splits = True
    name: str = "celeba"
    root: str
    image_size: int = 32  # pixels, after crop and resizing
    crop_size: int = CROP  # side of the centre crop, pixels of the file
    fraction: float = 0.3  # share of the official training partition
    max_val: int = 5000  # validation images; 0: the whole official validation partition
    split_seed: int = 0  # draws both subsets
    strict: bool = False  # true: a broken image is an error; false: it is left out

    def __post_init__(self) -> None:
        check_common(self)
        check(self.max_val >= 0, "max_val", self.max_val, "0 (all) or more")

    def fingerprint(self) -> dict[str, Any]:
        """Return the hash of partition file, sizes and times of the chosen images, and the settings."""
        folder, partition = self._locate()
        digest = hashlib.sha256(partition.read_bytes())
        names, chosen = self._choose(partition)
        for i in np.concatenate([chosen[split] for split in CODES]):
            try:
                found = os.stat(f"{folder}/{names[i]}")
                digest.update(f"{found.st_size} {found.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(b"missing\n")
        settings = {key: value for key, value in vars(self).items() if key not in ("name", "root", "max_images")}
        # "pictures" is part of the names of caches that exist
        return {"format": 2, "pictures": str(folder.resolve()), "files": digest.hexdigest(), **settings}

    def build(self) -> Built:
        """Return uint8 (N, 3, image_size, image_size) in the order of the partition file; there are no labels."""
        folder, partition = self._locate()
        names, chosen = self._choose(partition)
        paths = {split: [folder / names[i] for i in self._capped(rows)] for split, rows in chosen.items()}
        for split, found in paths.items():
            _check_unpacked(split, found, folder)
        fit = Fit(self.image_size, self.crop_size, size_of_all=self._check_size(paths, folder))
        splits: dict[str, Split] = {}
        broken: Broken = []
        for split, found in paths.items():
            none = np.full(len(found), -1, np.int64)
            images, labels, bad = decode_usable(found, none, fit, self.image_size, f"{split} images", self.strict)
            splits[split] = Split(images, labels)
            broken += bad
        facts: dict[str, Any] = {
            "source": f"CelebA (Liu et al. 2015) in {folder}",
            "classes": [],
            ORIGINS: dict.fromkeys(splits, "official partition"),
            "train_share": f"{len(chosen['train'])} of {int(np.sum(_codes(partition)[1] == CODES['train']))}",
        }
        return Built(splits, facts | broken_facts(broken, sum(map(len, paths.values()))))

    def _capped(self, rows: np.ndarray) -> np.ndarray:
        return rows[draw(len(rows), self.max_images or len(rows), self.split_seed)]

    def _check_size(self, paths: dict[str, list[Path]], folder: Path) -> tuple[int, int] | None:
        """The size (W, H) of nearly all images, for which the crop is right; None where no image can be read.

        Raises:
            UserError: where the crop is meant for another size, or the splits have different sizes.
        """
        usual = {split: found[0][0] for split, part in paths.items() if (found := _sizes(part).most_common(1))}
        sizes = sorted(set(usual.values()))
        if len(sizes) > 1:
            shown = ", ".join(f"{split} {width}x{height}" for split, (width, height) in usual.items())
            raise UserError(
                f"dataset=celeba: the images in {escaped(folder)} have different sizes ({shown}); unpack one copy "
                "of the dataset alone, or give dataset=folder, which takes any size"
            )
        if not sizes:
            return None
        width, height = sizes[0]
        scaled = abs(width * HEIGHT - height * WIDTH) <= max(WIDTH, HEIGHT)  # up to the rounding of a pixel
        fits = round(CROP * width / WIDTH) if scaled else min(width, height)
        if self.crop_size > min(width, height) or (self.crop_size == CROP and fits != CROP):
            raise UserError(
                f"dataset.crop_size={self.crop_size}: the images in {escaped(folder)} have {width}x{height} pixels "
                f"(the aligned ones {WIDTH}x{HEIGHT}); give dataset.crop_size={fits}, "
                f"{f'the same part of the face as {CROP} of {WIDTH}' if scaled else 'the largest square'}"
            )
        return width, height

    def _choose(self, partition: Path) -> tuple[list[str], dict[str, np.ndarray]]:
        names, codes = _codes(partition)
        return names, choose(codes, self.fraction, self.max_val, self.split_seed)

    def _locate(self) -> tuple[Path, Path]:
        """The folder with the images and the partition file."""
        root = Path(self.root).expanduser().absolute()
        homes = [root / "celeba", root]
        folders = [home / IMAGE_FOLDER for home in homes]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            archives = (home / f"{IMAGE_FOLDER}.zip" for home in homes)
            archive = next((archive for archive in archives if archive.is_file()), None)
            todo = f"unzip {archive} where it is" if archive else "get img_align_celeba.zip from its authors' page"
            raise UserError(
                f"dataset=celeba: no images at {folders[0]} or {folders[1]}; {todo} "
                f"(no automatic download: the host limits it); dataset=shapes works without any download"
            )
        files = [home / name for home in dict.fromkeys([folder.parent, *homes]) for name in PARTITIONS]
        partition = next((file for file in files if file.is_file()), None)
        if partition is None:
            raise UserError(
                f"dataset=celeba: the images are at {folder}, but the official partition is missing; "
                f"put it at {files[0]} or {files[1]}"
            )
        nested = folder / IMAGE_FOLDER
        return (nested if nested.is_dir() else folder), partition


def _check_unpacked(split: str, paths: Sequence[Path], folder: Path) -> None:
    """Log how many images of a split are missing.

    Raises:
        UserError: where all are missing.
    """
    missing = [path for path in paths if not path.exists()]
    counted = f"{len(missing):,} of {len(paths):,} {split} images are missing in {escaped(folder)}"
    if len(missing) == len(paths):
        other = next((path.name for path in folder.iterdir() if path.is_file()), None)
        there = f"; what lies there is called {escaped(other)}" if other else ""
        raise UserError(
            f"dataset=celeba: {counted} (the first: {missing[0].name}){there}; finish unpacking {IMAGE_FOLDER}.zip, or "
            "give the partition file that belongs to these images"
        )
    if missing:
        log.warning("%s (the first: %s); finish unpacking %s.zip", counted, missing[0].name, IMAGE_FOLDER)


def _sizes(paths: Sequence[Path]) -> Counter[tuple[int, int]]:
    """How often each size (W, H) occurs in an evenly spaced sample of the images."""
    there = [path for path in paths if path.is_file()]
    found = [size_of(path) for path in there[:: max(1, len(there) // SAMPLED)]]
    return Counter(size for size in found if size)


def _is_name(word: str) -> bool:
    return word.isprintable() and "/" not in word and "\\" not in word


def _codes(partition: Path) -> tuple[list[str], np.ndarray]:
    """File names and codes (int64, (N,)) of a partition file: '000001.jpg 0' a line, or image_id,partition as CSV."""
    names, codes = [], []
    lines = partition.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and words[0] == "image_id"):
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2") or not _is_name(words[0]):
            raise UserError(
                f"dataset=celeba: {partition} line {number} reads {line[:60]!r}; it must be a file name and 0, 1 or 2"
            )
        names.append(words[0])
        codes.append(int(words[1]))
    return names, np.array(codes, np.int64)
