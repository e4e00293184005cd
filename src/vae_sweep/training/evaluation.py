"""The loss of a model on the images of a split, with fixed noise; images as floats and bytes."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from vae_sweep.models.vae import VAE
from vae_sweep.training.device import memory_format_of, numerics, sum_dtype
from vae_sweep.training.objective import ELBO, Objective, elbo_terms
from vae_sweep.training.randomness import Stream, seeded

BATCH = 500  # images per forward pass; fixed, so that the noise an image meets depends on its position alone
NOISE_SEED = 20131220  # of every evaluation of every run: models are compared on the same posterior noise


class Averages(NamedTuple):
    """Averages over images, nats per image; lower is better."""

    loss: float  # recon + beta * kl
    recon: float  # see Objective
    kl: float  # KL(q(z|x) || N(0, I))


def to_float(images: torch.Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    """Return uint8 images as float32 in [0, 1], same shape."""
    return images.to(torch.float32, memory_format=memory_format).div_(255)


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Return images in [0, 1] (clipped) as a uint8 array on the CPU, same shape."""
    return images.detach().clamp(0, 1).mul(255).round().to("cpu", torch.uint8).numpy()


def for_inference(model: VAE) -> tuple[VAE, torch.memory_format]:
    """Return the model, or a copy that computes faster without gradients, and the memory format of its images."""
    memory_format = memory_format_of(model, next(model.parameters()).device)
    if memory_format == torch.channels_last:
        return copy.deepcopy(model).to(memory_format=memory_format), memory_format
    return model, memory_format


@contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """While inside, matrix products are float32 and the global generators start from fixed numbers, in every run."""
    with numerics("float32"), seeded(NOISE_SEED, Stream.INFERENCE, device=device):
        yield


@torch.no_grad()
def evaluate(
    model: VAE,
    images: torch.Tensor,  # uint8 (N, C, H, W)
    objective: Objective = ELBO,
    *,
    noise_draws: int = 1,  # posterior draws per image
) -> Averages:
    """Return the model's averages over all images, the short last batch weighted by its size, on fixed noise.

    With ``variance="optimal"`` the decoder's variance is the best one of these images.
    """
    optimal = objective.variance == "optimal"
    each = replace(objective, variance=0.5) if optimal else objective  # the best variance follows from their sum
    device = next(model.parameters()).device
    model.eval()
    model, memory_format = for_inference(model)
    sums = torch.zeros(3, dtype=sum_dtype(device), device=device)
    with inference(device):
        for draw in range(noise_draws):
            noise_source = torch.Generator().manual_seed(NOISE_SEED + draw)
            for start in range(0, len(images), BATCH):
                x = to_float(images[start : start + BATCH].to(device), memory_format)
                noise = torch.randn(BATCH, model.latent_dim, generator=noise_source)[: len(x)].to(device)
                reconstruction, posterior = model(x, noise)
                terms = elbo_terms(reconstruction, x, posterior, each, model.decoder_log_variance)
                sums += torch.stack([term.sum(dtype=sums.dtype) for term in terms])
    found = Averages(*(sums / (noise_draws * len(images))).tolist())
    if not optimal:
        return found
    recon = objective.recon(found.recon, math.prod(model.image_shape))
    return Averages(recon + objective.beta * found.kl, recon, found.kl)


@torch.no_grad()
def interpolate(
    model: VAE, rows: int, steps: int = 10, generator: torch.Generator | None = None, temperature: float = 1.0
) -> torch.Tensor:
    """Return images (rows, steps, C, H, W) decoded along straight lines between pairs of prior draws.

    ``temperature``: standard deviation of the draws.
    """
    ends = temperature * torch.randn(2, rows, 1, model.latent_dim, generator=generator)
    t = torch.linspace(0, 1, steps).view(1, steps, 1)
    z = torch.lerp(ends[0], ends[1], t).flatten(0, 1)  # (rows * steps, L)
    return model.decode(z.to(next(model.parameters()).device)).unflatten(0, (rows, steps))
