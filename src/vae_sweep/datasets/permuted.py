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
ORDER = "pixel_order"  # fact: position i of a shuffled picture shows pixel ORDER[i] of the original


class Permuted(Source):
    """``source``, each picture's H*W pixels in one fixed random order, the channels of a pixel staying together."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = source.name

    def fingerprint(self) -> dict[str, Any]:
        """That of the source, and that it is permuted."""
        return {"permute_pixels": 1, "source": self.source.fingerprint()}

    def build(self) -> Built:
        """The source's arrays, same shapes, shuffled; the order is among the facts."""
        built = self.source.build()
        height, width = next(iter(built.splits.values())).images.shape[2:]
        order = np.random.default_rng(PERMUTATION_SEED).permutation(height * width)
        splits = {key: Split(reorder(split.images, order), split.labels) for key, split in built.splits.items()}
        return Built(splits, {**built.facts, ORDER: order.tolist()})


def reorder(images: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) whose pixel i, counted row by row, is pixel ``order[i]`` of the given ones."""
    return np.ascontiguousarray(images.reshape(*images.shape[:2], -1)[..., order]).reshape(images.shape)


def put_back(images: np.ndarray, facts: Mapping[str, Any]) -> np.ndarray:
    """Images (N, C, H, W) of a data set with these ``facts``, every pixel at its own place; the same if unshuffled."""
    return reorder(images, np.argsort(facts[ORDER])) if ORDER in facts else images
