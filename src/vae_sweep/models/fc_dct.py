"""fc_res on the scaled frequencies of an image: the same functions, with weights that are easier to train."""

from __future__ import annotations

import numpy as np
import scipy  # its fft, when it is first used
import torch
from torch import nn

from vae_sweep.models.fc_res import ResidualFCVAE
from vae_sweep.models.vae import Posterior, bounded

COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))  # of red, green, blue: brightness, and two differences
AMPLITUDES = (1, 1 / 3, 1 / 6)  # of those, in photographs
SLOPE = 4  # of the logit at 1/2, where images begin


class FrequencyFCVAE(ResidualFCVAE):
    """ResidualFCVAE whose first and last layer stand for :class:`Frequencies` instead of pixels."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int, blocks: int) -> None:
        super().__init__(image_shape, latent_dim, width, blocks)
        self.frequencies = Frequencies(image_shape)

    def encode(self, x: torch.Tensor) -> Posterior:
        return bounded(self.encoder(self.frequencies(x - 0.5)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        *hidden, last, sigmoid, unflatten = self.decoder
        for layer in hidden:
            z = layer(z)
        return unflatten(sigmoid(self.frequencies.logits(last, z)))


class Frequencies(nn.Module):
    """The coefficients of an image in an orthonormal basis, each divided by the size that it has in photographs.

    The basis is the discrete cosine transform (DCT-II, Ahmed et al. 1974) of brightness and two colour differences.
    Neighbouring pixels are nearly equal, so fine detail is a small difference of large values. Adam scales the step of
    every weight by itself, and cannot tell the two apart in pixels; scaled coefficients are nearly uncorrelated and of
    one size. Their standard deviation is taken as sqrt(H W) / 4 / (1 + f)^1.5 at f half cycles an image: the spectrum
    of natural images falls with a power of f (Field 1987). The constants were chosen on CIFAR-10's training images.
    """

    rows: torch.Tensor  # (H, H) frequency, place
    columns: torch.Tensor  # (W, W)
    colours: torch.Tensor  # (C, C)
    scale: torch.Tensor  # (C, H, W)

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape
        channels, height, width = image_shape
        colour = (
            np.array(COLOURS) / np.linalg.norm(COLOURS, axis=1, keepdims=True) if channels == 3 else np.eye(channels)
        )
        amplitude = np.array(AMPLITUDES) if channels == 3 else np.ones(channels)
        f = np.hypot(np.arange(height)[:, None], np.arange(width))
        scale = amplitude[:, None, None] * np.sqrt(height * width) / 4 / (1 + f) ** 1.5
        bases = [scipy.fft.dct(np.eye(side), norm="ortho", axis=0) for side in (height, width)]
        for name, value in zip(("rows", "columns", "colours", "scale"), (*bases, colour, scale), strict=True):
            self.register_buffer(name, torch.from_numpy(value).float(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled coefficients of images (B, C, H, W), same shape."""
        return torch.einsum("dc,bchw->bdhw", self.colours, self.rows @ x @ self.columns.T) / self.scale

    def inverse(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return the images of scaled coefficients (B, C, H, W), same shape."""
        x = torch.einsum("dc,bdhw->bchw", self.colours, coefficients * self.scale)
        return self.rows.T @ x @ self.columns

    def logits(self, layer: nn.Module, h: torch.Tensor) -> torch.Tensor:
        """Return flat images (B, C H W), times SLOPE, of the coefficients that ``layer`` gives for ``h`` (B, width).

        In training images are transformed, since there are fewer of them than units; else the weights, so that the
        layer is one matrix, also for the page with sliders. Both give the same, but for rounding.
        """
        assert isinstance(layer, nn.Linear)
        if self.training:
            return SLOPE * self.inverse(layer(h).unflatten(1, self.image_shape)).flatten(1)
        parts = torch.cat([layer.weight.T, layer.bias[None]]).unflatten(1, self.image_shape)
        weight = SLOPE * self.inverse(parts).flatten(1)  # (width + 1, C H W)
        return torch.addmm(weight[-1], h, weight[:-1])
