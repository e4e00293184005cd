"""Decoding of image files of any size and format into one uint8 array.

Shape legend: N images, S height and width after resizing.
"""

from __future__ import annotations

import io
import logging
import math
import os
import re
import stat
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from vae_sweep.base.errors import UserError, escaped
from vae_sweep.base.system import available_cores
from vae_sweep.base.working import working
from vae_sweep.datasets.base import LEFT_OUT, check_fits

log = logging.getLogger(__name__)

CHUNK = 256  # images per task: few enough for even shares, many enough that the cost of a task is negligible
FORMATS = (  # that Pillow decodes by itself; for EPS it starts other programs, for WMF it uses the system
    *("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "QOI", "TGA", "PCX", "SGI"),
    *("SUN", "ICO", "CUR", "ICNS", "PSD", "DDS", "XBM", "XPM", "MSP"),
)
NAMED = 5  # broken images named in the log; the rest are counted
TURNS = {  # EXIF 2.3, tag 0x0112
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SAMPLE_FORMAT = 339  # TIFF 6.0: 1 is unsigned
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0
LARGEST = 200 * 2**20  # bytes of a file that is read as a whole
PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"  # first bytes of the files

Broken = list[tuple[Path, str]]  # (file, reason)


class UnknownScale(ValueError):
    """Floating-point or 32-bit values without a given black and white."""


@dataclass(frozen=True)
class Fit:
    """Decodes an image file to (3, S, S): upright, RGB, the centre square, resized with antialiasing."""

    size: int  # S
    crop: int | None = None  # side of the centre square, pixels of the file; None: as large as fits
    size_of_all: tuple[int, int] | None = None  # (W, H) that every image must have; None: any
    value_range: tuple[float, float] | None = None  # black and white of values of more than 8 bits
    clipped: list[int] = field(default_factory=list, compare=False)  # an entry for each image with values beyond it

    def __call__(self, path: Path) -> np.ndarray:
        """Return uint8 (3, S, S).

        Raises:
            ValueError: for an image of another size.
            UnknownScale: for floating-point or 32-bit values without a `value_range`.
            Exception: whatever the decoder raises.
        """
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("not a regular file")  # reading a pipe would wait forever
        try:
            return self._decode(path)
        except UnknownScale:
            raise
        except Exception as error:  # of any kind; perhaps the metadata alone are broken
            try:
                return self._decode(_without_metadata(path))
            except Exception:
                raise error from None

    def _decode(self, file: Path | io.BytesIO) -> np.ndarray:
        with Image.open(file, formats=_formats()) as image:
            if self.size_of_all not in (None, image.size):
                width, height = self.size_of_all or (0, 0)
                raise ValueError(f"{image.width}x{image.height} pixels, the other images have {width}x{height}")
            if self.crop is None:
                _draft(image, self.size)
            rgb = to_rgb(image, self._scaled)
            turn = _turn(image)  # after its pixels: a TIFF is turned while it is read, and then has no orientation
        rgb = rgb if turn is None else rgb.transpose(turn)
        side = self.crop or min(rgb.size)
        if side > min(rgb.size):
            raise ValueError(f"{rgb.width}x{rgb.height} pixels, smaller than the crop of {side}x{side}")
        return _centre(rgb, side, self.size).transpose(2, 0, 1)  # (S, S, 3) -> (3, S, S)

    def _scaled(self, image: Image.Image) -> np.ndarray:
        """Values of mode I;16, I or F, scaled from `value_range` to 0..255, float64 (H, W)."""
        sixteen = image.mode.startswith("I;") or (image.mode == "I" and image.format in ("PNG", "PPM"))
        kind = "floating-point" if image.mode == "F" else "16-bit" if sixteen else "32-bit or signed"
        if self.value_range is None and sixteen:
            return _of_16_bits(image)
        if self.value_range is None:
            raise UnknownScale(f"{kind} values of unknown scale")
        largest = _largest(image)
        values = np.asarray(image)
        if image.format == "PPM" and image.mode == "I":
            values = np.rint(values * (largest / 65535))  # Pillow scaled them to 0..65535
        elif image.mode == "I" and getattr(image, "tag_v2", {}).get(SAMPLE_FORMAT, 1) in (1, (1,)):
            values = values.view(np.uint32)
        if not np.isfinite(values).all():
            raise ValueError(f"{kind} values that are not finite")
        low, high = self.value_range
        if values.min() < low or values.max() > high:
            self.clipped.append(1)
        return (values.astype(np.float64) - low) * (255 / (high - low))


def _of_16_bits(image: Image.Image) -> np.ndarray:
    """Whole numbers of all their bits, 16 or as a TIFF says, as 0..255, float64 (H, W)."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))
    values = np.asarray(image).astype(np.float64) * (255 / (2 ** (bits[0] if isinstance(bits, tuple) else bits) - 1))
    return 255 - values if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO else values


def _largest(image: Image.Image) -> int:
    """The value of white that a PGM file names; 65535 where it is another file, or already read."""
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else None
    return int(args[1]) if image.format == "PPM" and isinstance(args, tuple) and len(args) == 2 else 65535


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # not every PIL is built with all of them


@cache
def endings() -> tuple[str, ...]:
    """Return the file extensions of FORMATS in Pillow's registry, such as ``.jpg``, sorted."""
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in FORMATS))


