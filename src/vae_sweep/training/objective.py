"""The evidence lower bound and its terms, in nats per image.

The squared error summed over an image's D values is, up to a constant, the negative log-likelihood of a Gaussian
decoder with variance 1/2; with the KL term it is the negative ELBO (Kingma & Welling 2014, eq. 10).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from vae_sweep.models.vae import Posterior


class Terms(NamedTuple):
    """Per-image values, each of shape (B,), nats per image."""

    loss: torch.Tensor  # recon + beta * kl, minimised
    recon: torch.Tensor  # squared error
    kl: torch.Tensor  # KL(q(z|x) || N(0, I))


def elbo_terms(
    reconstruction: torch.Tensor,
    x: torch.Tensor,
    posterior: Posterior,
    beta: float = 1.0,
    reduction: str = "sum",
) -> Terms:
    """Return the loss and its two terms for each image; all tensors (B, C, H, W), values in [0, 1].

    ``reduction="sum"`` is the ELBO's own scale. ``"mean"`` divides the squared error by C*H*W, which makes the
    decoder's variance so large (D/2) that image data cannot pay for a single latent: see
    :func:`vae_sweep.metrics.linear.implied_variance`.
    """
    squared_error = (reconstruction - x).square().flatten(1)  # (B, D)
    recon = squared_error.sum(1) if reduction == "sum" else squared_error.mean(1)
    kl = posterior.kl()
    return Terms(recon + beta * kl, recon, kl)


def gaussian_constant(n_values: int, variance: float = 0.5) -> float:
    """Return (D/2) ln(2 pi variance), what turns the scaled squared error into -ln p(x|z), in nats per image.

    For the summed squared error (variance 1/2) on 3x32x32 images: 1758.3 nats.
    """
    return 0.5 * n_values * math.log(2 * math.pi * variance)
