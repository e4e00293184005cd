"""Decoders that tests export: every operation that the slider page can run, and some that it cannot."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from vae_sweep.models.vae import VAE, Posterior

SHAPE = (3, 16, 16)
LATENTS = 9


class _Encoded(VAE):
    """A linear encoder; what differs is the decoder."""

    def __init__(self, image_shape: tuple[int, int, int] = SHAPE, latent_dim: int = LATENTS) -> None:
        super().__init__(image_shape, latent_dim)
        n = image_shape[0] * image_shape[1] * image_shape[2]
        self.mean = nn.Linear(n, latent_dim)
        self.logvar = nn.Parameter(torch.linspace(-6, -1, latent_dim))
        self.decoder = nn.Linear(latent_dim, n)

    def encode(self, x: torch.Tensor) -> Posterior:
        mean = self.mean(x.flatten(1))
        return Posterior(mean, self.logvar.expand_as(mean))


class Everything(_Encoded):
    """Each operation once or more, none of them without effect on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(LATENTS, 4 * 5 * 3), nn.GELU(), nn.Unflatten(1, (4, 5, 3)))
        self.norm = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 8, (3, 4), (1, 2), (0, 1), output_padding=(0, 1), bias=False)  # 8x7x7
        self.down = nn.Conv2d(8, 12, (2, 4), (1, 1), (1, 2))  # 12x8x8
        self.gates = nn.Parameter(torch.rand(3, 1, 1) + 0.5)
        with torch.no_grad():
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 2)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(self.norm(self.first(z)), 0.2)
        h = F.silu(self.down(torch.tanh(self.up(h)).relu_() - 0.25))
        small = F.pixel_shuffle(h, 2)  # (B, 3, 16, 16)
        shifted = F.interpolate(h[:, :3].flip(2), scale_factor=2) / 2  # nearest
        affine = self.decoder(z).view(-1, *SHAPE).permute(0, 1, 3, 2)
        bright = small * shifted + affine
        return torch.sigmoid(self.gates * bright + h[:, :1, :1, :1])


class Softmax(_Encoded):
    """An operation that the page cannot run."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        logits = self.decoder(z).view(-1, *self.image_shape)
        return logits.flatten(2).softmax(2).view_as(logits) * 60


class Branching(_Encoded):
    """Another operation for another latent vector."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        images = self.decoder(z).view(-1, *self.image_shape)
        return torch.where(z[:, :1, None, None] > 0, images.sigmoid(), 1 - images.sigmoid()) if len(z) > 1 else images


class Huge(_Encoded):
    """Weights that float16 cannot hold, and others that undo them."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (self.decoder(z) * 1e6).mul(1e-6).sigmoid().view(-1, *self.image_shape)


class Constant(_Encoded):
    """The same image for all latents."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.decoder.bias.sigmoid().view(1, *self.image_shape).repeat(len(z), 1, 1, 1)


class Grouped(_Encoded):
    """A convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 3, 3, padding=1, groups=3)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.grouped(self.decoder(z).view(-1, *SHAPE)).sigmoid()
