"""Fully connected VAE: pixels have no neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
from torch import nn

from vae_sweep.models.checks import Checks, check_widths
from vae_sweep.models.vae import VAE, Posterior


class FCVAE(VAE):
    """Flatten -> Linear/ReLU per hidden width -> (mean, logvar); the decoder mirrors it and ends in a sigmoid."""

    checks: ClassVar[Checks] = {"hidden_dims": check_widths}

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__(image_shape, latent_dim)
        widths = [prod(image_shape), *hidden_dims]
        self.encoder = nn.Sequential(nn.Flatten(), *_linear_relu(widths))
        self.head = nn.Linear(widths[-1], 2 * latent_dim)  # mean and logvar in one matmul
        self.decoder = nn.Sequential(
            *_linear_relu([latent_dim, *reversed(hidden_dims)]),
            nn.Linear(widths[1], widths[0]),
            nn.Sigmoid(),
            nn.Unflatten(1, image_shape),
        )

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(*self.head(self.encoder(x)).chunk(2, dim=1))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z)


def _linear_relu(widths: Sequence[int]) -> list[nn.Module]:
    return [layer for m, n in pairwise(widths) for layer in (nn.Linear(m, n), nn.ReLU())]
