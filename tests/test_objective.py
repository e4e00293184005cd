"""The loss and its terms against torch.distributions and hand calculations."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.distributions import Normal, kl_divergence

from vae_sweep.models.vae import Posterior
from vae_sweep.training.objective import LEAST_VARIANCE, Objective, elbo_terms, gaussian_constant


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
    terms = elbo_terms(mean, x, posterior, Objective(2.5))
    assert terms.loss.shape == (4,)
    torch.testing.assert_close(terms.loss, terms.recon + 2.5 * posterior.kl())
    averaged = elbo_terms(mean, x, posterior, Objective(reduction="mean"))
    torch.testing.assert_close(averaged.recon * 12, terms.recon)


def test_mean_reduction_is_the_elbo_of_the_implied_variance() -> None:
    """D (recon_mean + beta kl) / (2 s2 / ... ): both sides rank two reconstructions alike only at s2 = beta D / 2."""
    x, a, b = draws(1, 3, 2, 2), draws(1, 3, 2, 2, seed=1), draws(1, 3, 2, 2, seed=2)
    q, p = Posterior(draws(1, 3, seed=3), draws(1, 3, seed=4)), Posterior(torch.zeros(1, 3), torch.zeros(1, 3))
    beta, objective = 0.7, Objective(0.7, "mean")
    s2 = beta * objective.implied_variance(12)
    difference = elbo_terms(a, x, q, objective).loss - elbo_terms(b, x, p, objective).loss
    scale = math.sqrt(s2)
    elbo_a = -Normal(a, scale).log_prob(x).sum() + q.kl()
    elbo_b = -Normal(b, scale).log_prob(x).sum() + p.kl()
    torch.testing.assert_close(difference.squeeze(), beta * (elbo_a - elbo_b).squeeze())


@pytest.mark.parametrize("variance", [0.01, 0.1, 2.0])
def test_a_given_variance_is_a_gaussian_without_its_constant(variance: float) -> None:
    x, mean, q = draws(4, 3, 8, 8), draws(4, 3, 8, 8, seed=1), Posterior(draws(4, 2, seed=2), draws(4, 2, seed=3))
    expected = -Normal(mean, math.sqrt(variance)).log_prob(x).flatten(1).sum(1) - gaussian_constant(192, variance)
    terms = elbo_terms(mean, x, q, Objective(variance=variance))
    torch.testing.assert_close(terms.recon, expected)
    torch.testing.assert_close(terms.loss, expected + q.kl())


def test_a_learned_variance_has_its_constant_and_a_gradient() -> None:
    x, mean, q = draws(4, 3, 8, 8), draws(4, 3, 8, 8, seed=1), Posterior(draws(4, 2, seed=2), draws(4, 2, seed=3))
    log_variance = torch.tensor(math.log(0.3), dtype=torch.float64, requires_grad=True)
    terms = elbo_terms(mean, x, q, Objective(variance="learned"), log_variance)
    torch.testing.assert_close(terms.recon, -Normal(mean, math.sqrt(0.3)).log_prob(x).flatten(1).sum(1))
    terms.loss.mean().backward()
    squared_error = (mean - x).square().flatten(1).sum(1).mean()
    torch.testing.assert_close(log_variance.grad, 96 - squared_error / 0.6)  # d/d ln v of SSE / 2v + (D/2) ln v


def test_the_optimal_variance_is_the_best_one_of_the_batch() -> None:
    x, mean, q = draws(4, 3, 8, 8), draws(4, 3, 8, 8, seed=1) / 2, Posterior(draws(4, 2, seed=2), draws(4, 2, seed=3))
    best = minimize_scalar(
        lambda log: -float(Normal(mean, math.exp(log / 2)).log_prob(x).sum()) / 4, bounds=(-9, 9), method="bounded"
    )
    mean.requires_grad_()
    loss = elbo_terms(mean, x, q, Objective(variance="optimal")).recon.mean()
    assert loss.item() == pytest.approx(best.fun, rel=1e-9)
    loss.backward()
    found, mean.grad = mean.grad, None
    (96 * (mean - x).square().mean().log()).backward()  # Rybkin et al. 2021: (D/2) ln MSE
    torch.testing.assert_close(found, mean.grad)


def test_a_variance_is_never_below_that_of_eight_bits() -> None:
    x, q = draws(4, 3, 8, 8), Posterior(torch.zeros(4, 2), torch.zeros(4, 2))
    for log_variance in (None, torch.tensor(-99.0)):
        objective = Objective(variance="optimal" if log_variance is None else "learned")
        recon = elbo_terms(x, x, q, objective, log_variance).recon
        assert recon[0] == pytest.approx(gaussian_constant(192, LEAST_VARIANCE), rel=1e-5)
    assert Objective(variance="optimal").recon(0.0, 192) == gaussian_constant(192, LEAST_VARIANCE)


@pytest.mark.parametrize("objective", [Objective(variance=v) for v in (0.5, 0.02, "optimal", "learned")])
def test_the_squared_error_is_found_again(objective: Objective) -> None:
    variance = 0.03 if objective.variance == "learned" else None
    recon = objective.recon(21.5, 3072, variance)
    assert objective.squared_error(recon, 3072, variance) == pytest.approx(21.5)
    assert Objective(reduction="mean").squared_error(0.007, 3072) == pytest.approx(21.504)


@pytest.mark.parametrize("squared_error", [0.0, 1e-5, 192 * LEAST_VARIANCE, 1.0])
def test_the_squared_error_is_found_again_below_the_least_variance(squared_error: float) -> None:
    best = Objective(variance="optimal")
    assert best.squared_error(best.recon(squared_error, 192), 192) == pytest.approx(squared_error, abs=1e-9)
