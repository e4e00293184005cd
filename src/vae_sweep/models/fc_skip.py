"""Fully connected VAE with affine shortcuts: it contains the linear VAE, up to the sigmoid, from its first step on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import nn

from vae_sweep.models.fc import FCVAE
from vae_sweep.models.vae import Posterior


class SkipFCVAE(FCVAE):
    """FCVAE whose (mean, logvar) and whose logits each have an affine map of the input added to them.

    What it gains over FCVAE, at the same inductive bias, comes from optimisation, not from expressiveness.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, hidden_dims: Sequence[int]) -> None:
        super().__init__(image_shape, latent_dim, hidden_dims)
        self.encoder_shortcut = nn.Linear(prod(image_shape), 2 * latent_dim)
        self.decoder_shortcut = nn.Linear(latent_dim, prod(image_shape))

    def encode(self, x: torch.Tensor) -> Posterior:
        parameters = self.head(self.encoder(x)) + self.encoder_shortcut(x.flatten(1))  # (B, 2L)
        return Posterior(*parameters.chunk(2, dim=1))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        logits = self.decoder[:-2](z) + self.decoder_shortcut(z)  # (B, D)
        return torch.sigmoid(logits).unflatten(1, self.image_shape)
