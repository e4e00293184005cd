"""Images that a trained model makes, and the figure of each kind; pixels that its data set permuted are unshuffled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.models.vae import VAE
from vae_sweep.report import run_figures
from vae_sweep.training.evaluation import interpolate, to_float, to_uint8
from vae_sweep.training.randomness import Stream, generator

Images = NDArray[np.uint8]
Facts = Mapping[str, Any]  # of the data set that the model was trained on


class Drawn(NamedTuple):
    """Images, and the figure that shows them."""

    images: Images
    figure: Figure


@torch.no_grad()
def samples(model: VAE, n: int, seed: int, facts: Facts, where: str) -> Drawn:
    """Return images (n, C, H, W) decoded from prior draws; ``where`` begins the figure's title."""
    images = unshuffle(to_uint8(model.sample(n, generator(seed, Stream.SAMPLES))), facts)
    return Drawn(images, run_figures.samples(images, f"{where}: samples from the prior"))


@torch.no_grad()
def interpolations(model: VAE, rows: int, seed: int, facts: Facts, where: str) -> Drawn:
    """Return images (rows, steps, C, H, W), decoded on straight lines between pairs of prior draws."""
    grid = to_uint8(interpolate(model, rows, generator=generator(seed, Stream.INTERPOLATIONS)))
    images = unshuffle(grid.reshape(-1, *grid.shape[2:]), facts).reshape(grid.shape)
    return Drawn(images, run_figures.interpolations(images, f"{where}: between two prior draws"))


@torch.no_grad()
def reconstructions(model: VAE, originals: Images, facts: Facts, where: str) -> Drawn:
    """Return pairs (n, 2, C, H, W) of test images ``originals`` (n, C, H, W) and their reconstructions."""
    device = next(model.parameters()).device
    decoded = to_uint8(model.reconstruct(to_float(torch.from_numpy(originals).to(device))))
    originals, decoded = unshuffle(originals, facts), unshuffle(decoded, facts)
    figure = run_figures.reconstructions(originals, decoded, f"{where}: test images and their reconstructions")
    return Drawn(np.stack([originals, decoded], 1), figure)


def some_of(images: Images, n: int, seed: int) -> Images:
    """Return ``n`` of the images (N, C, H, W), drawn with ``seed``, in their order."""
    return images[np.sort(np.random.default_rng(seed).permutation(len(images))[:n])]
