"""Every held-out metric of one model, and the same ones of the closed-form linear VAE beside it."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from vae_sweep.base.cache import cached
from vae_sweep.base.errors import UserError
from vae_sweep.base.timing import timed
from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.datasets import ImageDataset
from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.metrics import bounds, latents, quality
from vae_sweep.metrics.distances import MIN_IMAGES
from vae_sweep.metrics.linear import Spectrum, ppca_weights
from vae_sweep.models.linear import LinearVAE
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import BATCH, NOISE_SEED, Averages, evaluate, to_uint8

if TYPE_CHECKING:
    from vae_sweep.metrics.distances import RealFeatures
    from vae_sweep.metrics.features import Extractor

log = logging.getLogger(__name__)

PROBE_IMAGES = 10_000  # training images, at most, that probe and mixture see
OTHER_IMAGES = 2_000  # on each side of the distances that are not of prior samples, at most
SSIM_SIDE = 11  # pixels; the window of SSIM
PLACES = {"inception_weights"}  # settings that say where something is; its content is checked
PARTS = {"samples": "", "reconstructions": "_reconstructions", "midpoints": "_midpoints", "mixture": "_mixture"}


@dataclass(frozen=True)
class Settings:
    """What is measured; the section ``metrics`` of the configuration, its ``features`` decided."""

    iwae_samples: int  # posterior draws per image; 0 leaves the bound out
    iwae_images: int  # test images, at most; and at most a fifth of them
    gmm_components: int  # of the ex-post sampler; 0 leaves it out
    ssim_images: int  # test images, at most; 0 leaves it out
    features: str  # inception | efficientnet_lite0 | none
    feature_images: int  # images on each side of a distance, at most
    inception_weights: str | None

    def key(self) -> str:
        """Return the identity of what these settings and this version measure."""
        decisive = {key: value for key, value in asdict(self).items() if key not in PLACES}
        known = json.dumps([decisive, METRICS_VERSION], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class HeldOut:
    """A model's held-out metrics."""

    values: dict[str, float]  # by name, such as psnr; keys in the store have test/ before them
    spectrum: NDArray[np.float64]  # (L,) each latent's mean KL on test images, nats, largest first
    seconds: dict[str, float] = field(default_factory=dict)  # what each part took
    tags: dict[str, str] = field(default_factory=dict)  # network, hash, N, resize of the distances
    missing: tuple[str, ...] = ()  # why something that was asked for is not there, a line each
    undefined: tuple[str, ...] = ()  # metrics that these images do not define, and why, a line each


