"""Any source with the pixels of every image shuffled by one fixed permutation: the control for locality.

A fully connected or linear VAE does not change (its first and last weights permute along). A convolution loses what it
gains from neighbouring pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_sweep.datasets.arrays import as_built
from vae_sweep.datasets.base import Built, Source, Split

PERMUTATION_SEED = 20170301  # one permutation per image size, in every run and on every machine
PERMUTED = "pixels_permuted"  # fact about such a dataset


class Permuted(Source):
    """``source`` with the H*W pixels of each image in one fixed random order; the channels of a pixel stay together.

    Position i of a shuffled image, counted row by row, shows pixel ``pixel_order(H, W)[i]`` of the original.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.max_images, self.fixed_splits = source.name, source.max_images, source.fixed_splits
        if known := getattr(source, "known_factors", None):
            self.known_factors = known

    def fingerprint(self) -> dict[str, Any]:
        """Return that of the source, and that it is permuted."""
        return {"permute_pixels": 2, "source": self.source.fingerprint()}

    def build(self) -> Built:
        """Return the source's arrays, same shapes, shuffled."""
        built = as_built(self.name, self.source.build())
        order = pixel_order(*next(iter(built.splits.values())).images.shape[2:])
        splits = {key: Split(reorder(split.images, order), split.labels) for key, split in built.splits.items()}
        return Built(splits, {**built.facts, PERMUTED: True})


def pixel_order(height: int, width: int) -> np.ndarray:
    """Return the one permutation of an image's pixels, (H * W,)."""
    return np.random.default_rng(PERMUTATION_SEED).permutation(height * width)


def reorder(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) whose pixel i, counted row by row, is pixel ``order[i]`` of the given ones."""
    return np.ascontiguousarray(images.reshape(*images.shape[:2], -1)[..., order]).reshape(images.shape)


def unshuffle(images: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """Return images (N, C, H, W) of a dataset with these ``facts``, unshuffled where its pixels are permuted."""
    if not facts.get(PERMUTED):
        return images
    return reorder(images, np.argsort(pixel_order(*images.shape[2:])))
