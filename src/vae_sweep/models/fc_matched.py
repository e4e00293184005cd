"""Fully connected VAE with as many weights as the convolutional one: a control for the parameter count."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch

from vae_sweep.base.errors import UserError
from vae_sweep.models.checks import MAX_WIDTH, Checks
from vae_sweep.models.conv import ConvVAE
from vae_sweep.models.fc import FCVAE


class MatchedFCVAE(FCVAE):
    """FCVAE of widths (w, w/2), w being the largest that does not exceed the weights of ConvVAE(channels).

    The ratio of the widths is that of the plain FC-VAE (512, 256). At 3x32x32 and 128 latents the counts differ by
    less than 0.6 %.

    Raises:
        UserError: as ConvVAE does, and for ``channels`` with more weights than an FCVAE may have.
    """

    checks: ClassVar[Checks] = ConvVAE.checks

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int]) -> None:
        super().__init__(image_shape, latent_dim, matched_widths(image_shape, latent_dim, channels))


def matched_widths(image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int]) -> list[int]:
    """Return the hidden widths (w, w/2) of :class:`MatchedFCVAE`; at least (2, 1)."""
    with torch.device("meta"):
        budget = sum(p.numel() for p in ConvVAE(image_shape, latent_dim, channels).parameters())
    low, high = 2, MAX_WIDTH + 1
    if fc_weights(image_shape, latent_dim, high) <= budget:
        raise UserError(
            f"model.channels={list(channels)}: as many weights ({budget:,}) need a fully connected layer wider than "
            f"{MAX_WIDTH:,}; give fewer channels"
        )
    while high - low > 1:
        middle = (low + high) // 2
        fits = fc_weights(image_shape, latent_dim, middle) <= budget
        low, high = (middle, high) if fits else (low, middle)
    return [low, low // 2]


def fc_weights(image_shape: tuple[int, int, int], latent_dim: int, width: int) -> int:
    """Return the number of weights and biases of an FCVAE of widths (``width``, ``width`` // 2)."""
    sizes = [prod(image_shape), width, width // 2]
    encoder = zip(sizes, [*sizes[1:], 2 * latent_dim], strict=True)
    decoder = zip([latent_dim, *sizes[:0:-1]], sizes[::-1], strict=True)
    return sum((n_in + 1) * n_out for n_in, n_out in [*encoder, *decoder])
