"""Any source with the pixels of every picture shuffled by one fixed permutation: the control for locality.

A fully connected or linear VAE is blind to it (its first and last weights permute along); a convolution is not, so
whatever it gains from knowing which pixels are neighbours must go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_sweep.datasets.base import Built, Source, Split

PERMUTATION_SEED = 20170301  # one permutation for a size, in every run and on every machine
PERMUTED = "pixels_permuted"  # fact about such a data set


class Permuted(Source):
    """``source``, each picture's H*W pixels in one fixed random order, the channels of a pixel staying together.

    Position i of a shuffled picture, counted row by row, shows pixel ``pixel_order(H, W)[i]`` of the original.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name, self.max_images = source.name, source.max_images

    def fingerprint(self) -> dict[str, Any]:
        """That of the source, and that it is permuted."""
        return {"permute_pixels": 2, "source": self.source.fingerprint()}

    def build(self) -> Built:
        """The source's arrays, same shapes, shuffled."""
        built = self.source.build()
        order = pixel_order(*next(iter(built.splits.values())).images.shape[2:])
        splits = {key: Split(reorder(split.images, order), split.labels) for key, split in built.splits.items()}
        return Built(splits, {**built.facts, PERMUTED: True})


def pixel_order(height: int, width: int) -> np.ndarray:
    """Return the one permutation of a picture's pixels, (H * W,)."""
    return np.random.default_rng(PERMUTATION_SEED).permutation(height * width)


def reorder(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) whose pixel i, counted row by row, is pixel ``order[i]`` of the given ones."""
    return np.ascontiguousarray(images.reshape(*images.shape[:2], -1)[..., order]).reshape(images.shape)


def pixels_put_back(images: np.ndarray) -> np.ndarray:
    """Shuffled images (N, C, H, W) with every pixel at its own place."""
    return reorder(images, np.argsort(pixel_order(*images.shape[2:])))


def unshuffle(images: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """Images (N, C, H, W) of a data set with these ``facts``, every pixel at its own place; the same if unshuffled."""
    return pixels_put_back(images) if facts.get(PERMUTED) else images
