"""The figures of one trained model: one function each, which :func:`figure` registers for every run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Trained:
    """A trained model, and what its figures show."""

    model: VAE
    where: str  # begins every title: run, dataset and seed
    seed: int = 0  # draws the latents
    n_samples: int = 64
    n_interpolations: int = 6  # rows of 10 steps
    originals: Images | None = None  # (n, C, H, W) test images to reconstruct
    facts: Mapping[str, Any] = field(default_factory=dict)  # of the dataset; permuted pixels are unshuffled
    history: Sequence[Mapping[str, float]] = ()  # one mapping per epoch
    linear: Mapping[str, float] = field(default_factory=dict)  # validation loss and terms of the closed-form linear VAE
    unit: str = "nats/image"  # of the loss


class Drawn(NamedTuple):
    """A figure, and the images that it shows, where it shows any."""

    figure: Figure
    images: Images | None = None


FIGURES: dict[str, Callable[[Trained], Drawn]] = {}  # of every run: figures/<name>.png


def figure(draw: Callable[[Trained], Drawn]) -> Callable[[Trained], Drawn]:
    """Register ``draw`` for every run, under the function's name."""
    FIGURES[draw.__name__] = draw
    return draw


@figure
def curves(trained: Trained) -> Drawn:
    """Learning curves."""
    return Drawn(run_figures.learning_curves(trained.history, trained.where, trained.linear, trained.unit))


@figure
def reconstructions(trained: Trained) -> Drawn:
    """Pairs (n, 2, C, H, W) of test images and their reconstructions."""
    assert trained.originals is not None
    device = next(trained.model.parameters()).device
    decoded = to_uint8(trained.model.reconstruct(to_float(torch.from_numpy(trained.originals).to(device))))
    pairs = unshuffle(trained.originals, trained.facts), unshuffle(decoded, trained.facts)
    drawn = run_figures.reconstructions(*pairs, f"{trained.where}: test images and their reconstructions")
    return Drawn(drawn, np.stack(pairs, 1))


@figure
def samples(trained: Trained) -> Drawn:
    """Images (n, C, H, W) decoded from prior draws."""
    source = generator(trained.seed, Stream.SAMPLES)
    images = unshuffle(to_uint8(trained.model.sample(trained.n_samples, source)), trained.facts)
    return Drawn(run_figures.samples(images, f"{trained.where}: samples from the prior"), images)


@figure
def interpolations(trained: Trained) -> Drawn:
    """Images (rows, steps, C, H, W), decoded on straight lines between pairs of prior draws."""
    source = generator(trained.seed, Stream.INTERPOLATIONS)
    grid = to_uint8(interpolate(trained.model, trained.n_interpolations, generator=source))
    images = unshuffle(grid.reshape(-1, *grid.shape[2:]), trained.facts).reshape(grid.shape)
    return Drawn(run_figures.interpolations(images, f"{trained.where}: between two prior draws"), images)


def some_of(images: NDArray[Any], n: int, seed: int) -> NDArray[Any]:
    """Return at most ``n`` of the images (N, ...), drawn with ``seed``, in their order."""
    return images[np.sort(np.random.default_rng(seed).permutation(len(images))[:n])]