@torch.no_grad()
def measure(
    model: VAE, averages: Averages, reduction: str, dataset: ImageDataset, settings: Settings, prior_seed: int
) -> HeldOut:
    """Return the held-out metrics of ``model`` on the test images of ``dataset``.

    ``averages``: its test loss and terms under ``reduction``. ``prior_seed`` draws the prior samples. Everything else
    is drawn from fixed noise, the same for every model of one latent size. Short last batches count by their size.
    """
    model.eval()
    splits = {key: torch.from_numpy(split.images) for key, split in dataset.splits.items()}
    n_values = math.prod(dataset.image_shape)
    squared_error = averages.recon * (n_values if reduction == "mean" else 1)
    values: dict[str, float] = bounds.elbo_bounds(squared_error, averages.kl, n_values)
    seconds: dict[str, float] = {}
    undefined: list[str] = []

    with timed(seconds, "latents"):
        chosen = _some(len(splits["train"]), PROBE_IMAGES)
        train = latents.encode(model, splits["train"][chosen])
        val, test = latents.encode(model, splits["val"]), latents.encode(model, splits["test"])
        values["active_units"] = latents.active_units(test)
        values |= latents.aggregate(test)
    labels = [dataset.train.labels[chosen.numpy()], dataset.test.labels]
    if all(part.min() >= 0 for part in labels) and len(np.unique(labels[0])) > 1:
        with timed(seconds, "probe"):
            values["probe_accuracy"] = latents.probe(train.mean, labels[0], test.mean, labels[1])
    with timed(seconds, "quality"):
        values["psnr"] = quality.psnr(model, splits["test"])
        pixels = min(dataset.image_shape[1:])
        if settings.ssim_images and pixels < SSIM_SIDE:
            undefined.append(f"SSIM: its window has {SSIM_SIDE} pixels, the images {pixels}")
        elif settings.ssim_images:
            shown = _some(len(test.mean), settings.ssim_images)
            values["ssim"] = quality.ssim(model, splits["test"][shown], dataset.facts)
    mixture = None
    if settings.gmm_components and len(train.mean) < 2:
        undefined.append("gain of a mixture prior: a mixture is fitted to 2 training images or more, there is 1")
    elif settings.gmm_components:
        with timed(seconds, "mixture"):
            mixture = latents.fit_mixture(train, val, settings.gmm_components)
            values["mixture_gain"] = latents.mixture_gain(mixture, test)
            values["mixture_components"] = mixture.n_components
    if settings.iwae_samples:
        with timed(seconds, "iwae"):
            n = min(settings.iwae_images, math.ceil(len(test.mean) / 5))
            values |= bounds.iwae(model, splits["test"][_some(len(test.mean), n)], settings.iwae_samples)
    tags: dict[str, str] = {}
    missing: list[str] = []
    n_compared = min(settings.feature_images, len(splits["train"]), len(splits["test"]))
    if settings.features != "none" and n_compared < MIN_IMAGES:
        undefined.append(f"distances between image sets: they need {MIN_IMAGES} images a side, here {n_compared}")
    elif settings.features != "none":
        with timed(seconds, "distances"), _noted(missing):
            extractor = _extractor(settings.features, settings.inception_weights, str(next(model.parameters()).device))
            real = _real(extractor, dataset, settings.feature_images)
            other = _real(extractor, dataset, min(settings.feature_images, OTHER_IMAGES))
            codes = _generated_codes(model, test, mixture, len(real.features), len(other.features), prior_seed)
            for part, z in codes.items():
                side = real if part == "samples" else other
                fake = unshuffle(_decode(model, z), dataset.facts)
                values |= _named(extractor, len(side.features), side.compare(extractor(fake)), PARTS[part])
            for side in (real, other):
                values |= _named(extractor, len(side.features), side.floor, "_floor")
            tags = _described(extractor, len(real.features)) if real.floor else {}
    return HeldOut(values, latents.kl_spectrum(test), seconds, tags, tuple(missing), tuple(undefined))


def measure_reference(
    spectrum: Spectrum,
    latent_dim: int,
    beta: float,
    reduction: str,
    dataset: ImageDataset,
    settings: Settings,
    device: torch.device | None = None,
) -> HeldOut:
    """Return the same metrics of the closed-form linear VAE, and ``probe_accuracy_pca``; computed once per dataset.

    ``probe_accuracy_pca`` is the probe on as many PCA scores as there are latents, each scaled to unit variance. Kept
    beside the prepared images; of several processes that ask at once one computes and the others wait.
    """
    took: dict[str, float] = {}

    def compute() -> dict[str, Any]:
        model = linear_vae(spectrum, latent_dim, beta, reduction, dataset.image_shape).to(device or "cpu")
        test = torch.from_numpy(dataset.test.images)
        averages = evaluate(model, test, beta=beta, reduction=reduction)
        measured = measure(model, averages, reduction, dataset, settings, prior_seed=0)
        undefined = [*measured.undefined]
        if "probe_accuracy" in measured.values and not _directions(spectrum, latent_dim):
            undefined.append("probe on PCA scores: the training images do not differ")
        elif "probe_accuracy" in measured.values:
            measured.values["probe_accuracy_pca"] = _probe_pca(spectrum, latent_dim, dataset)
        took.update(measured.seconds)
        kept = {"values": measured.values, "tags": measured.tags, "missing": measured.missing, "undefined": undefined}
        return kept | {"spectrum": measured.spectrum.tolist()}

    known = [dataset.digest, latent_dim, beta, reduction, settings.key()]
    keys = ("values", "spectrum", "tags", "missing", "undefined")
    found = cached(dataset.cache_dir, "linear", known, keys, compute, lambda found: not found["missing"])
    said = tuple(found["missing"]), tuple(found["undefined"])
    return HeldOut(found["values"], np.array(found["spectrum"]), took, found["tags"], *said)


