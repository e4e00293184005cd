"""All held-out metrics of one model, and the same ones of the closed-form linear VAE.

A new metric is a function in the module of this folder that fits, an entry ``(Subject) -> {name: value}`` in
:data:`METRICS`, and one in :data:`vae_sweep.metrics.catalogue.ENTRIES`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vae_sweep.base.cache import cached
from vae_sweep.datasets import ImageDataset
from vae_sweep.metrics import bounds, factors, generated, latents, quality
from vae_sweep.metrics.linear import Spectrum, decoder_variance, ppca_weights
from vae_sweep.metrics.subject import TRAIN_IMAGES, Bounds, Settings, Subject, fixed_subset
from vae_sweep.models.linear import LinearVAE
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import Averages, evaluate
from vae_sweep.training.objective import Objective, best_variance

__all__ = ["HeldOut", "Settings", "linear_vae", "measure", "measure_linear"]

SSIM_SIDE = 11  # pixels; the window of SSIM
CLASSES = 1000  # that the linear probe tells apart, at most: with more it takes longer than all other metrics
DISCRETISED = 500 * 3 * 32 * 32  # values of the test images, and of the validation images, of discretised likelihoods


@dataclass(frozen=True)
class HeldOut:
    """The held-out metrics of a model."""

    values: dict[str, float]  # by name, such as psnr; the store has them as test/psnr
    spectrum: NDArray[np.float64]  # (L,) mean KL of each latent on test images, nats, largest first
    seconds: dict[str, float] = field(default_factory=dict)  # that each part took
    tags: dict[str, str] = field(default_factory=dict)  # network, hash, N, resize of the distances
    missing: tuple[str, ...] = ()  # why requested metrics are not there, a line each
    undefined: tuple[str, ...] = ()  # metrics that these images do not define, and why, a line each


@torch.no_grad()
def measure(
    model: VAE, averages: Averages, objective: Objective, dataset: ImageDataset, settings: Settings, prior_seed: int
) -> HeldOut:
    """Return the held-out metrics of ``model`` on the test images of ``dataset``.

    ``averages``: its test loss and terms under ``objective``. ``prior_seed`` draws the prior samples. All other noise
    is fixed, the same for every model of one latent size.
    """
    model.eval()
    found = _bounds(model, averages, objective)
    values, seconds = dict(found.values), {}
    subject = Subject(model, dataset, settings, prior_seed, found)
    for name, metric in METRICS.items():
        started = time.perf_counter()
        if more := metric(subject):
            values |= more
            seconds[name] = time.perf_counter() - started
    spectrum = latents.kl_spectrum(subject.test)
    return HeldOut(values, spectrum, seconds, subject.tags, tuple(subject.missing), tuple(subject.undefined))


def _bounds(model: VAE, averages: Averages, objective: Objective) -> Bounds:
    n_values, learned = math.prod(model.image_shape), None
    if objective.variance == "learned" and model.decoder_log_variance is not None:
        learned = best_variance(0.0, n_values, float(model.decoder_log_variance.exp()))
    squared_error = objective.squared_error(averages.recon, n_values, learned)
    values = bounds.elbo_bounds(squared_error, averages.kl, n_values)
    if learned is not None:
        values["learned_sigma"] = math.sqrt(learned)
    own = learned or objective.given_variance or values["optimal_sigma"] ** 2
    neg_elbo = values["neg_elbo"] if objective.reduction == "mean" else averages.recon + averages.kl
    return Bounds(values, own, neg_elbo)


def _latents(subject: Subject) -> dict[str, float]:
    _ = subject.train, subject.val  # encoded here, so that the time counts here
    return {"active_units": latents.active_units(subject.test), **latents.aggregate(subject.test)}


def _probe(subject: Subject) -> dict[str, float]:
    train, test = subject.dataset.train.labels[subject.encoded.numpy()], subject.dataset.test.labels
    n_classes = len(np.unique(train))
    if max(train.max(), test.max()) < 0:
        return {}  # without labels
    if min(train.min(), test.min()) < 0 or not 2 <= n_classes <= CLASSES:
        some = min(train.min(), test.min()) < 0
        why = "images without a class" if some else f"{n_classes:,} classes, and it takes 2 to {CLASSES:,}"
        subject.undefined.append(f"linear probe: {why}")
        return {}
    return {"probe_accuracy": latents.probe(subject.train.mean, train, subject.test.mean, test)}


def _quality(subject: Subject) -> dict[str, float]:
    images, most = subject.images("test"), subject.settings.ssim_images
    values = {"psnr": quality.psnr(subject.model, images)}
    pixels = min(subject.dataset.image_shape[1:])
    if most and pixels < SSIM_SIDE:
        subject.undefined.append(f"SSIM: its window has {SSIM_SIDE} pixels, the images {pixels}")
    elif most:
        chosen = fixed_subset(len(images), most)
        values["ssim"] = quality.ssim(subject.model, images[chosen], subject.dataset.facts)
    return values


def _mixture(subject: Subject) -> dict[str, float]:
    if subject.settings.gmm_components and len(subject.train.mean) < 2:
        subject.undefined.append("gain of a mixture prior: a mixture needs at least 2 training images, and there is 1")
    if subject.mixture is None:
        return {}
    gain = latents.mixture_gain(subject.mixture, subject.test)
    return {"mixture_gain": gain, "mixture_components": subject.mixture.n_components}


def _iwae(subject: Subject) -> dict[str, float]:
    if not subject.settings.iwae_samples:
        return {}
    images = subject.images("test")
    chosen = fixed_subset(len(images), min(subject.settings.iwae_images, math.ceil(len(images) / 5)))
    k = subject.settings.iwae_samples
    return bounds.iwae(subject.model, images[chosen], k, subject.bounds.neg_elbo, subject.bounds.variance)


def _discretised(subject: Subject) -> dict[str, float]:
    test, val = subject.images("test"), subject.images("val")
    most = max(1, DISCRETISED // math.prod(subject.dataset.image_shape))
    parts = test[fixed_subset(len(test), most)], val[fixed_subset(len(val), most)]
    known = subject.bounds.values
    best = known["neg_elbo_optimal_sigma"], known["optimal_sigma"] ** 2
    return bounds.discretised(subject.model, *parts, *best)


def _factors(subject: Subject) -> dict[str, float]:
    known = subject.dataset.factors
    if not subject.settings.factors:
        return {}
    if known is None:
        subject.undefined.append("MIG, SAP and DCI: the factors of these images are not known")
        return {}
    train, test = known("train"), known("test")
    sizes = [
        (len(values), len(data))
        for of, data in ((train, subject.dataset.train), (test, subject.dataset.test))
        for values in of.values()
    ]
    if not sizes or any(n != images for n, images in sizes):
        subject.undefined.append(f"MIG, SAP and DCI: known_factors gives {sizes} values for so many images")
        return {}
    chosen = subject.encoded.numpy()
    train = {name: values[chosen] for name, values in train.items()}
    of = subject.train.mean, train, subject.test.mean, test
    return {"mig": factors.mig(*of[2:]), "sap": factors.sap(*of), **factors.dci(*of)}


METRICS: dict[str, Callable[[Subject], dict[str, float]]] = {  # each may return {}: not requested, or not defined
    "latents": _latents,
    "probe": _probe,
    "quality": _quality,
    "mixture": _mixture,
    "iwae": _iwae,
    "discretised": _discretised,
    "factors": _factors,
    "distances": generated.distances,
}


def measure_linear(
    model: LinearVAE, spectrum: Spectrum, objective: Objective, dataset: ImageDataset, settings: Settings
) -> HeldOut:
    """Return the held-out metrics of the closed-form linear VAE, and ``probe_accuracy_pca``.

    ``model``: :func:`linear_vae` of the same spectrum and loss. ``probe_accuracy_pca`` is the probe on as many PCA
    scores as there are latents, each scaled to unit variance. Computed once per dataset, loss and settings, and kept
    beside the prepared images.
    """
    seconds: dict[str, float] = {}

    def compute() -> dict[str, Any]:
        averages = evaluate(model, torch.from_numpy(dataset.test.images), objective)
        found = measure(model, averages, objective, dataset, settings, prior_seed=0)
        undefined = [*found.undefined]
        if "probe_accuracy" in found.values and not _n_directions(spectrum, model.latent_dim):
            undefined.append("probe on PCA scores: the training images do not differ")
        elif "probe_accuracy" in found.values:
            found.values["probe_accuracy_pca"] = _probe_pca(spectrum, model.latent_dim, dataset)
        seconds.update(found.seconds)
        kept = {"values": found.values, "tags": found.tags, "missing": found.missing, "undefined": undefined}
        return kept | {"spectrum": found.spectrum.tolist()}

    known = [dataset.digest, model.latent_dim, *astuple(objective), settings.key()]
    keys = ("values", "spectrum", "tags", "missing", "undefined")
    kept = cached(dataset.cache_dir, "linear", known, keys, compute, lambda found: not found["missing"])
    reasons = tuple(kept["missing"]), tuple(kept["undefined"])
    return HeldOut(kept["values"], np.array(kept["spectrum"]), seconds, kept["tags"], *reasons)


def linear_vae(
    spectrum: Spectrum, latent_dim: int, objective: Objective, image_shape: tuple[int, int, int]
) -> LinearVAE:
    """Return the linear VAE with the weights of its closed-form optimum."""
    weights = ppca_weights(spectrum, latent_dim, objective)
    names = {
        "mean.weight": "encoder_mean_weight",
        "mean.bias": "encoder_mean_bias",
        "logvar": "encoder_logvar",
        "decoder.weight": "decoder_weight",
        "decoder.bias": "decoder_bias",
    }
    model = LinearVAE(image_shape, latent_dim)
    model.load_state_dict({name: torch.from_numpy(weights[key]).float() for name, key in names.items()})
    if objective.variance == "learned":
        model.learn_variance(decoder_variance(spectrum, latent_dim, objective))
    return model.eval()


def _probe_pca(spectrum: Spectrum, latent_dim: int, dataset: ImageDataset) -> float:
    chosen = fixed_subset(len(dataset.train), TRAIN_IMAGES).numpy()
    size = _n_directions(spectrum, latent_dim)
    scale = spectrum.eigenvectors[:, :size] / np.sqrt(spectrum.eigenvalues[:size])  # (D, k)

    def scores(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(N, k), of so many images at a time that their pixels in float64 fit into memory."""
        parts = (images[i : i + TRAIN_IMAGES] for i in range(0, len(images), TRAIN_IMAGES))
        return np.concatenate([(part.reshape(len(part), -1) / 255.0 - spectrum.mean) @ scale for part in parts])

    train, test = dataset.train, dataset.test
    return latents.probe(scores(train.images[chosen]), train.labels[chosen], scores(test.images), test.labels)


def _n_directions(spectrum: Spectrum, latent_dim: int) -> int:
    """Directions in which training images differ by more than rounding, at most ``latent_dim``."""
    return min(latent_dim, int((spectrum.eigenvalues > 1e-9).sum()))
