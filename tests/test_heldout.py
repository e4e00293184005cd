"""Held-out metrics against closed forms, brute force and hand calculations."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from scipy.stats import logistic, norm
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from vae_sweep import models
from vae_sweep.datasets.base import ImageDataset, Split
from vae_sweep.metrics import bounds, latents, linear, quality
from vae_sweep.metrics.measure import METRICS, Settings, linear_vae, measure, measure_linear
from vae_sweep.metrics.subject import Subject
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.training import randomness
from vae_sweep.training.evaluation import Averages, evaluate, to_float
from vae_sweep.training.objective import ELBO, Objective

SHAPE = (3, 12, 12)
SETTINGS = Settings(20, 40, 2, 50, "none", 100, None)


def pictures(n: int, seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Smooth pictures in which a few directions hold nearly all variance."""
    source = np.random.default_rng(seed)
    basis = np.random.default_rng(99).standard_normal((6, math.prod(shape)))
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    scores = source.standard_normal((n, 6)) * np.array([3.0, 2.0, 1.5, 1.2, 0.5, 0.3])
    return np.rint(255 * np.clip(0.5 + scores @ basis, 0, 1)).astype(np.uint8).reshape(n, *shape)


def a_model(latent_dim: int = 4) -> VAE:
    randomness.seed_weights(3)
    node = {"_target_": "vae_sweep.models.fc.FCVAE", "name": "fc", "hidden_dims": [16]}
    return models.create(node, SHAPE, latent_dim).eval()


def dataset(tmp_path: Path, n_test: int = 203) -> ImageDataset:
    source = np.random.default_rng(5)
    sizes = {"train": 400, "val": 60, "test": n_test}
    splits = {key: Split(pictures(n, seed), source.integers(0, 3, n)) for seed, (key, n) in enumerate(sizes.items())}
    return ImageDataset("made", splits, SHAPE, "digest", {}, tmp_path)


def test_bounds_from_the_two_terms_by_hand() -> None:
    """D = 3072, recon 50, kl 25: (D/2) ln pi = 1758.28; sigma* = sqrt(50 / 3072)."""
    found = bounds.elbo_bounds(50.0, 25.0, 3072)
    assert found["neg_elbo"] == 75.0
    assert found["neg_elbo_with_constant"] == pytest.approx(75 + 1536 * math.log(math.pi))
    assert found["bits_per_dim"] == pytest.approx(8.861, abs=5e-4)
    assert found["optimal_sigma"] == pytest.approx(0.12758, abs=1e-5)
    by_scipy = -3072 * stats.norm(scale=found["optimal_sigma"]).logpdf(found["optimal_sigma"]) + 25
    assert found["neg_elbo_optimal_sigma"] == pytest.approx(by_scipy)
    assert found["bits_per_dim_optimal_sigma"] == pytest.approx(7.09, abs=5e-3)


@pytest.mark.parametrize("variance", [0.5, 0.05])
def test_iwae_against_densities_written_out(variance: float) -> None:
    """ln p(x|z) + ln p(z) - ln q(z|x) from torch.distributions, image by image, on the same draws."""
    model, images, k = a_model(), torch.from_numpy(pictures(7)), 30
    found = bounds.iwae(model, images, k, 100.0, variance)
    constant = 216 * math.log(2 * math.pi * variance)
    x = to_float(images)
    source = torch.Generator().manual_seed(bounds.NOISE_SEED + 1000)
    noise = [torch.randn(k, 4, generator=source) for _ in range(7)]
    expected, plain, effective = [], [], []
    with torch.no_grad():
        posterior = model.encode(x)
        for i in range(7):
            q = torch.distributions.Normal(posterior.mean[i], torch.exp(posterior.logvar[i] / 2))
            z = q.mean + q.stddev * noise[i]
            likelihood = torch.distributions.Normal(model.decode(z), math.sqrt(variance))
            log_w = likelihood.log_prob(x[i]).sum((1, 2, 3)).double()
            log_w += torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1) - q.log_prob(z).sum(1)
            weights = torch.exp(log_w - log_w.max())
            expected.append(-(weights.mean().log() + log_w.max()) - constant)
            plain.append(-log_w.mean() - constant)
            effective.append(weights.sum() ** 2 / weights.square().sum())
    gains = (torch.stack(plain) - torch.stack(expected)).numpy()
    assert found["iwae_30_gain"] == pytest.approx(gains.mean(), abs=1e-3)
    assert found["iwae_30"] == pytest.approx(100 - gains.mean(), abs=1e-3)
    assert found["iwae_30_se"] == pytest.approx(stats.sem(gains), abs=1e-3)
    assert found["iwae_30_ess"] == pytest.approx(float(torch.stack(effective).mean()), rel=1e-3)
    assert found["iwae_30_gain"] > 0.01  # the posterior of this model is not exact


