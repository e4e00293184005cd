"""Linear VAE: its optimum is probabilistic PCA, known in closed form (Lucas et al. 2019)."""

from __future__ import annotations

from math import prod

import torch
from torch import nn

from vae_sweep.models.vae import VAE, Posterior


class LinearVAE(VAE):
    """Affine encoder mean, one free variance per latent, affine decoder without a sigmoid."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        n_values = prod(image_shape)
        self.mean = nn.Linear(n_values, latent_dim)
        self.logvar = nn.Parameter(torch.zeros(latent_dim))
        self.decoder = nn.Linear(latent_dim, n_values)

    def encode(self, x: torch.Tensor) -> Posterior:
        mean = self.mean(x.flatten(1))
        return Posterior(mean, self.logvar.expand_as(mean))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder(z).unflatten(1, self.image_shape)
