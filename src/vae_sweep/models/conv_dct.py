"""conv_res whose affine path stands for the scaled frequencies of an image, as in fc_dct."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vae_sweep.models.conv_res import ResidualConvVAE
from vae_sweep.models.fc_dct import Frequencies
from vae_sweep.models.vae import Posterior, bounded


class FrequencyConvVAE(ResidualConvVAE):
    """ResidualConvVAE with :class:`.Frequencies` before the affine map of the image, and after the one to it.

    Raises:
        UserError: as ConvVAE does.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], latent_dim: int, channels: Sequence[int], width: int, blocks: int
    ) -> None:
        super().__init__(image_shape, latent_dim, channels, width, blocks)
        self.frequencies = Frequencies(image_shape)

    def encode(self, x: torch.Tensor) -> Posterior:
        x = x - 0.5
        h = self.head(self.encoder(x)) + self.encoder_shortcut(self.frequencies(x).flatten(1))  # (B, width)
        return bounded(self.to_posterior(h))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        h = self.from_latent(z)  # (B, width)
        affine = self.frequencies.logits(self.decoder_shortcut, h).unflatten(1, self.image_shape)
        return torch.sigmoid(self.decoder(h) + affine)