def test_the_bound_is_tight_and_units_are_counted_right_for_exact_posteriors() -> None:
    """Probabilistic PCA: all importance weights are equal, and a latent is used iff its eigenvalue exceeds 1/2."""
    images = pictures(600)
    spectrum = linear.spectrum(images)
    model = linear_vae(spectrum, 8, ELBO, SHAPE)
    stack = torch.from_numpy(images)
    expected = linear.linear_loss(spectrum, images[:100], 8).loss
    found = bounds.iwae(model, stack[:100], 50, expected)
    assert found["iwae_50_gain"] == pytest.approx(0, abs=1e-3)
    assert found["iwae_50_ess"] == pytest.approx(50, abs=0.1)
    assert found["iwae_50"] == pytest.approx(expected, rel=1e-4)
    assert found["iwae_50_se"] == pytest.approx(0, abs=1e-4)
    codes = latents.encode(model, stack)
    used = int((spectrum.eigenvalues > 0.5).sum())
    assert latents.active_units(codes) == used == 4
    kl = latents.kl_spectrum(codes)
    assert kl[:used] == pytest.approx(0.5 * np.log(2 * spectrum.eigenvalues[:used]), rel=1e-3)
    assert kl[used:] == pytest.approx(0, abs=1e-6)


def test_the_spectrum_sums_to_the_kl() -> None:
    model, images = a_model(), torch.from_numpy(pictures(530))
    assert latents.kl_spectrum(latents.encode(model, images)).sum() == pytest.approx(evaluate(model, images).kl, 1e-5)


def test_moments_of_the_aggregate_posterior() -> None:
    """Codes whose aggregate is N(m, diag(v)) exactly: moments and KL as torch.distributions has them."""
    means = np.array([[1.0, 0.0], [-1.0, 0.0], [1.0, 2.0], [-1.0, 2.0]])  # mean (0, 1), variances (1, 1)
    found = latents.aggregate(latents.Codes(means, np.full((4, 2), 0.5)))
    assert found["aggregate_mean_norm"] == pytest.approx(1)
    assert found["aggregate_variance"] == pytest.approx(1.5)
    q = torch.distributions.MultivariateNormal(torch.tensor([0.0, 1.0]), 1.5 * torch.eye(2))
    p = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    assert found["aggregate_kl"] == pytest.approx(float(torch.distributions.kl_divergence(q, p)), rel=1e-5)


def clusters(n: int, seed: int, distance: float) -> latents.Codes:
    sides = np.random.default_rng(seed).choice([-distance, distance], n)
    return latents.Codes(np.stack([sides, np.zeros(n)], 1), np.full((n, 2), 1.0))


def test_the_mixture_finds_two_clusters() -> None:
    """Half the mass at +-5: ln q - ln p gains E[z^2]/2 - 1/2 - ln 2 = 12.5 - ln 2 nats, clusters being disjoint."""
    mixture = latents.fit_mixture(clusters(4000, 0, 5.0), clusters(500, 1, 5.0), 2)
    assert mixture.n_components == 2
    assert latents.mixture_gain(mixture, clusters(4000, 2, 5.0)) == pytest.approx(12.5 - math.log(2), abs=0.3)
    drawn = latents.draw_mixture(mixture, 4000)
    assert np.abs(drawn[:, 0]).mean() == pytest.approx(5, abs=0.1)
    assert drawn[:, 0].mean() == pytest.approx(0, abs=0.4)  # both sides, in random order
    assert np.array_equal(drawn, latents.draw_mixture(mixture, 4000))


