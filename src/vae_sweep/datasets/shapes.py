"""Coloured shapes on dark or light backgrounds, drawn from sixteen known factors, without any file.

An image has five shapes, all alike, anywhere. So one rule draws them wherever they lie: what a convolution can share,
and a fully connected layer must learn for every place.

Each shape is a signed distance d to its outline (negative inside), and a pixel's coverage is d clipped over one
pixel's width, which gives smooth edges without oversampling. Distances of the star and the triangle follow
Quilez, "2D distance functions".

Shape legend: N images, S height and width, K factors. Lengths are in half image sides: the image is [-1, 1]^2,
x to the right and y downwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from vae_sweep.datasets.base import Built, Source, Split, check_common, check_fits, hold_out_or_fail

COUNT = 5  # shapes in an image
POSITIONS = tuple(f"{axis}{number}" for number in range(1, COUNT + 1) for axis in "xy")  # x1, y1, x2, ...: centres
FACTORS = ("shape", "hue", "size", "rotation", "background_hue", "background_brightness", *POSITIONS)  # angles in turns
SIZES = (0.3, 0.38)  # of a shape
REACH = 0.75  # of the centres, to either side
DARK, LIGHT = (0.0, 0.1), (0.75, 0.88)  # brightness of backgrounds: one half each
PIXELS = 1 << 19  # drawn at once: they fit into the processor's cache

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _box(x: np.ndarray, y: np.ndarray, half_width: float, half_height: float, corner: float) -> np.ndarray:
    dx, dy = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0) - corner


def ellipse(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = x / 0.95, y / 0.58
    length = np.sqrt(x * x + y * y)
    slope = np.sqrt((x / 0.95) ** 2 + (y / 0.58) ** 2) + 1e-6
    return length * (length - 1) / slope  # first order; exact enough across one pixel


def rectangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _box(x, y, 0.88, 0.5, corner=0.14)


def triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    corner, radius = 0.1, 0.72
    root3 = np.float32(3**0.5)
    x, y = np.abs(x) - radius, y + 0.12 + radius / root3
    fold = x + root3 * y > 0
    x, y = np.where(fold, (x - root3 * y) / 2, x), np.where(fold, (-root3 * x - y) / 2, y)
    x = x - np.clip(x, -2 * radius, 0)
    return -np.sqrt(x * x + y * y) * np.sign(y) - corner


def star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, depth = 1.0, 0.5
    c, s = np.float32(np.cos(np.pi / 5)), np.float32(np.sin(np.pi / 5))
    x = np.abs(x)
    for side in (1, -1):  # fold the ten mirror images into one
        across = 2 * np.maximum(side * c * x - s * y, 0)
        x, y = x - across * side * c, y + across * s
    x, y = np.abs(x), y - radius
    bx, by = depth * s, depth * c - 1
    along = np.clip((x * bx + y * by) / (bx * bx + by * by), 0, radius)
    px, py = x - bx * along, y - by * along
    return np.sqrt(px * px + py * py) * np.sign(y * bx - x * by)


def ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.sqrt(x * x + y * y) - 0.72) - 0.2


def crescent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer = np.sqrt(x * x + y * y) - 0.95
    return np.maximum(outer, 0.75 - np.sqrt((x - 0.45) ** 2 + y * y))


SHAPES: tuple[Distance, ...] = (ellipse, rectangle, triangle, star, ring, crescent)  # unit size; label = position


def draw_factors(n: int, seed: int, stream: int) -> np.ndarray:
    """Return random factors, float64 (n, K), columns as in FACTORS; a smaller n gives the first rows of a larger n.

    Hues and rotation are uniform in turns, sizes in SIZES, positions within REACH, brightness in DARK and LIGHT.
    """
    factors = np.random.default_rng([seed, stream]).random((n, len(FACTORS)))
    columns = dict(zip(FACTORS, factors.T, strict=True))  # views
    columns["shape"][:] = np.floor(columns["shape"] * len(SHAPES))
    columns["size"][:] = np.interp(columns["size"], [0, 1], SIZES)
    columns["background_brightness"][:] = np.interp(columns["background_brightness"], [0, 0.5, 0.5, 1], [*DARK, *LIGHT])
    for name in POSITIONS:
        columns[name][:] = REACH * (2 * columns[name] - 1)
    return factors


def render(factors: np.ndarray, image_size: int) -> np.ndarray:
    """Return the images of `factors` (N, K): uint8 (N, 3, S, S)."""
    images = np.empty((len(factors), 3, image_size, image_size), np.uint8)
    chunk = max(1, PIXELS // image_size**2)
    for shape, distance in enumerate(SHAPES):
        members = np.flatnonzero(factors[:, 0] == shape)
        for start in range(0, len(members), chunk):
            rows = members[start : start + chunk]
            images[rows] = _render_chunk(factors[rows], distance, image_size)
    return images


def _render_chunk(factors: np.ndarray, distance: Distance, image_size: int) -> np.ndarray:
    grid = ((np.arange(image_size) + 0.5) * 2 / image_size - 1).astype(np.float32)  # (S,) pixel centres
    columns = dict(zip(FACTORS, factors.T.astype(np.float32)[:, :, None, None], strict=True))  # (N, 1, 1) each
    size, angle = columns["size"], 2 * np.pi * columns["rotation"]
    cos, sin = np.cos(angle), np.sin(angle)
    bare = np.ones((len(factors), image_size, image_size), np.float32)  # share of a pixel that no shape covers
    for x, y in zip(POSITIONS[::2], POSITIONS[1::2], strict=True):
        dx, dy = (grid - columns[x]) / size, (columns[y] - grid[:, None]) / size  # (N, 1, S), (N, S, 1); upright
        d = distance(cos * dx + sin * dy, cos * dy - sin * dx)  # (N, S, S)
        bare *= 1 - np.clip(0.5 - d * (size * image_size / 2), 0, 1)
    ground = _rgb(columns["background_hue"], 0.3, 1.0) * columns["background_brightness"][:, None]  # (N, 3, 1, 1)
    front = _rgb(columns["hue"], 0.55, 1.0)  # (N, 3, 1, 1)
    return np.rint(255 * (front + bare[:, None] * (ground - front))).astype(np.uint8)


def _rgb(hue: np.ndarray, saturation: float, value: float) -> np.ndarray:
    """HSV to RGB: hue (N, 1, 1) in turns, to (N, 3, 1, 1) in [0, 1]."""
    ramp = np.abs((hue[:, None] * 6 + np.array([0, 4, 2], np.float32)[:, None, None]) % 6 - 3) - 1
    return (value * (1 - saturation + saturation * np.clip(ramp, 0, 1))).astype(np.float32)


@dataclass(kw_only=True)
class Shapes(Source):
    """Five shapes of one of six kinds, of random places, size, rotation and colours; the label is the kind.

    Raises:
        UserError: for a setting out of range.
    """

    fixed_splits = True
    name: str = "shapes"
    n_train: int = 3200  # images, before the validation split
    n_test: int = 1000  # images
    image_size: int = 24  # pixels
    val_fraction: float = 0.1  # share of n_train held out for validation
    split_seed: int = 0  # draws the images and the validation split

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """Return the settings."""
        return {"format": 3, **{key: value for key, value in vars(self).items() if key != "name"}}

    def factors(self, split: str) -> np.ndarray:
        """Return the factors of the images of `split`, in their order: float64 (N, K), columns as in FACTORS."""
        if split == "test":
            return draw_factors(self.n_test, self.split_seed, stream=1)
        kept, held = hold_out_or_fail(self.n_train, "val_fraction", self.val_fraction, self.split_seed)
        return draw_factors(self.n_train, self.split_seed, stream=0)[{"train": kept, "val": held}[split]]

    def known_factors(self, split: str) -> dict[str, np.ndarray]:
        """Return those factors that an image determines, (N,) each: not the positions, since its shapes are alike.

        Rotation only in part: a ring looks the same at every one, an ellipse and a rectangle after half a turn, a star
        after a fifth. So its MIG, SAP and DCI informativeness cannot reach 1.
        """
        columns = dict(zip(FACTORS, self.factors(split).T, strict=True))
        found = {name: values for name, values in columns.items() if name not in POSITIONS}
        return found | {"shape": found["shape"].astype(np.int64)}

    def build(self) -> Built:
        """Return uint8 (N, 3, image_size, image_size)."""
        check_fits(self.n_train + self.n_test, self.image_size)
        splits = {}
        for split in ("train", "val", "test"):
            factors = self.factors(split)
            splits[split] = Split(render(factors, self.image_size), factors[:, 0].astype(np.int64))
        facts = {
            "source": "drawn from known factors",
            "classes": [shape.__name__ for shape in SHAPES],
            "factors": list(FACTORS),
            "skipped": 0,
        }
        return Built(splits, facts)
