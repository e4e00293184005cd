"""The loss and its terms against torch.distributions and hand calculations."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from vae_sweep.metrics import linear
from vae_sweep.models.vae import Posterior
from vae_sweep.training.objective import elbo_terms, gaussian_constant


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kl_equals_torch_distributions() -> None:
    posterior = Posterior(draws(7, 5), draws(7, 5, seed=1))
    q = Normal(posterior.mean, torch.exp(0.5 * posterior.logvar))
    expected = kl_divergence(q, Normal(torch.zeros(5), torch.ones(5))).sum(1)
    torch.testing.assert_close(posterior.kl(), expected)


def test_kl_by_hand() -> None:
    """Mean 1 and variance 1 in one latent: 1/2 nat; the prior itself: 0."""
    assert Posterior(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2)).kl().item() == 0.5


@pytest.mark.parametrize("variance", [0.5, 1.0, 3.7])
def test_squared_error_is_a_gaussian_log_likelihood(variance: float) -> None:
    """SSE / (2 variance) + constant = -ln p(x|z); at variance 1/2 the factor is 1, which is the loss's recon."""
    x, mean = draws(4, 3, 8, 8), draws(4, 3, 8, 8, seed=1)
    posterior = Posterior(torch.zeros(4, 2), torch.zeros(4, 2))
    expected = -Normal(mean, math.sqrt(variance)).log_prob(x).flatten(1).sum(1)
    recon = elbo_terms(mean, x, posterior).recon
    torch.testing.assert_close(recon / (2 * variance) + gaussian_constant(192, variance), expected)


def test_constant_of_cifar_sized_images() -> None:
    assert gaussian_constant(3072) == pytest.approx(3072 / 2 * math.log(math.pi))
    assert gaussian_constant(3072) == pytest.approx(1758.3, abs=0.05)


def test_loss_is_recon_plus_beta_kl_per_image() -> None:
    x, mean = draws(4, 3, 2, 2), draws(4, 3, 2, 2, seed=1)
    posterior = Posterior(draws(4, 3, seed=2), draws(4, 3, seed=3))
    terms = elbo_terms(mean, x, posterior, beta=2.5)
    assert terms.loss.shape == (4,)
    torch.testing.assert_close(terms.loss, terms.recon + 2.5 * posterior.kl())
    averaged = elbo_terms(mean, x, posterior, reduction="mean")
    torch.testing.assert_close(averaged.recon * 12, terms.recon)


def test_mean_reduction_is_the_elbo_of_the_implied_variance() -> None:
    """D (recon_mean + beta kl) / (2 s2 / ... ): both sides rank two reconstructions alike only at s2 = beta D / 2."""
    x, a, b = draws(1, 3, 2, 2), draws(1, 3, 2, 2, seed=1), draws(1, 3, 2, 2, seed=2)
    q, p = Posterior(draws(1, 3, seed=3), draws(1, 3, seed=4)), Posterior(torch.zeros(1, 3), torch.zeros(1, 3))
    beta, s2 = 0.7, linear.implied_variance(0.7, "mean", 12)
    difference = elbo_terms(a, x, q, beta, "mean").loss - elbo_terms(b, x, p, beta, "mean").loss
    scale = math.sqrt(s2)
    elbo_a = -Normal(a, scale).log_prob(x).sum() + q.kl()
    elbo_b = -Normal(b, scale).log_prob(x).sum() + p.kl()
    torch.testing.assert_close(difference.squeeze(), beta * (elbo_a - elbo_b).squeeze())