def test_components_that_only_memorise_are_not_used() -> None:
    source = np.random.default_rng(0)
    codes = [latents.Codes(source.standard_normal((n, 30)) * 0.7, np.full((n, 30), 0.51)) for n in (300, 300, 2000)]
    mixture = latents.fit_mixture(codes[0], codes[1], 10)
    assert mixture.n_components == 1


def test_the_probe_reads_what_is_linear() -> None:
    source = np.random.default_rng(0)
    codes, labels = source.standard_normal((600, 3)), np.repeat([0, 1, 2], 200)
    assert latents.probe(codes[::2], labels[::2], codes[1::2], labels[1::2]) < 50  # chance is 33 %
    codes[np.arange(600), labels] += 8
    assert latents.probe(codes[::2], labels[::2], codes[1::2], labels[1::2]) > 99


class Shifted(VAE):
    """Reconstructs every value 0.1 too high."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(x.flatten(1), torch.zeros_like(x.flatten(1)))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z.unflatten(1, self.image_shape) + 0.1


def test_psnr_and_ssim_by_hand() -> None:
    """MSE 0.01 is 20 dB; SSIM as Wang et al. 2004 write it, windows by scipy, borders mirrored."""
    shape = (1, 24, 24)
    images = np.clip(pictures(5, 1, shape), 0, 229)  # 0.1 more stays below 1
    model = Shifted(shape, 576)
    assert quality.psnr(model, torch.from_numpy(images)) == pytest.approx(20, abs=1e-3)

    def window(a: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(a, 1.5, truncate=5 / 1.5, mode="mirror")

    expected = []
    for picture in images[:, 0] / 255.0:
        other = picture + 0.1
        m, n = window(picture), window(other)
        vx, vy, cov = window(picture**2) - m**2, window(other**2) - n**2, window(picture * other) - m * n
        top = (2 * m * n + 0.01**2) * (2 * cov + 0.03**2)
        expected.append((top / ((m**2 + n**2 + 0.01**2) * (vx + vy + 0.03**2))).mean())
    assert quality.ssim(model, torch.from_numpy(images)) == pytest.approx(np.mean(expected), abs=1e-4)


def test_the_bound_of_a_part_is_corrected_by_the_elbo_of_all() -> None:
    """Images of the part that are harder than the others must not shift the bound: only its gain is of the part."""
    model, images = a_model(), torch.from_numpy(pictures(300))
    of = [evaluate(model, part, noise_draws=50).loss for part in (images, images[:20])]
    whole = bounds.iwae(model, images, 40, of[0])
    part = bounds.iwae(model, images[:20], 40, of[0])
    assert abs(of[1] - of[0]) > 5 * part["iwae_40_se"]  # what the part alone would be wrong by
    assert abs(part["iwae_40"] - whole["iwae_40"]) < 4 * part["iwae_40_se"]
    assert part["iwae_40_se"] > 2 * whole["iwae_40_se"]


def test_everything_is_measured_and_the_same_again(tmp_path: Path) -> None:
    model, data = a_model(), dataset(tmp_path)
    averages = evaluate(model, torch.from_numpy(data.test.images))
    found = measure(model, averages, ELBO, data, SETTINGS, prior_seed=0)
    assert found.values == measure(model, averages, ELBO, data, SETTINGS, prior_seed=0).values
    assert found.values["neg_elbo"] == pytest.approx(averages.loss)
    assert {"iwae_20", "active_units", "aggregate_kl", "mixture_gain", "psnr", "ssim", "probe_accuracy"} <= set(
        found.values
    )
    assert all(map(math.isfinite, found.values.values()))
    assert found.spectrum.sum() == pytest.approx(averages.kl, rel=1e-4)


def test_a_metric_of_ones_own_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def width(subject: Subject) -> dict[str, float]:
        return {"largest_code": float(np.abs(subject.test.mean).max())}

    monkeypatch.setitem(METRICS, "mine", width)
    model, data = a_model(), dataset(tmp_path)
    found = measure(model, evaluate(model, torch.from_numpy(data.test.images)), ELBO, data, SETTINGS, prior_seed=0)
    assert found.values["largest_code"] > 0
    assert "mine" in found.seconds


def test_an_averaged_squared_error_is_undone(tmp_path: Path) -> None:
    model, data = a_model(), dataset(tmp_path)
    test = torch.from_numpy(data.test.images)
    by_mean = measure(
        model,
        evaluate(model, test, Objective(reduction="mean")),
        Objective(reduction="mean"),
        data,
        SETTINGS,
        prior_seed=0,
    )
    assert by_mean.values["neg_elbo"] == pytest.approx(evaluate(model, test).loss, rel=1e-5)


def test_the_linear_vae_gets_the_same_metrics_once(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    thirds = np.quantile(data.train.images.mean((1, 2, 3)), [1 / 3, 2 / 3])
    for split in data.splits.values():  # classes that codes can tell
        split.labels[:] = np.digitize(split.images.mean((1, 2, 3)), thirds)
    spectrum = linear.spectrum(data.train.images)
    model = linear_vae(spectrum, 8, ELBO, SHAPE)
    found = measure_linear(model, spectrum, ELBO, data, SETTINGS)
    averages = evaluate(model, torch.from_numpy(data.test.images))
    assert averages.loss == pytest.approx(linear.linear_loss(spectrum, data.test.images, 8).loss, rel=0.03)  # 203 draws
    own = measure(model, averages, ELBO, data, SETTINGS, prior_seed=0)
    train, test = (data.splits[key].images.reshape(-1, 432) / 255 for key in ("train", "test"))
    pca = PCA(8, whiten=True).fit(train)
    probe = LogisticRegression(max_iter=1000).fit(pca.transform(train), data.train.labels)
    accuracy = 100 * probe.score(pca.transform(test), data.test.labels)
    assert 40 < accuracy != own.values["probe_accuracy"]
    assert found.values == own.values | {"probe_accuracy_pca": pytest.approx(accuracy)}
    (file,) = tmp_path.glob("linear-*.json")
    again = measure_linear(model, spectrum, ELBO, data, SETTINGS)
    assert again.values == found.values
    assert np.array_equal(again.spectrum, found.spectrum)
    assert again.seconds == {}  # read, not measured
    file.write_text("damaged")
    assert measure_linear(model, spectrum, ELBO, data, SETTINGS).values == found.values


def test_a_collapsed_model_uses_nothing(tmp_path: Path) -> None:
    """Weights that ignore the image: no active unit, no KL, and no more than chance for the probe."""
    model, data = a_model(), dataset(tmp_path)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    found = measure(model, Averages(1.0, 1.0, 0.0), ELBO, data, SETTINGS, prior_seed=0)
    assert found.values["active_units"] == 0
    assert found.values["aggregate_kl"] == pytest.approx(0, abs=1e-9)
    assert found.spectrum == pytest.approx(0)
    assert found.values["probe_accuracy"] < 50


@pytest.mark.parametrize("scale", [0.004, 0.07, 0.5, 3.0])
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.3, 0.9999, 1.4])
def test_discretised_likelihoods_sum_to_one(scale: float, mean: float) -> None:
    """And are differences of the distribution function, scipy's, with the tails at 0 and 255."""
    x = torch.arange(256) / 255
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 255, [np.inf]])
    for reference, log_cdf in ((norm, torch.special.log_ndtr), (logistic, torch.nn.functional.logsigmoid)):
        found = bounds.log_mass(x, torch.full_like(x, mean), scale, log_cdf).double()
        assert torch.isfinite(found).all()
        assert float(found.exp().sum()) == pytest.approx(1, abs=1e-4)
        expected = np.diff(reference.cdf((edges - mean) / scale))
        near = expected > 1e-9
        np.testing.assert_allclose(found[near].exp(), expected[near], rtol=2e-3)
        assert not near.all() or float(found.min()) > math.log(1e-9)


