"""Fully connected VAE with as many weights as the convolutional one: a control for the parameter count."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vae_sweep.models.conv import ConvVAE
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.vae import VAE


class MatchedFCVAE(FCVAE):
    """FCVAE of widths (w, w/2), w being the largest that does not exceed the weights of ConvVAE(channels).

    The ratio of the widths is that of the plain FC-VAE (512, 256). At 3x32x32 and 128 latents the counts differ by
    less than 0.6 %.

    Raises:
        UserError: as ConvVAE does.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int]) -> None:
        super().__init__(image_shape, latent_dim, matched_widths(image_shape, latent_dim, channels))


def matched_widths(image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int]) -> list[int]:
    """Return the hidden widths (w, w/2) of :class:`MatchedFCVAE`; at least (2, 1)."""

    def widths(first: int) -> list[int]:
        return [first, first // 2]

    with torch.device("meta"):
        budget = _count(ConvVAE(image_shape, latent_dim, channels))
        low, high = 2, 4
        while _count(FCVAE(image_shape, latent_dim, widths(high))) <= budget:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = _count(FCVAE(image_shape, latent_dim, widths(middle))) <= budget
            low, high = (middle, high) if fits else (low, middle)
    return widths(low)


def _count(model: VAE) -> int:
    return sum(p.numel() for p in model.parameters())
