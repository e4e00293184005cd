"""Convolutional VAE whose convolutions add to an affine path, with residual blocks around the latents."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

import torch
from torch import nn

from vae_sweep.models.checks import Checks
from vae_sweep.models.conv import ConvVAE
from vae_sweep.models.fc_res import ResidualBlock, ResidualFCVAE
from vae_sweep.models.vae import Posterior, bounded


class ResidualConvVAE(ConvVAE):
    """The convolutions of ConvVAE beside the affine maps of ResidualFCVAE, joined at ``width`` units.

    Encoder: convolutions -> linear, plus an affine map of the image, moved to [-1/2, 1/2]; then ``blocks`` residual
    blocks and a linear map to a bounded posterior. Decoder: a linear map and as many blocks; then transposed
    convolutions plus an affine map to the image, and a sigmoid. The last convolution starts at 0, so that the logits
    begin as affine ones.

    Raises:
        UserError: as ConvVAE does.
    """

    checks: ClassVar[Checks] = {**ConvVAE.checks, **ResidualFCVAE.checks}

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int], width: int, blocks: int
    ) -> None:
        super().__init__(image_shape, latent_dim, channels)
        n_features, n_values = self.head.in_features, prod(image_shape)
        self.head = nn.Linear(n_features, width)
        self.encoder_shortcut = nn.Linear(n_values, width)
        self.to_posterior = nn.Sequential(
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.Linear(width, 2 * latent_dim),
        )
        self.from_latent = nn.Sequential(nn.Linear(latent_dim, width), *(ResidualBlock(width) for _ in range(blocks)))
        self.decoder_shortcut = nn.Linear(width, n_values)
        self.decoder = nn.Sequential(nn.Linear(width, n_features), *self.decoder[1:-1])  # without its sigmoid
        nn.init.zeros_(self.decoder[-1].weight)  # type: ignore[arg-type]

    def encode(self, x: torch.Tensor) -> Posterior:
        x = x - 0.5
        h = self.head(self.encoder(x)) + self.encoder_shortcut(x.flatten(1))  # (B, width)
        return bounded(self.to_posterior(h))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        h = self.from_latent(z)  # (B, width)
        return torch.sigmoid(self.decoder(h) + self.decoder_shortcut(h).unflatten(1, self.image_shape))
