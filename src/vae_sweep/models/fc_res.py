"""Fully connected VAE of residual blocks: encoder and decoder are affine maps to which the blocks add."""

from __future__ import annotations

from math import prod
from typing import ClassVar

import torch
from torch import nn

from vae_sweep.models.checks import Checks, check_layers, check_width
from vae_sweep.models.vae import VAE, Posterior, bounded


class ResidualFCVAE(VAE):
    """Affine map -> residual blocks -> affine map, in both directions, and a sigmoid at the end.

    The encoder maps the image, moved to [-1/2, 1/2], to ``width`` units, those through ``blocks`` blocks
    h + W2 relu(W1 h), and those to a bounded posterior; the decoder mirrors it. W2 starts at 0, so at its first step
    the model is a linear VAE behind a sigmoid, and every direction of the data is reached by a product of few matrices.
    """

    checks: ClassVar[Checks] = {"width": check_width, "blocks": check_layers}

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int, blocks: int) -> None:
        super().__init__(image_shape, latent_dim)
        n_values = prod(image_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(n_values, width),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Linear(width, 2 * latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, width),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Linear(width, n_values),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )

    def encode(self, x: torch.Tensor) -> Posterior:
        return bounded(self.encoder(x - 0.5))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)


class ResidualBlock(nn.Module):
    """h + W2 relu(W1 h + b1) + b2 on (B, width); the identity until W2 and b2 leave 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return h + self.second(torch.relu(self.first(h)))
