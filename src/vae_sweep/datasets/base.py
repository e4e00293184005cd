"""Data sources: uint8 arrays in three splits, and facts about them.

Shape legend: N images, C channels, H height, W width.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.base.errors import UserError
from vae_sweep.base.system import check_memory

SPLITS = ("train", "val", "test")
MAX_SIZE = 4096  # pixels
MAX_IMAGES = 10_000_000  # of a generated dataset
LEFT_OUT = "left_out"  # fact: reason -> number of unused files
MAX_FACT = "max_images"  # fact: the limit of each split, where there is one
NOTE = "note"  # fact: a sentence about the images
ORIGINS = "splits"  # fact: split -> where its images come from


@dataclass(frozen=True)
class Split:
    """One split of a dataset."""

    images: np.ndarray  # uint8 (N, C, H, W)
    labels: np.ndarray  # int64 (N,); -1 where there are none

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Built:
    """What :meth:`Source.build` returns."""

    splits: dict[str, Split]  # one entry per name in SPLITS
    facts: dict[str, Any] = field(default_factory=dict)  # JSON values: classes, skipped images, origin


class Source(ABC):
    """A data source: it builds arrays and facts. :func:`vae_sweep.datasets.load` caches and opens them."""

    name: str  # also of the folder of the prepared arrays
    max_images: int | None = None  # of each split, at most; applied to what :meth:`build` returns
    fixed_splits: bool = False  # whether the images and the settings alone decide splits and labels

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Return all that the arrays depend on, as JSON values, quickly: files, transform, splits, a format version.

        Raises:
            UserError: where the source is missing.
        """

    @abstractmethod
    def build(self) -> Built | Mapping[str, Any]:
        """Return the arrays of the three splits and the facts about them; or the arrays alone.

        Alone: by split, uint8 images (N, C, H, W) or (N, H, W, C), or a pair of them and their labels (N,).

        Raises:
            UserError: where the source is missing, unreadable or too small for its splits.
        """


@dataclass(frozen=True)
class ImageDataset:
    """A prepared dataset; its images are memory-mapped, so processes share one copy."""

    name: str
    splits: Mapping[str, Split]
    image_shape: tuple[int, int, int]  # (C, H, W)
    digest: str  # sha256 (hex) over the bytes of the images of train, val and test, in this order
    facts: dict[str, Any]
    cache_dir: Path  # folder of the prepared arrays
    arrangement: str = ""  # hash of the splits' sizes and labels; "" where images and settings decide them, or unknown
    factors: Callable[[str], dict[str, np.ndarray]] | None = None
    # ^ split -> name -> the known factor of each of its images, (N,): whole numbers are kinds; None: none are known

    @property
    def train(self) -> Split:
        return self.splits["train"]

    @property
    def val(self) -> Split:
        return self.splits["val"]

    @property
    def test(self) -> Split:
        return self.splits["test"]


def capped(splits: Mapping[str, Split], most: int | None, seed: int = 0) -> dict[str, Split]:
    """Return at most `most` images of each split, in their order, the same ones each time; None: all."""
    chosen = {key: draw(len(split), len(split) if most is None else most, seed) for key, split in splits.items()}
    return {
        key: split if len(chosen[key]) == len(split) else Split(split.images[chosen[key]], split.labels[chosen[key]])
        for key, split in splits.items()
    }


def hold_out(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a random partition (kept, held) of range(n), both sorted, with exactly round(fraction * n) held."""
    order = np.random.default_rng(seed).permutation(n)
    held = round(fraction * n)
    return np.sort(order[held:]), np.sort(order[:held])


def draw(n: int, k: int, seed: int) -> np.ndarray:
    """Return `k` of range(n), sorted, drawn with `seed` from another stream than that of :func:`hold_out`."""
    if k >= n:
        return np.arange(n)
    return np.sort(np.random.default_rng([seed, 1]).permutation(n)[:k])


def draw_fraction(n: int, fraction: float, seed: int) -> np.ndarray:
    """Return exactly round(fraction * n) of range(n), sorted, drawn with `seed`.

    Raises:
        UserError: where nothing would be left.
    """
    k = round(fraction * n)
    if k == 0:
        raise UserError(f"dataset.fraction={fraction} of {n} images leaves no training image; use a larger fraction")
    return draw(n, k, seed)


def hold_out_or_fail(n: int, key: str, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return :func:`hold_out` for the setting dataset.`key` (val_fraction or test_fraction).

    Raises:
        UserError: where one part would be empty.
    """
    kept, held = hold_out(n, fraction, seed)
    what = {"val_fraction": "validation", "test_fraction": "test"}[key]
    if len(held) == 0 or len(kept) == 0:
        empty = what if len(held) == 0 else "training"
        raise UserError(
            f"dataset.{key}={fraction} of {n} images leaves no {empty} image; use another fraction or more images"
        )
    return kept, held


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Check one setting.

    Raises:
        UserError: unless `ok`; names the key, the value and what is allowed.
    """
    if not ok:
        raise UserError(f"dataset.{key}={value} is not allowed: it must be {allowed}")


def check_fits(n: int, image_size: int) -> None:
    """Check that `n` images of (3, image_size, image_size) fit into memory.

    Raises:
        UserError: if not.
    """
    what = f"dataset.image_size={image_size}: {n:,} images of {image_size}x{image_size} pixels"
    check_memory(3 * n * image_size**2, what, "give a smaller dataset.image_size, or fewer images")


def check_common(settings: object) -> None:
    """Check the ranges of those attributes of `settings` that several sources share.

    Raises:
        UserError: for a value out of range.
    """
    values = vars(settings)
    if "fraction" in values:
        check(0 < values["fraction"] <= 1, "fraction", values["fraction"], "above 0 and at most 1")
    for key in ("val_fraction", "test_fraction"):
        if key in values:
            check(0 < values[key] < 1, key, values[key], "above 0 and below 1")
    for key, most in {
        "image_size": MAX_SIZE,
        "crop_size": MAX_SIZE,
        "n_train": MAX_IMAGES,
        "n_test": MAX_IMAGES,
    }.items():
        if key in values:
            check(1 <= values[key] <= most, key, values[key], f"a whole number of 1 or more, and at most {most:,}")
    if "splits" in values:
        check(values["splits"] in ("auto", "given", "draw"), "splits", values["splits"], "auto, given or draw")
    if (given := values.get("value_range")) is not None:
        ok = len(given) == 2 and all(math.isfinite(value) for value in given) and given[0] < given[1]
        check(ok, "value_range", given, "[black, white], two numbers, such as [0,1] or [0,255], or null")
    seed = values.get("split_seed", 0)
    check(0 <= seed < 2**63, "split_seed", seed, "a whole number from 0 to 2^63 - 1")
    for key in ("root", "path"):
        if key in values:
            check(bool(str(values[key]).strip()), key, repr(values[key]), "the path of a folder")