def size_of(path: Path) -> tuple[int, int] | None:
    """Return (W, H) in pixels, by the header of the file; None where it is no image."""
    try:
        with Image.open(path, formats=_formats()) as image:
            return image.size
    except Exception:  # of any kind; decoding the file gives the reason
        return None


def _centre(rgb: Image.Image, side: int, size: int) -> np.ndarray:
    """The centre square of `side` pixels, resized to `size` if it differs: uint8 (size, size, 3)."""
    if side == size:
        left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
        return np.asarray(rgb.crop((left, top, left + side, top + side)))
    x, y = (rgb.width - side) / 2, (rgb.height - side) / 2  # half a pixel matters in a JPEG that was halved
    left, top = math.floor(x), math.floor(y)
    square = rgb.crop((left, top, math.ceil(x + side), math.ceil(y + side)))
    box = (x - left, y - top, x - left + side, y - top + side)
    return np.asarray(square.resize((size, size), Image.Resampling.BICUBIC, box))  # antialiased when it shrinks


def _draft(image: Image.Image, size: int) -> None:
    """Let the JPEG decoder halve a large image, to no less than twice `size`; other formats ignore it."""
    shrink = min(image.size) / (2 * size)
    if shrink >= 2:
        image.draft(None, (int(image.width / shrink), int(image.height / shrink)))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transpose that sets the image upright by its EXIF orientation; None where it is, or EXIF cannot be read."""
    try:
        return TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # of any kind; the pixels may be whole
        return None


def _without_metadata(path: Path) -> io.BytesIO:
    """The file without its metadata; the orientation stays where it is whole."""
    if path.stat().st_size > LARGEST:
        raise ValueError("too large to be read as a whole")
    data = path.read_bytes()
    kept: list[bytes] = []
    if data.startswith(PNG):
        start = len(PNG)
        while start + 12 <= len(data):  # length, kind, content, checksum
            end = start + 12 + int.from_bytes(data[start : start + 4])
            kind, checksum = data[start + 4 : start + 8], int.from_bytes(data[end - 4 : end])
            whole = zlib.crc32(data[start + 4 : end - 4]) == checksum
            if kind[:1].isupper() or kind == b"tRNS" or (kind == b"eXIf" and whole):  # upper case: the pixels need it
                kept.append(data[start:end])
            start = end
        return io.BytesIO(PNG + b"".join(kept))
    if data.startswith(JPEG):
        start = len(JPEG)
        while data[start : start + 1] == b"\xff" and data[start + 1] != 0xDA:  # up to the scan
            marker, end = data[start + 1], start + 2 + int.from_bytes(data[start + 2 : start + 4])
            if not (0xE2 <= marker <= 0xEF and marker != 0xEE) and marker != 0xFE:  # APP14 has the colour space
                kept.append(data[start:end])
            start = end
        return io.BytesIO(JPEG + b"".join(kept) + data[start:])
    head, pixels, rest = data.partition(b"mdat")  # AVIF: items of unknown types are skipped
    return io.BytesIO(head.replace(b"Exif", b"skip") + pixels + rest)


def to_rgb(image: Image.Image, scaled: Callable[[Image.Image], np.ndarray]) -> Image.Image:
    """Return the image in mode RGB: transparency over white.

    `scaled` maps values of more than 8 bits to 0..255, (H, W).
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return _grey(scaled(image))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        white.alpha_composite(rgba)
        return white.convert("RGB")
    return image.convert("RGB")


def _grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8)).convert("RGB")