def test_discretised_bounds_of_a_model_written_out() -> None:
    """E[-ln P(x|z)] + KL at the scale that is best on other images; of all images, and of a part of them."""
    model, images, others = a_model(), torch.from_numpy(pictures(60, 3)), torch.from_numpy(pictures(40, 4))
    terms = evaluate(model, images)
    values = bounds.elbo_bounds(terms.recon, terms.kl, 3 * 12 * 12)
    ((x, mean),) = bounds._decoded(model, images)
    ((other, other_mean),) = bounds._decoded(model, others)
    mean, other_mean = mean.detach(), other_mean.detach()
    errors = (x - mean).square().sum(1)
    drawn = bounds.elbo_bounds((x - mean).square().sum(1).mean().item(), terms.kl, 3 * 12 * 12)
    best = drawn["neg_elbo_optimal_sigma"], drawn["optimal_sigma"] ** 2
    found, of_part = (
        bounds.discretised(model, images, others, *best),
        bounds.discretised(model, images[:20], others, *best),
    )
    for name, reference in (("gaussian", norm), ("logistic", logistic)):

        def nats(scale: float, x: torch.Tensor, mean: torch.Tensor, reference=reference) -> float:
            levels, mu = np.rint(x.numpy().astype(float) * 255), mean.detach().double().numpy()
            high = np.where(levels == 255, np.inf, (levels + 0.5) / 255 - mu)
            low = np.where(levels == 0, -np.inf, (levels - 0.5) / 255 - mu)
            mass = reference.cdf(high / scale) - reference.cdf(low / scale)
            return -np.log(mass).sum(1).mean()

        scale, nat = found[f"scale_{name}"], 1 / (432 * math.log(2))
        assert found[f"bits_per_dim_{name}"] == pytest.approx(nat * (nats(scale, x, mean) + terms.kl), rel=1e-4)
        least = [nats(factor * scale, other, other_mean) for factor in (0.97, 1, 1.03)]
        assert min(least) == least[1]
        more = float(errors.mean() - errors[:20].mean()) / (2 * best[1])  # of the density, of all images
        expected = nat * (nats(scale, x[:20], mean[:20]) + more + terms.kl)
        assert of_part[f"bits_per_dim_{name}"] == pytest.approx(expected, rel=1e-4)
        assert of_part[f"scale_{name}"] == scale
    assert found["bits_per_dim_gaussian"] < values["bits_per_dim_optimal_sigma"]  # its tails are not wasted


