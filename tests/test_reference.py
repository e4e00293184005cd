"""The closed form against everything it can be checked with: hand values, an optimiser, Monte Carlo, other code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.decomposition import PCA

from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.metrics import linear
from vae_sweep.metrics.linear import (
    Spectrum,
    cached_spectrum,
    decoder_variance,
    linear_loss,
    linear_optimum,
    ppca_weights,
)
from vae_sweep.metrics.measure import linear_vae
from vae_sweep.training.objective import ELBO, Objective
from vae_sweep.training.randomness import Stream, generator

LOSSES = [(1.0, "sum"), (0.3, "sum"), (4.0, "sum"), (0.5, "mean"), (0.05, "mean")]


def known(values: list[float]) -> Spectrum:
    """A spectrum of axis-aligned data with these eigenvalues."""
    d = len(values)
    return Spectrum(np.linspace(0.2, 0.7, d), np.array(values), np.eye(d), float(sum(values)), 100)


@pytest.fixture
def images() -> np.ndarray:
    """300 uint8 images (300, 3, 2, 2) with a few strong directions."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)) @ rng.normal(size=(4, 12)) * 35 + rng.normal(size=(300, 12)) * 8 + 120
    return np.clip(np.round(x), 0, 255).astype(np.uint8).reshape(300, 3, 2, 2)


def exact_terms(w: dict[str, np.ndarray], x: np.ndarray) -> tuple[float, float]:
    """Mean SSE and KL of a linear VAE on x (N, D), the expectation over the posterior taken exactly."""
    mean, variance = x @ w["encoder_mean_weight"].T + w["encoder_mean_bias"], np.exp(w["encoder_logvar"])
    error = x - mean @ w["decoder_weight"].T - w["decoder_bias"]
    sse = (error**2).sum(1).mean() + ((w["decoder_weight"] ** 2).sum(0) * variance).sum()
    kl = 0.5 * (mean**2 + variance - np.log(variance) - 1).sum(1).mean()
    return float(sse), float(kl)


def test_the_hand_value() -> None:
    found = linear_optimum(known([2.0, 1.0, 0.25]), latent_dim=3)
    # two directions above 1/2: each 1/2 recon and ln(2 l)/2 kl; the third costs its variance
    assert found.active == 2
    assert found.recon == pytest.approx(0.5 + 0.5 + 0.25)
    assert found.kl == pytest.approx((np.log(4) + np.log(2)) / 2)
    assert found.loss == pytest.approx(found.recon + found.kl)
    assert linear_optimum(known([2.0, 1.0, 0.25]), latent_dim=1).recon == pytest.approx(0.5 + 1.25)


def test_mean_reduction_implies_a_variance_that_collapses_everything() -> None:
    assert ELBO.implied_variance(3072) == 0.5
    assert Objective(reduction="mean").implied_variance(3072) == 1536
    found = linear_optimum(known([2.0, 1.0, 0.25]), 3, Objective(1.5, "mean"))  # variance 2.25
    assert (found.active, found.kl) == (0, 0.0)
    assert found.loss == found.recon == pytest.approx(3.25 / 3)