def decode_files(
    paths: Sequence[Path],
    decode: Callable[[Path], np.ndarray],
    image_shape: tuple[int, int, int],
    what: str = "images",
    strict: bool = False,
    threads: int | None = None,
) -> tuple[np.ndarray, Broken]:
    """Decode `paths` in parallel, with a progress bar on a terminal and two log lines elsewhere.

    Returns:
        uint8 (N, *image_shape) in the order of `paths`, all zeros for a broken image, and the broken images in the
        same order.

    Raises:
        UserError: if `strict`, for a broken image.
    """
    images = np.zeros((len(paths), *image_shape), np.uint8)

    def work(start: int) -> list[tuple[int, str]]:
        broken = []
        for i in range(start, min(start + CHUNK, len(paths))):
            try:
                images[i] = decode(paths[i])
            except UserError:
                raise
            except Exception as error:  # of any kind: the image is broken
                broken.append((i, _reason(error)))
        return broken

    threads, started = threads or _useful_threads(paths), time.perf_counter()
    found: list[tuple[int, str]] = []
    log.info("decoding %s %s (threads: %d)", f"{len(paths):,}", what, threads)
    with warnings.catch_warnings(), working(f"decoding {what}", len(paths)) as advance:
        warnings.simplefilter("ignore")  # the image is decoded all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with ThreadPoolExecutor(threads) as pool:
            tasks = [pool.submit(work, start) for start in range(0, len(paths), CHUNK)]
            try:
                for n, task in enumerate(as_completed(tasks)):
                    found += task.result()
                    if strict and found:
                        path, reason = paths[found[0][0]], found[0][1]
                        raise UserError(
                            f"{escaped(path)} is broken ({reason}); repair or remove it, or leave such images out "
                            "with dataset.strict=false"
                        )
                    advance(min(CHUNK, len(paths) - CHUNK * n))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    log.info("decoded %s %s in %.1f s", f"{len(paths):,}", what, time.perf_counter() - started)
    return images, [(paths[i], reason) for i, reason in sorted(found)]


def decode_usable(
    paths: Sequence[Path], labels: np.ndarray, decode: Callable[[Path], np.ndarray], size: int, what: str, strict: bool
) -> tuple[np.ndarray, np.ndarray, Broken]:
    """Like :func:`decode_files`, without the broken images; `decode` gives (3, S, S) with S = `size`.

    Returns:
        uint8 (M, 3, S, S), the labels (M,) of these and the broken images; M = N - broken.

    Raises:
        UserError: if `strict` for a broken image; where no image is usable, or they do not fit into memory.
    """
    check_fits(len(paths), size)
    images, broken = decode_files(paths, decode, (3, size, size), what, strict)
    if broken:
        if len(broken) == len(paths):
            path, reason = broken[0]
            raise UserError(
                f"none of the {len(paths)} {what} is usable; the first, {escaped(path)}: {reason}; "
                "give files that open in an image viewer"
            )
        bad = {path for path, _ in broken}
        usable = np.array([path not in bad for path in paths])
        images, labels = images[usable], labels[usable]
    return images, labels, broken


def broken_facts(broken: Broken, total: int) -> dict[str, Any]:
    """Return the facts about broken images; logs a warning that names the first of them."""
    named = [escaped(f"{path}: {reason}") for path, reason in broken[:100]]
    if broken:
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        log.warning("left out %d of %d images as broken: %s%s", len(broken), total, "; ".join(named[:NAMED]), more)
    kinds = Counter(f"broken: {re.sub('[0-9]+', 'N', reason.partition(' (')[0])}" for _, reason in broken)
    return {"skipped": len(broken), "skipped_files": named, LEFT_OUT: dict(kinds.most_common())}


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"not an image of a known kind ({', '.join(_formats())})"
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"more than {Image.MAX_IMAGE_PIXELS or 0:,} pixels, which may be a decompression bomb"
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text if text and not isinstance(error, KeyError) else f"{type(error).__name__} {text}".strip()


def _useful_threads(paths: Sequence[Path]) -> int:
    """The fastest number of threads: one per KB of an average file, at most one per core.

    Python code, about 0.1 ms an image, runs in one thread at a time; decoding takes about 0.1 ms per KB. Two threads
    take 1.4 times as long as one for thumbnails of 1 KB.
    """
    cores = available_cores()
    sizes = [os.path.getsize(path) for path in paths[:: len(paths) // 64 + 1] if os.path.exists(path)]
    return max(1, min(cores, round(sum(sizes) / max(1, len(sizes)) / 1024)))