def linear_vae(
    spectrum: Spectrum, latent_dim: int, beta: float, reduction: str, image_shape: tuple[int, int, int]
) -> LinearVAE:
    """Return the linear VAE with the weights of its closed-form optimum."""
    weights = ppca_weights(spectrum, latent_dim, beta, reduction)
    names = {
        "mean.weight": "encoder_mean_weight",
        "mean.bias": "encoder_mean_bias",
        "logvar": "encoder_logvar",
        "decoder.weight": "decoder_weight",
        "decoder.bias": "decoder_bias",
    }
    model = LinearVAE(image_shape, latent_dim)
    model.load_state_dict({name: torch.from_numpy(weights[key]).float() for name, key in names.items()})
    return model.eval()


def _probe_pca(spectrum: Spectrum, latent_dim: int, dataset: ImageDataset) -> float:
    chosen = _some(len(dataset.train), PROBE_IMAGES).numpy()
    size = _directions(spectrum, latent_dim)
    scale = spectrum.eigenvectors[:, :size] / np.sqrt(spectrum.eigenvalues[:size])  # (D, k)
    scores = [
        (images.reshape(len(images), -1) / 255.0 - spectrum.mean) @ scale
        for images in (dataset.train.images[chosen], dataset.test.images)
    ]
    return latents.probe(scores[0], dataset.train.labels[chosen], scores[1], dataset.test.labels)


def _directions(spectrum: Spectrum, latent_dim: int) -> int:
    """Directions in which training images differ, by more than rounding; at most as many as there are latents."""
    return min(latent_dim, int((spectrum.eigenvalues > 1e-9).sum()))


def _generated_codes(
    model: VAE, test: latents.Codes, mixture: Any, n_samples: int, n: int, prior_seed: int
) -> dict[str, NDArray[np.float64]]:
    """Latents (n, L) of the images that are compared with the test set."""
    order = np.random.default_rng(NOISE_SEED).permutation(len(test.mean))
    means = test.mean[order]
    codes = {
        "samples": np.random.default_rng([NOISE_SEED, prior_seed]).standard_normal((n_samples, model.latent_dim)),
        "reconstructions": means[:n],
        "midpoints": (means[:n] + np.roll(means, 1, axis=0)[:n]) / 2,  # of pairs of test images
    }
    if mixture is not None:
        codes["mixture"] = latents.draw_mixture(mixture, n)
    return codes


def _decode(model: VAE, z: NDArray[np.float64]) -> NDArray[np.uint8]:
    device = next(model.parameters()).device
    batches = torch.from_numpy(z).float().split(BATCH)
    return np.concatenate([to_uint8(model.decode(batch.to(device))) for batch in batches])


def _real(extractor: Extractor, dataset: ImageDataset, n: int) -> RealFeatures:
    from vae_sweep.metrics.distances import real_features

    train, test = (unshuffle(split.images, dataset.facts) for split in (dataset.train, dataset.test))
    return real_features(extractor, train, test, n, dataset.cache_dir, dataset.digest)


@cache
def _extractor(name: str, weights: str | None, device: str) -> Extractor:
    from vae_sweep.metrics.features import load

    return load(name, weights, torch.device(device))


def _named(extractor: Extractor, n: int, found: Mapping[str, float], part: str) -> dict[str, float]:
    """The distances under names that say the network and the number of images: fd_efficientnet_lite0_96px_5k."""
    kinds = {"fd": extractor.frechet, "kd": extractor.kernel, "kd_sd": f"{extractor.kernel}_sd"}
    end = f"{extractor.label}_{n // 1000}k" if n % 1000 == 0 else f"{extractor.label}_{n}"
    return {f"{kinds.get(kind, kind)}_{end}{part}": value for kind, value in found.items()}


def _described(extractor: Extractor, n: int) -> dict[str, str]:
    return {
        "vae_sweep.features": extractor.label,
        "vae_sweep.features.sha256": extractor.sha256,
        "vae_sweep.features.resize": extractor.resize,
        "vae_sweep.features.images": str(n),
    }


def _some(n: int, most: int) -> torch.Tensor:
    """At most ``most`` of range(n), sorted, the same ones in every run."""
    return torch.from_numpy(np.sort(np.random.default_rng(NOISE_SEED).permutation(n)[:most]))


@contextmanager
def _noted(missing: list[str]) -> Iterator[None]:
    """Keep what was measured where a network cannot be had, and note why."""
    try:
        yield
    except UserError as error:
        missing.append(str(error))