def test_the_importance_weights_have_the_decoders_variance() -> None:
    """At a variance v the bound is that of squared errors divided by 2 v."""
    model, images = a_model(), torch.from_numpy(pictures(6, 3))
    wide, narrow = (bounds.iwae(model, images, 5, 100.0, variance) for variance in (50.0, 0.05))
    assert 0 <= wide["iwae_5_gain"] < narrow["iwae_5_gain"]
    assert wide["iwae_5_ess"] > narrow["iwae_5_ess"]


@pytest.mark.parametrize("variance", [0.1, "optimal", "learned"])
def test_metrics_do_not_depend_on_how_the_loss_is_written(variance: float | str, tmp_path: Path) -> None:
    """Of the same weights all that is no IWAE is equal; that has the constant where the loss has it."""
    data, model = dataset(tmp_path), a_model()
    test = torch.from_numpy(data.test.images)
    plain = measure(model, evaluate(model, test), ELBO, data, SETTINGS, prior_seed=0).values
    if variance == "learned":
        model.learn_variance(0.04)
    objective = Objective(variance=variance)
    averages = evaluate(model, test, objective)
    found = measure(model, averages, objective, data, SETTINGS, prior_seed=0).values
    same = {key: value for key, value in plain.items() if "iwae" not in key}
    assert {key: found[key] for key in same} == pytest.approx(same, rel=1e-4)
    (bound,) = (key for key in found if re.fullmatch(r"iwae_\d+", key))
    assert found[bound] == pytest.approx(averages.recon + averages.kl - found[f"{bound}_gain"])
    assert found[f"{bound}_gain"] > 1.1 * plain[f"{bound}_gain"]  # a narrower decoder has a wider spread of weights
    if variance == "optimal":
        assert averages.loss == pytest.approx(found["neg_elbo_optimal_sigma"], rel=1e-6)
    assert found.get("learned_sigma", 0.2) == pytest.approx(0.2)
