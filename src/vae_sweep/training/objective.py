"""The evidence lower bound and its terms, in nats per image.

The decoder is a Gaussian of the same variance v for every value of an image: -ln p(x|z) = SSE / (2 v) + (D/2) ln(2 pi
v), with SSE the squared error summed over the D values. With the KL term it is the negative ELBO (Kingma & Welling
2014, eq. 10). For v = 1/2 that is SSE + KL, up to a constant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from vae_sweep.models.vae import Posterior

LEAST_VARIANCE = 1 / (12 * 255**2)  # that of rounding to 8 bits, in squared units of [0, 1]


class Terms(NamedTuple):
    """Per-image values, each of shape (B,), nats per image."""

    loss: torch.Tensor  # recon + beta * kl, minimised
    recon: torch.Tensor  # see Objective
    kl: torch.Tensor  # KL(q(z|x) || N(0, I))


@dataclass(frozen=True)
class Objective:
    """What is minimised: recon + beta * kl, averaged over images.

    ``variance`` is the decoder's, in squared units of [0, 1]. Where it is a number, recon is SSE / (2 variance) without
    the constant; 0.5 gives the plain squared error. ``optimal`` is the best variance of whatever the loss is averaged
    over, SSE / D: of each batch in training, of the whole split in evaluation (Rybkin et al. 2021, eq. 6). ``learned``
    is one more parameter of the model. For both of them recon is -ln p(x|z), the constant included.

    ``reduction="mean"`` divides the squared error by D instead of 2 variance, which implies a variance of D/2: image
    data cannot pay for a single latent.
    """

    beta: float = 1.0
    reduction: str = "sum"  # or "mean"
    variance: float | str = 0.5  # or "optimal", "learned"

    @property
    def given_variance(self) -> float | None:
        """The decoder's variance where it is a number, else None."""
        return None if isinstance(self.variance, str) else float(self.variance)

    def implied_variance(self, n_values: int) -> float | None:
        """The decoder's variance where it is known beforehand; ``n_values`` is D."""
        return n_values / 2 if self.reduction == "mean" else self.given_variance

    def recon(self, squared_error: float, n_values: int, variance: float | None = None) -> float:
        """Return recon, nats per image, of a mean squared error SSE; without ``variance`` that of the best one."""
        implied = self.implied_variance(n_values)
        if implied is not None:
            return squared_error / (2 * implied)
        return gaussian_nats(squared_error, n_values, best_variance(squared_error, n_values, variance))

    def squared_error(self, recon: float, n_values: int, variance: float | None = None) -> float:
        """Return the mean squared error SSE that gives ``recon``; ``variance`` is the learned one."""
        implied = self.implied_variance(n_values)
        if implied is not None:
            return recon * (2 * implied)
        if variance is not None:
            return (recon - gaussian_constant(n_values, variance)) * 2 * variance
        if recon < gaussian_nats(n_values * LEAST_VARIANCE, n_values, LEAST_VARIANCE):  # the variance is the least one
            return max((recon - gaussian_constant(n_values, LEAST_VARIANCE)) * 2 * LEAST_VARIANCE, 0.0)
        return n_values * math.exp(2 * recon / n_values - 1) / (2 * math.pi)


ELBO = Objective()  # the negative one, of decoder variance 1/2, without its constant


def best_variance(squared_error: float, n_values: int, variance: float | None = None) -> float:
    """Return ``variance``, or SSE / D, which is the best; at least :data:`LEAST_VARIANCE`."""
    return max(squared_error / n_values if variance is None else variance, LEAST_VARIANCE)


def gaussian_nats(squared_error: float, n_values: int, variance: float) -> float:
    """Return -ln p(x|z) = SSE / (2 v) + (D/2) ln(2 pi v), nats per image."""
    return squared_error / (2 * variance) + gaussian_constant(n_values, variance)


def elbo_terms(
    reconstruction: torch.Tensor,
    x: torch.Tensor,
    posterior: Posterior,
    objective: Objective = ELBO,
    log_variance: torch.Tensor | None = None,  # the learned one, ()
) -> Terms:
    """Return the loss and its two terms for each image; images (B, C, H, W) with values in [0, 1]."""
    squared_error = (reconstruction - x).square().flatten(1)  # (B, D)
    n_values, variance = squared_error.shape[1], objective.given_variance
    if objective.reduction == "mean":
        recon = squared_error.mean(1)
    elif variance is not None:
        recon = squared_error.sum(1)
        recon = recon if variance == 0.5 else recon / (2 * variance)
    else:
        if objective.variance == "optimal":  # its gradient is that of (D/2) ln SSE: the variance is optimal
            log_variance = squared_error.detach().mean().log()
        assert log_variance is not None
        log_variance = log_variance.clamp(min=math.log(LEAST_VARIANCE))
        constant = 0.5 * n_values * (math.log(2 * math.pi) + log_variance)
        recon = squared_error.sum(1) / (2 * log_variance.exp()) + constant
    kl = posterior.kl()
    return Terms(recon + objective.beta * kl, recon, kl)


def gaussian_constant(n_values: int, variance: float = 0.5) -> float:
    """Return (D/2) ln(2 pi variance), what turns the scaled squared error into -ln p(x|z), in nats per image.

    For the summed squared error (variance 1/2) on 3x32x32 images: 1758.3 nats.
    """
    return 0.5 * n_values * math.log(2 * math.pi * variance)
