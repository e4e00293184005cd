"""Metrics of the latents: active units, KL spectrum, aggregate posterior against the prior, mixture prior, probe."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import BATCH, NOISE_SEED, to_float

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

Floats = NDArray[np.float64]

ACTIVE = 0.01  # a latent is active if its posterior mean has a larger variance (Burda et al. 2016)


@dataclass(frozen=True)
class Codes:
    """The posteriors of N images, float64 (N, L) each."""

    mean: Floats
    variance: Floats

    def draws(self, stream: int) -> Floats:
        """Return one draw from each posterior, (N, L), with fixed noise."""
        noise = np.random.default_rng([NOISE_SEED, stream]).standard_normal(self.mean.shape)
        return self.mean + np.sqrt(self.variance) * noise


@torch.no_grad()
def encode(model: VAE, images: torch.Tensor) -> Codes:
    """Return the posteriors of uint8 images (N, C, H, W)."""
    device = next(model.parameters()).device
    found = [model.encode(to_float(images[i : i + BATCH].to(device))) for i in range(0, len(images), BATCH)]
    mean, logvar = (torch.cat([getattr(p, key).cpu() for p in found]).double().numpy() for key in ("mean", "logvar"))
    return Codes(mean, np.exp(logvar))


def kl_per_latent(codes: Codes) -> Floats:
    """Return each latent's mean KL(q(z_j|x) || N(0, 1)), nats per image, (L,); their sum is the KL."""
    kl: Floats = 0.5 * (codes.mean**2 + codes.variance - 1 - np.log(codes.variance)).mean(0)
    return kl


def kl_spectrum(codes: Codes) -> Floats:
    """Return :func:`kl_per_latent`, largest first, (L,)."""
    return np.sort(kl_per_latent(codes))[::-1]


def active_units(codes: Codes) -> int:
    """Return the number of latents whose posterior mean has a variance above 0.01 (Burda et al. 2016)."""
    return int((codes.mean.var(0) > ACTIVE).sum())


def aggregate(codes: Codes) -> dict[str, float]:
    """Return moments of the aggregate posterior q(z), the mean over images of q(z|x), and its distance from N(0, I).

    ``aggregate_mean_norm``: length of its mean, 0 for the prior. ``aggregate_variance``: its variance averaged over
    latents, 1 for the prior. ``aggregate_kl``: KL(N(m, S) || N(0, I)) of its mean m and covariance S, in nats; a lower
    bound on KL(q(z) || p(z)), the "marginal KL" of Hoffman & Johnson 2016.
    """
    mean = codes.mean.mean(0)  # (L,)
    covariance = np.cov(codes.mean.T, bias=True).reshape(len(mean), -1) + np.diag(codes.variance.mean(0))
    _, log_determinant = np.linalg.slogdet(covariance)
    trace = float(np.trace(covariance))
    return {
        "aggregate_mean_norm": float(np.linalg.norm(mean)),
        "aggregate_variance": trace / len(mean),
        "aggregate_kl": float(0.5 * (trace + mean @ mean - len(mean) - log_determinant)),
    }


def fit_mixture(train: Codes, val: Codes, components: int) -> GaussianMixture:
    """Return a Gaussian mixture fitted to draws from the aggregate posterior of the training images.

    Full covariances (Ghosh et al. 2020, section 4). It has ``components`` components, or one if draws of the validation
    images are then more likely: with many latents and few images ten components overfit.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    z, held = train.draws(stream=1), val.draws(stream=3)
    fitted = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last steps of EM change little
        for n in sorted({1, min(components, len(z))}):
            mixture = GaussianMixture(n, random_state=0, max_iter=20, reg_covar=1e-4, init_params="k-means++")
            fitted.append(mixture.fit(z))
    return max(fitted, key=lambda mixture: float(mixture.score(held)))


def draw_mixture(mixture: GaussianMixture, n: int) -> Floats:
    """Return n draws from the mixture, (n, L), the same ones each time, in random order."""
    weights, size = mixture.weights_, mixture.means_.shape[1]
    source = np.random.default_rng([NOISE_SEED, 4])
    chosen = source.choice(len(weights), n, p=weights)
    factors = np.linalg.cholesky(mixture.covariances_)  # (K, L, L)
    z = source.standard_normal((n, size))
    for component, factor in enumerate(factors):
        members = chosen == component
        z[members] = z[members] @ factor.T + mixture.means_[component]
    return z


def mixture_gain(mixture: GaussianMixture, test: Codes) -> float:
    """Return E[ln q_mixture(z) - ln p(z)] over draws from the posteriors of test images, nats per image.

    The gain in log-likelihood of held-out latents under an ex-post sampler; 0 where q(z) is the prior.
    """
    z = test.draws(stream=2)
    prior = -0.5 * (z**2 + np.log(2 * np.pi)).sum(1)
    return float((mixture.score_samples(z) - prior).mean())


def probe(train: Floats, train_labels: NDArray[np.int64], test: Floats, test_labels: NDArray[np.int64]) -> float:
    """Return the test accuracy, in %, of a linear probe: a logistic regression on codes (N, L) (Alain & Bengio 2016).

    scikit-learn's, with its default L2 penalty. Codes are not scaled: the prior has unit variance.
    """
    from sklearn.linear_model import LogisticRegression

    classifier = LogisticRegression(max_iter=1000).fit(train, train_labels)
    return round(100 * float(classifier.score(test, test_labels)), 6)  # 23.4, not 23.400000000000002
