"""From picture files of any size and kind to one uint8 array.

Shape legend: N pictures, S height and width after resizing.
"""

from __future__ import annotations

import logging
import math
import os
import stat
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from vae_sweep.config import available_cores
from vae_sweep.datasets.base import check_fits
from vae_sweep.errors import UserError

log = logging.getLogger(__name__)

CHUNK = 256  # pictures per task: few enough to share evenly, many enough that a task costs nothing beside them
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM")  # no others: PIL runs programs for some
NAMED = 5  # broken pictures named in the log; the rest are counted
ORIENTATION = 0x0112  # EXIF tag

Broken = list[tuple[Path, str]]  # (file, reason)


@dataclass(frozen=True)
class Fit:
    """A picture to (3, S, S): upright, RGB, the centre square, resized with antialiasing."""

    size: int  # S
    crop: int | None = None  # side of the centre square, pixels of the picture; None: as large as fits

    def __call__(self, path: Path) -> np.ndarray:
        """uint8 (3, S, S). Raises whatever the decoder raises, and ValueError for a picture below the crop."""
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a regular file")  # reading a pipe would wait for ever
        with Image.open(path, formats=_formats()) as picture:
            if self.crop is None:
                _draft(picture, self.size)
            rgb = to_rgb(upright(picture))
        side = self.crop or min(rgb.size)
        if side > min(rgb.size):
            raise ValueError(f"{rgb.width}x{rgb.height} pixels, smaller than the crop of {side}x{side}")
        return _centre(rgb, side, self.size).transpose(2, 0, 1)  # (S, S, 3) -> (3, S, S)


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # not every PIL is built with all of them


def _centre(rgb: Image.Image, side: int, size: int) -> np.ndarray:
    """The centre square of `side` pixels, resized to `size` if it differs: uint8 (size, size, 3)."""
    if side == size:
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        return np.asarray(rgb.crop((left, top, left + side, top + side)))
    x, y = (rgb.width - side) / 2, (rgb.height - side) / 2  # halves of a pixel matter once a JPEG was halved
    left, top = math.floor(x), math.floor(y)
    square = rgb.crop((left, top, math.ceil(x + side), math.ceil(y + side)))
    box = (x - left, y - top, x - left + side, y - top + side)
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC, box))  # antialiased when it shrinks


def _draft(picture: Image.Image, size: int) -> None:
    """Let the JPEG decoder halve a large picture as long as twice `size` remains; other formats ignore it."""
    shrink = min(picture.size) / (2 * size)
    if shrink >= 2:
        picture.draft(None, (int(picture.width / shrink), int(picture.height / shrink)))


def upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation asks."""
    if picture.getexif().get(ORIENTATION, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB: transparency over white, 16-bit and floating-point grey scaled to 8 bits."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        picture.load()
        return picture
    if picture.mode.startswith("I") or picture.mode == "F":
        grey = np.asarray(picture).astype(np.float64)
        if picture.mode != "F":
            grey /= 257  # 0..65535 -> 0..255
        elif grey.max() <= 1:
            grey *= 255
        return Image.fromarray(np.rint(grey).clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return picture.convert("RGB")


def decode_files(
    paths: Sequence[Path],
    decode: Callable[[Path], np.ndarray],
    image_shape: tuple[int, int, int],
    what: str = "pictures",
    strict: bool = False,
    threads: int | None = None,
) -> tuple[np.ndarray, Broken]:
    """Decode `paths` on as many cores as pay, with a progress bar on a terminal and two log lines elsewhere.

    Returns:
        uint8 (N, *image_shape) in the order of `paths`, where a broken picture is all zeros, and the broken
        pictures in the same order.

    Raises:
        UserError: `strict` and a picture is broken.
    """
    images = np.zeros((len(paths), *image_shape), np.uint8)

    def work(start: int) -> list[tuple[int, str]]:
        broken = []
        for i in range(start, min(start + CHUNK, len(paths))):
            try:
                images[i] = decode(paths[i])
            except Exception as error:  # decoders raise many kinds; each means that this picture is no good
                broken.append((i, _reason(error)))
        return broken

    threads, began = threads or _useful_threads(paths), time.perf_counter()
    found: list[tuple[int, str]] = []
    log.info("decoding %s %s (threads: %d)", f"{len(paths):,}", what, threads)
    with warnings.catch_warnings(), tqdm(total=len(paths), desc=what, unit="img", disable=None) as bar:
        warnings.simplefilter("ignore")  # oddities that decode all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(threads) as pool:
            tasks = [pool.submit(work, start) for start in range(0, len(paths), CHUNK)]
            try:
                for task in as_completed(tasks):
                    found += task.result()
                    if strict and found:
                        path, reason = paths[found[0][0]], found[0][1]
                        raise UserError(
                            f"{path} is broken ({reason}); mend or remove it, or leave such pictures out "
                            "with dataset.strict=false"
                        )
                    bar.update(min(CHUNK, len(paths) - bar.n))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    log.info("decoded %s %s in %.1f s", f"{len(paths):,}", what, time.perf_counter() - began)
    return images, [(paths[i], reason) for i, reason in sorted(found)]


def decode_usable(
    paths: Sequence[Path], labels: np.ndarray, fit: Fit, what: str, strict: bool
) -> tuple[np.ndarray, np.ndarray, Broken]:
    """As :func:`decode_files`, without the broken pictures.

    Returns:
        uint8 (M, 3, S, S), the labels (M,) of these and the broken pictures; M = N - broken.

    Raises:
        UserError: `strict` and a picture is broken, no picture is usable, or all of them do not fit into memory.
    """
    check_fits(len(paths), fit.size)
    images, broken = decode_files(paths, fit, (3, fit.size, fit.size), what, strict)
    if broken:
        if len(broken) == len(paths):
            path, reason = broken[0]
            raise UserError(
                f"none of the {len(paths)} {what} is usable; the first, {path}: {reason}; "
                "give pictures that open in a viewer"
            )
        bad = {path for path, _ in broken}
        usable = np.array([path not in bad for path in paths])
        images, labels = images[usable], labels[usable]
    return images, labels, broken


def broken_facts(broken: Broken, total: int) -> dict[str, Any]:
    """What the facts of a source tell of its broken pictures; logs a warning that names the first of them."""
    if broken:
        named = "; ".join(f"{path}: {reason}" for path, reason in broken[:NAMED])
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        log.warning("left out %d of %d pictures as broken: %s%s", len(broken), total, named, more)
    return {"skipped": len(broken), "skipped_files": [f"{path}: {reason}" for path, reason in broken[:100]]}


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture of a known kind ({', '.join(FORMATS)})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, which may be a decompression bomb"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


def _useful_threads(paths: Sequence[Path]) -> int:
    """Threads that pay: one per KB of an average file, at most one per core that this process may use.

    Python's part of the work, about 0.1 ms a picture, runs one thread at a time, and decoding takes about 0.1 ms
    per KB beside it. More threads than that slow each other down: thumbnails of 1 KB take 1.4 times as long with
    two threads as with one.
    """
    cores = available_cores()
    sizes = [os.path.getsize(path) for path in paths[:: len(paths) // 64 + 1] if os.path.exists(path)]
    return max(1, min(cores, round(sum(sizes) / max(1, len(sizes)) / 1024)))
