"""Likelihood bounds on held-out images, in nats per image; lower is better throughout.

The decoder is a Gaussian of one variance, N(x; decode(z), variance), D = C H W values per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import scipy  # its optimize, when it is first used
import torch

from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import NOISE_SEED, for_inference, to_float
from vae_sweep.training.objective import best_variance, gaussian_constant, gaussian_nats

DECODED_AT_ONCE = 100  # images: they fit into the processor's cache
SCALES = math.log(1e-3), math.log(10.0)  # of a discretised likelihood, logarithms in units of [0, 1]
LogCdf = Callable[[torch.Tensor], torch.Tensor]


def elbo_bounds(squared_error: float, kl: float, n_values: int) -> dict[str, float]:
    """Return the forms of the negative ELBO that follow from E[SSE] and E[KL], both in nats per image.

    ``neg_elbo``: SSE + KL, decoder variance 1/2, without its constant (Kingma & Welling 2014, eq. 10).
    ``neg_elbo_with_constant``: with (D/2) ln pi, so a bound on -ln p(x) for x in [0, 1]^D.
    ``optimal_sigma``: sigma* = sqrt(E[SSE] / D), the decoder's best standard deviation after training, in units of
    [0, 1]; ``neg_elbo_optimal_sigma`` = (D/2)(ln(2 pi sigma*^2) + 1) + KL (Rybkin et al. 2021, eq. 6).
    ``squared_error``: E[SSE] itself, whatever the decoder's variance.
    ``bits_per_dim...``: nats / (D ln 2) + 8, the same bound for 8-bit values that are uniform in their bins.
    """
    variance = best_variance(squared_error, n_values)
    full = squared_error + kl + gaussian_constant(n_values)
    optimal = gaussian_nats(squared_error, n_values, variance) + kl
    return {
        "squared_error": squared_error,
        "neg_elbo": squared_error + kl,
        "neg_elbo_with_constant": full,
        "bits_per_dim": bits_per_dim(full, n_values),
        "optimal_sigma": math.sqrt(variance),
        "neg_elbo_optimal_sigma": optimal,
        "bits_per_dim_optimal_sigma": bits_per_dim(optimal, n_values),
    }


def bits_per_dim(nats: float, n_values: int) -> float:
    """Return -ln p(x) of values in [0, 1], nats per image, as bits per value of 8-bit images.

    With the usual 8 = log2(256); the bins of v / 255 have a width of 1 / 255, which gives 0.006 less.
    """
    return nats / (n_values * math.log(2)) + 8


@torch.no_grad()
def iwae(
    model: VAE,
    images: torch.Tensor,  # uint8 (N, C, H, W)
    samples: int,  # k, posterior draws per image
    neg_elbo: float,  # of all held-out images, nats per image
    variance: float = 0.5,  # the decoder's
) -> dict[str, float]:
    """Return the importance-weighted bound -ln (1/k) sum_i p(x, z_i) / q(z_i | x), with fixed noise.

    Burda et al. 2016, eq. 8, with the constant (D/2) ln(2 pi variance) if ``neg_elbo`` has it. ``images`` are a random
    part of the held-out images: the negative ELBO serves as a control variate, since it is known of all of them, and
    what the bound gains on it differs far less between images than the bound itself. Keys: ``iwae_<k>``, ``neg_elbo``
    less the gain; ``iwae_<k>_gain``, mean over ``images`` of the negative ELBO of the same draws minus the bound (>= 0;
    0 where q is exact); ``iwae_<k>_se``, its standard error, of two images or more; and ``iwae_<k>_ess``, the effective
    sample size (sum w)^2 / sum w^2 of k (Kong 1992), mean over images.
    """
    device = next(model.parameters()).device
    model, _ = for_inference(model)
    source = torch.Generator().manual_seed(NOISE_SEED + 1000)
    gains, effective = [], []
    for start in range(0, len(images), max(1, DECODED_AT_ONCE // samples)):
        x = to_float(images[start : start + max(1, DECODED_AT_ONCE // samples)].to(device))  # (B, C, H, W)
        posterior = model.encode(x)
        mean, logvar = posterior.mean[:, None], posterior.logvar[:, None]  # (B, 1, L)
        draws = [torch.randn(samples, model.latent_dim, generator=source) for _ in range(len(x))]
        noise = torch.stack(draws).to(device)  # (B, k, L), independent of B
        z = mean + torch.exp(0.5 * logvar) * noise
        decoded = model.decode(z.flatten(0, 1)).unflatten(0, noise.shape[:2])  # (B, k, C, H, W)
        squared_error = decoded.sub_(x[:, None]).square_().sum((2, 3, 4))  # (B, k)
        prior_ratio = 0.5 * (noise.square() + logvar - z.square()).sum(2)  # ln p(z) - ln q(z|x)
        weights = (prior_ratio - squared_error / (2 * variance)).cpu().double()  # ln w
        gains.append(torch.logsumexp(weights, 1) - math.log(samples) - weights.mean(1))
        effective.append(torch.exp(2 * torch.logsumexp(weights, 1) - torch.logsumexp(2 * weights, 1)))
    gain, name = torch.cat(gains), f"iwae_{samples}"
    error = {f"{name}_se": float(gain.std()) / math.sqrt(len(gain))} if len(gain) > 1 else {}
    return {
        name: neg_elbo - float(gain.mean()),
        **error,
        f"{name}_gain": float(gain.mean()),
        f"{name}_ess": float(torch.cat(effective).mean()),
    }


@torch.no_grad()
def discretised(
    model: VAE,
    images: torch.Tensor,  # uint8 (N, C, H, W), a random part of the held-out images
    others: torch.Tensor,  # uint8 (M, C, H, W), on which the scales are chosen
    neg_elbo: float,  # of all held-out images at the best variance, nats per image, the constant included
    variance: float,  # that variance
) -> dict[str, float]:
    """Return the negative ELBO of discretised likelihoods in bits per value: one over all 256 values of a channel.

    The probability of the value v is the mass of a Gaussian, or of a logistic distribution, from v - 1/2 to v + 1/2; 0
    and 255 take all that lies beyond them (Salimans et al. 2017, section 2.1). Its mean is the decoded image, its one
    scale is the best on ``others``. The Gaussian density serves as a control variate, as the ELBO does in :func:`iwae`.
    """
    n_values = math.prod(model.image_shape)
    found: dict[str, float] = {}
    chosen, scored = (list(_decoded(model, part)) for part in (others, images))
    density = torch.cat([(mean - x).square().sum(1) / (2 * variance) for x, mean in scored])
    for name, log_cdf in (("gaussian", torch.special.log_ndtr), ("logistic", torch.nn.functional.logsigmoid)):

        def nats(log_scale: float, parts: list[tuple[torch.Tensor, torch.Tensor]], log_cdf: LogCdf) -> torch.Tensor:
            return -torch.cat([log_mass(x, mean, math.exp(log_scale), log_cdf).sum(1) for x, mean in parts])

        best = scipy.optimize.minimize_scalar(
            lambda log_scale, cdf=log_cdf: float(nats(log_scale, chosen, cdf).mean()), bounds=SCALES, method="bounded"
        )
        less = nats(best.x, scored, log_cdf).mean() - density.mean() - gaussian_constant(n_values, variance)
        found[f"bits_per_dim_{name}"] = (neg_elbo + float(less)) / (n_values * math.log(2))
        found[f"scale_{name}"] = math.exp(best.x)
    return found


def log_mass(x: torch.Tensor, mean: torch.Tensor, scale: float, log_cdf: LogCdf) -> torch.Tensor:
    """Return ln P(x) of values x = v / 255 under a discretised distribution that is symmetric around ``mean``.

    ``log_cdf``: of the standard distribution, and 1 - cdf(t) = cdf(-t). All tensors have one shape.
    """
    low, high = (x - mean - 0.5 / 255) / scale, (x - mean + 0.5 / 255) / scale
    low, high = low.masked_fill(x <= 0.25 / 255, -math.inf), high.masked_fill(x >= 1 - 0.25 / 255, math.inf)
    right = low + high > 0  # the lower tail is the more exact one
    low, high = torch.where(right, -high, low), torch.where(right, -low, high)
    upper = log_cdf(high)
    return upper + torch.log1p(-torch.exp(log_cdf(low) - upper))


def _decoded(model: VAE, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of images and of their reconstructions through one posterior draw from fixed noise, (B, D) each."""
    device = next(model.parameters()).device
    source = torch.Generator().manual_seed(NOISE_SEED + 2000)
    for part in images.split(DECODED_AT_ONCE):
        x = to_float(part.to(device))
        noise = torch.randn(len(x), model.latent_dim, generator=source).to(device)
        yield x.flatten(1).cpu(), model(x, noise)[0].flatten(1).cpu()  # there is no log_ndtr on mps
