"""What every architecture shares. Shapes: B images, C channels, H x W pixels, L latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from vae_sweep.models.checks import Checks


@dataclass
class Posterior:
    """The diagonal Gaussian q(z|x): ``mean`` and ``logvar`` = log sigma^2, each (B, L)."""

    mean: torch.Tensor
    logvar: torch.Tensor

    def float(self) -> Posterior:
        """Return it in float32, for sums that reduced precision would spoil."""
        return Posterior(self.mean.float(), self.logvar.float())

    def rsample(self, noise: torch.Tensor) -> torch.Tensor:
        """Return z = mean + sigma * noise, (B, L), differentiable in both parameters (Kingma & Welling 2014)."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> torch.Tensor:
        """Return KL(q(z|x) || N(0, I)) in nats per image, (B,) (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).sum(1)


def bounded(parameters: torch.Tensor) -> Posterior:
    """Return the posterior of ``parameters`` (B, 2L) = (mean, a) with logvar = -softplus(-a), no wider than the prior.

    The best variance of a Gaussian posterior is 1 / (1 + curvature of the reconstruction), at most 1 (Lucas et al. 2019
    for the linear case); without a bound exp(logvar) can overflow at high learning rates.
    """
    mean, raw = parameters.chunk(2, dim=1)
    return Posterior(mean, -nn.functional.softplus(-raw))


class VAE(nn.Module):
    """A variational autoencoder over images in [0, 1]; subclasses give ``encode`` and ``decode``.

    A class that takes arguments of its own may have ``checks`` for them, which run before the data are prepared. What
    depends on the shape of the images is refused by its constructor.
    """

    checks: ClassVar[Checks] = {}
    decoder_log_variance: nn.Parameter | None  # of the decoder, where it is learned

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        self.image_shape = image_shape
        self.latent_dim = latent_dim
        self.register_parameter("decoder_log_variance", None)

    def learn_variance(self, start: float = 0.5) -> None:
        """Make the decoder's variance, in squared units of [0, 1], a parameter."""
        self.decoder_log_variance = nn.Parameter(torch.tensor(math.log(start)))

    def encode(self, x: torch.Tensor) -> Posterior:  # (B, C, H, W) -> (B, L) twice
        """Return the posterior q(z|x) of images (B, C, H, W)."""
        raise NotImplementedError

    def decode(self, z: torch.Tensor) -> torch.Tensor:  # (B, L) -> (B, C, H, W)
        """Return the mean image of p(x|z), (B, C, H, W), for latents (B, L)."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Posterior]:
        """Return reconstructions (B, C, H, W) through one posterior draw made from ``noise`` (B, L)."""
        posterior = self.encode(x)
        return self.decode(posterior.rsample(noise)), posterior

    @torch.no_grad()
    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Return the decoded posterior means of images (B, C, H, W), same shape."""
        return self.decode(self.encode(x).mean)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return n images (n, C, H, W) decoded from prior draws; ``generator`` lives on the CPU."""
        z = torch.randn(n, self.latent_dim, generator=generator)
        return self.decode(z.to(next(self.parameters()).device))
