"""Images from chosen latents of a trained model: between given images, along single latents.

Shape legend: n images, R rows, T steps, C channels, H x W pixels, L latents.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.training.evaluation import BATCH, to_float, to_uint8

Images = NDArray[np.uint8]

SPREAD = 3.0  # standard deviations of the prior that a traversal goes to either side


@torch.no_grad()
def encode(model: VAE, images: Images) -> Posterior:
    """Return the posterior of uint8 images (n, C, H, W), each parameter (n, L)."""
    device = next(model.parameters()).device
    parts = [model.encode(to_float(part.to(device))).float() for part in torch.from_numpy(images).split(BATCH)]
    return Posterior(torch.cat([part.mean for part in parts]), torch.cat([part.logvar for part in parts]))


def by_kl(model: VAE, images: Images) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the latents in order of their KL, most first, and that KL: nats per image, averaged over the images."""
    posterior = encode(model, images)
    kl = 0.5 * (posterior.mean.square() + posterior.logvar.exp() - 1 - posterior.logvar).double().mean(0).cpu().numpy()
    order = np.argsort(-kl, kind="stable")
    return order, kl[order]


@torch.no_grad()
def between(model: VAE, images: Images, steps: int = 10) -> Images:
    """Return (n - 1, T, C, H, W): from each image to the next, on the straight line between their posterior means.

    The ends are the given images themselves; what is between them is decoded.
    """
    means = encode(model, images).mean
    t = torch.linspace(0, 1, steps, device=means.device).view(1, steps, 1)
    z = torch.lerp(means[:-1, None], means[1:, None], t)  # (n - 1, T, L)
    grid = to_uint8(model.decode(z.flatten(0, 1))).reshape(len(images) - 1, steps, *images.shape[1:])
    grid[:, 0], grid[:, -1] = images[:-1], images[1:]
    return grid


@torch.no_grad()
def traversal(
    model: VAE, latents: NDArray[np.int64], start: Images | None = None, steps: int = 9
) -> tuple[Images, NDArray[np.float64]]:
    """Return (R, T, C, H, W), one of R ``latents`` moved in each row, and its T values.

    The others stay at the posterior mean of the image ``start`` (1, C, H, W), or at 0, the mean of the prior.
    """
    device = next(model.parameters()).device
    z = torch.zeros(1, model.latent_dim, device=device) if start is None else encode(model, start).mean
    values = np.linspace(-SPREAD, SPREAD, steps)
    moved = z.repeat(len(latents), steps, 1)  # (R, T, L)
    for row, latent in enumerate(latents):
        moved[row, :, latent] = torch.from_numpy(values).to(moved)
    return to_uint8(model.decode(moved.flatten(0, 1))).reshape(len(latents), steps, *model.image_shape), values