@pytest.mark.parametrize(("beta", "reduction"), LOSSES)
def test_no_optimiser_does_better(beta: float, reduction: str) -> None:
    """A general linear VAE (full matrices, 4 values, 2 latents) minimised numerically ends at the closed form."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) * 0.8 + 0.5
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    found = Spectrum(x.mean(0), values[::-1], vectors[:, ::-1], float(values.sum()), len(x))
    expected = linear_optimum(found, 2, Objective(beta, reduction))
    centred = x - x.mean(0)

    def loss(p: np.ndarray) -> float:
        w = {
            "encoder_mean_weight": p[:8].reshape(2, 4),
            "encoder_logvar": p[8:10],
            "decoder_weight": p[10:18].reshape(4, 2),
            "encoder_mean_bias": p[18:20],
            "decoder_bias": p[20:],
        }
        sse, kl = exact_terms(w, centred)
        return (sse / 4 if reduction == "mean" else sse) + beta * kl

    starts = [rng.normal(size=24) * 0.3 for _ in range(3)]
    best = min(minimize(loss, p, method="BFGS", options={"maxiter": 2000}).fun for p in starts)
    assert best == pytest.approx(expected.loss, rel=1e-5)


@pytest.mark.parametrize(("beta", "reduction"), LOSSES)
@pytest.mark.parametrize("latent_dim", [1, 3, 40])
def test_the_weights_reach_the_closed_form(images: np.ndarray, latent_dim: int, beta: float, reduction: str) -> None:
    found = linear.spectrum(images)
    train, other = images[:200], images[200:] // 2
    x = {"train": images.reshape(300, -1) / 255, "other": other.reshape(100, -1) / 255}
    weights = ppca_weights(found, latent_dim, Objective(beta, reduction))
    assert weights["encoder_mean_weight"].shape == (latent_dim, 12)
    optimum = linear_optimum(found, latent_dim, Objective(beta, reduction))
    on_other = linear_loss(found, other, latent_dim, Objective(beta, reduction))
    for data, expected in (("train", optimum), ("other", on_other)):
        sse, kl = exact_terms(weights, x[data])
        recon = sse / 12 if reduction == "mean" else sse
        assert expected.recon == pytest.approx(recon, rel=1e-5)
        assert expected.kl == pytest.approx(kl, rel=1e-5)
        assert expected.loss == pytest.approx(recon + beta * kl, rel=1e-5)
    assert linear_loss(found, images, latent_dim, Objective(beta, reduction)).loss == pytest.approx(
        optimum.loss, rel=1e-5
    )
    assert linear_loss(found, train, latent_dim, Objective(beta, reduction)).active == optimum.active


def test_the_curve_has_the_terms_of_each_betas_weights(images: np.ndarray) -> None:
    found, other, betas = linear.spectrum(images), images[200:] // 2, [0.05, 0.3, 1.0, 4.0]
    kl, squared_error = linear.linear_curve(found, other, betas)
    for i, beta in enumerate(betas):
        expected = exact_terms(ppca_weights(found, 12, Objective(beta)), other.reshape(100, -1) / 255)
        assert (squared_error[i], kl[i]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 3, 8])
def test_the_best_variance_is_that_of_probabilistic_pca(images: np.ndarray, latent_dim: int) -> None:
    """The bound of the optimal linear VAE is tight (Lucas et al. 2019), so its loss is scikit-learn's likelihood."""
    found, x = linear.spectrum(images), images.reshape(300, -1) / 255
    pca = PCA(latent_dim).fit(x)
    best = Objective(variance="optimal")
    optimum = linear_optimum(found, latent_dim, best)
    assert optimum.active == latent_dim
    assert decoder_variance(found, latent_dim, best) == pytest.approx(pca.noise_variance_ * 299 / 300, rel=1e-4)
    assert optimum.loss == pytest.approx(-pca.score(x), abs=1e-3)
    other = images[200:] // 2 + 40
    learned = linear_loss(found, other, latent_dim, Objective(variance="learned"))
    assert learned.loss == pytest.approx(-pca.score(other.reshape(100, -1) / 255), abs=0.05)  # it divides by N - 1
    assert linear_loss(found, other, latent_dim, best).loss <= learned.loss + 1e-9
    assert linear_loss(found, images, latent_dim, best).loss == pytest.approx(optimum.loss, abs=1e-3)


@pytest.mark.parametrize("beta", [0.2, 1.0, 3.0, 11.0])
def test_no_other_variance_is_better(images: np.ndarray, beta: float) -> None:
    found = linear.spectrum(images)
    best = linear_optimum(found, 5, Objective(beta, variance="optimal"))

    def loss(log_variance: float) -> float:
        variance = float(np.exp(log_variance))
        given = linear_optimum(found, 5, Objective(beta, variance=variance))
        return given.loss + 6 * np.log(2 * np.pi * variance)  # D/2 = 6

    grid = [loss(log) for log in np.linspace(np.log(1e-5), np.log(10), 4000)]
    assert best.loss == pytest.approx(min(grid), abs=1e-3)
    assert best.loss <= min(grid) + 1e-9


def test_a_variance_is_twice_beta() -> None:
    """SSE / (2 v) + KL is SSE + 2 v KL, divided by 2 v."""
    found = known([2.0, 1.0, 0.25])
    given, weighted = linear_optimum(found, 3, Objective(variance=0.1)), linear_optimum(found, 3, Objective(0.2))
    assert (given.kl, given.active) == (weighted.kl, weighted.active)
    assert given.recon * 0.2 == pytest.approx(weighted.recon)
    assert given.loss * 0.2 == pytest.approx(weighted.loss)


def test_monte_carlo_agrees(images: np.ndarray) -> None:
    found = linear.spectrum(images)
    w = ppca_weights(found, 6, Objective(0.2))
    rng = np.random.default_rng(1)
    x = np.repeat(images.reshape(300, -1) / 255, 400, axis=0)
    mean = x @ w["encoder_mean_weight"].T + w["encoder_mean_bias"]
    z = mean + np.exp(w["encoder_logvar"] / 2) * rng.normal(size=mean.shape)
    sse = ((x - z @ w["decoder_weight"].T - w["decoder_bias"]) ** 2).sum(1)
    assert linear_optimum(found, 6, Objective(0.2)).active >= 2
    assert linear_optimum(found, 6, Objective(0.2)).recon == pytest.approx(sse.mean(), rel=0.01)


def test_the_spectrum_is_that_of_numpy(images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_CHUNK_BYTES", 4 * 12 * 7)  # chunks of 7 images
    found = linear.spectrum(images)
    values, vectors = np.linalg.eigh(np.cov(images.reshape(300, -1).T / 255, bias=True))
    np.testing.assert_allclose(found.eigenvalues, values[::-1], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(np.abs((found.eigenvectors * vectors[:, ::-1]).sum(0)), 1, atol=1e-4)
    assert found.total_variance == pytest.approx(values.sum(), rel=1e-6)
    assert found.n_images == 300


def test_fewer_images_than_values(images: np.ndarray) -> None:
    few = images[:8]  # 8 images of 12 values: the Gram matrix
    found = linear.spectrum(few)
    x = few.reshape(8, -1) / 255
    values = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    np.testing.assert_allclose(found.eigenvalues, values[:7], rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.eigenvectors.T @ found.eigenvectors, np.eye(7), atol=1e-4)
    for q in (2, 30):
        assert linear_loss(found, few, q, Objective(0.1)).loss == pytest.approx(
            linear_optimum(found, q, Objective(0.1)).loss, rel=1e-4
        )


def test_equal_images_and_one_image(images: np.ndarray) -> None:
    for stack in (images[:1], np.repeat(images[:1], 20, axis=0), np.repeat(images[:1], 3, axis=0)):
        found = linear_optimum(linear.spectrum(stack), 4)
        assert found.active == 0
        assert found.loss == pytest.approx(0, abs=1e-6)


def test_a_memory_map_will_do(images: np.ndarray, tmp_path) -> None:
    np.save(tmp_path / "x.npy", images)
    mapped = linear.spectrum(np.load(tmp_path / "x.npy", mmap_mode="r"))
    np.testing.assert_array_equal(mapped.eigenvalues, linear.spectrum(images).eigenvalues)


def test_too_few_directions_are_refused_only_when_they_matter(images: np.ndarray) -> None:
    few, all_ = linear.spectrum(images, directions=2), linear.spectrum(images)
    assert few.eigenvectors.shape == (12, 2)
    assert linear_optimum(few, 2, Objective(0.01)).loss == pytest.approx(linear_optimum(all_, 2, Objective(0.01)).loss)
    with pytest.raises(ValueError, match="only 2 directions were kept"):
        linear_optimum(few, 8, Objective(0.001))


def test_what_is_refused(images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="'sum', 'mean'"):
        linear_optimum(known([1.0]), 1, Objective(reduction="avg"))
    for beta in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="beta > 0"):
            linear_optimum(known([1.0]), 1, Objective(beta))
    with pytest.raises(ValueError, match="latent_dim"):
        linear_optimum(known([1.0]), 0)
    with pytest.raises(ValueError, match="12 values"):
        linear_loss(linear.spectrum(images), images[:, :1], 2)
    with pytest.raises(ValueError, match="uint8"):
        linear.spectrum(images.astype(np.float32))  # type: ignore[arg-type]


def test_the_cache_is_read_and_a_damaged_one_replaced(images, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = "0123456789abcdef0123"
    first = cached_spectrum(images, digest, tmp_path / "new")
    path = tmp_path / "new" / f"spectrum-0123456789abcdef-512-v{METRICS_VERSION}.npz"
    assert path.exists()
    with monkeypatch.context() as patch:
        patch.setattr(linear, "spectrum", lambda _: pytest.fail("computed again"))
        again = cached_spectrum(images, digest, tmp_path / "new")
    np.testing.assert_array_equal(again.eigenvectors, first.eigenvectors)
    assert (again.total_variance, again.n_images) == (first.total_variance, 300)

    whole = path.read_bytes()
    for damaged in (b"", b"nonsense", whole[: len(whole) // 2], whole[:300] + b"xxxx" + whole[304:]):
        path.write_bytes(damaged)
        np.testing.assert_array_equal(cached_spectrum(images, digest, tmp_path / "new").mean, first.mean)
    assert path.read_bytes() == whole
    assert cached_spectrum(images[:50], digest, tmp_path / "new").n_images == 50  # another data set, same name
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_samples_have_the_mean_and_covariance_of_probabilistic_pca() -> None:
    """Tipping & Bishop 1999: W W' + s2 I equals the data's covariance in the directions that are used."""
    values = [4.0, 2.0, 0.9, 0.3]
    found = known(values)
    model = linear_vae(found, 4, ELBO, (1, 2, 2))
    with torch.no_grad():
        drawn = model.sample(200_000, generator(0, Stream.LINEAR)).flatten(1).double().numpy()
    assert drawn.mean(0) == pytest.approx(found.mean, abs=0.02)
    expected = np.diag([value - 0.5 if value > 0.5 else 0.0 for value in values])
    assert np.cov(drawn.T) == pytest.approx(expected, abs=0.04)
