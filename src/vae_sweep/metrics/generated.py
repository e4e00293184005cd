"""Distances between generated images and test images: prior and mixture samples, reconstructions, midpoints."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from vae_sweep.base.errors import UserError
from vae_sweep.datasets import ImageDataset
from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.metrics import latents
from vae_sweep.metrics.distances import MIN_IMAGES, RealFeatures, real_features
from vae_sweep.metrics.features import Extractor, load
from vae_sweep.metrics.subject import Subject
from vae_sweep.models.vae import VAE
from vae_sweep.tracking.names import FEATURES
from vae_sweep.training.evaluation import BATCH, NOISE_SEED, to_uint8

OTHER_IMAGES = 2_000  # on each side of the distances that are not of prior samples, at most
SUFFIX = {"samples": "", "reconstructions": "_reconstructions", "midpoints": "_midpoints", "mixture": "_mixture"}


def distances(subject: Subject) -> dict[str, float]:
    """Return all distances under names with network and number of images: fd_efficientnet_lite0_96px_5k.

    ``..._floor`` are those of training images. Empty without a network, or with too few images.
    """
    settings, dataset = subject.settings, subject.dataset
    if settings.features == "none":
        return {}
    n = min(settings.feature_images, len(dataset.train), len(dataset.test))
    if n < MIN_IMAGES:
        subject.undefined.append(f"distances between image sets: they need {MIN_IMAGES} images on each side, not {n}")
        return {}
    device = next(subject.model.parameters()).device
    try:
        extractor = _extractor(settings.features, settings.inception_weights, str(device))
    except UserError as error:
        subject.missing.append(str(error))
        return {}
    real = _real(extractor, dataset, settings.feature_images)
    other = _real(extractor, dataset, min(settings.feature_images, OTHER_IMAGES))
    values: dict[str, float] = {}
    for part, z in _codes(subject, len(real.features), len(other.features)).items():
        side = real if part == "samples" else other
        fake = extractor(unshuffle(_decode(subject.model, z), dataset.facts))
        values |= _named(extractor, len(side.features), side.compare(fake), SUFFIX[part])
    for side in (real, other):
        values |= _named(extractor, len(side.features), side.floor, "_floor")
    if real.floor:
        subject.tags |= _tags(extractor, len(real.features))
    return values


def _codes(subject: Subject, n_samples: int, n: int) -> dict[str, NDArray[np.float64]]:
    """Latents of the generated images, by part: (n_samples, L) of prior samples, (n, L) of the others."""
    order = np.random.default_rng(NOISE_SEED).permutation(len(subject.test.mean))
    means = subject.test.mean[order]
    size = n_samples, subject.model.latent_dim
    codes = {
        "samples": np.random.default_rng([NOISE_SEED, subject.prior_seed]).standard_normal(size),
        "reconstructions": means[:n],
        "midpoints": (means[:n] + np.roll(means, 1, axis=0)[:n]) / 2,  # of pairs of test images
    }
    if subject.mixture is not None:
        codes["mixture"] = latents.draw_mixture(subject.mixture, n)
    return codes


def _decode(model: VAE, z: NDArray[np.float64]) -> NDArray[np.uint8]:
    device = next(model.parameters()).device
    batches = torch.from_numpy(z).float().split(BATCH)
    return np.concatenate([to_uint8(model.decode(batch.to(device))) for batch in batches])


def _real(extractor: Extractor, dataset: ImageDataset, n: int) -> RealFeatures:
    train, test = (unshuffle(split.images, dataset.facts) for split in (dataset.train, dataset.test))
    return real_features(extractor, train, test, n, dataset.cache_dir, dataset.digest)


@cache
def _extractor(name: str, weights: str | None, device: str) -> Extractor:
    return load(name, weights, torch.device(device))


def _named(extractor: Extractor, n: int, found: Mapping[str, float], suffix: str) -> dict[str, float]:
    kinds = {"fd": extractor.frechet, "kd": extractor.kernel, "kd_sd": f"{extractor.kernel}_sd"}
    end = f"{extractor.label}_{n // 1000}k" if n % 1000 == 0 else f"{extractor.label}_{n}"
    return {f"{kinds.get(kind, kind)}_{end}{suffix}": value for kind, value in found.items()}


def _tags(extractor: Extractor, n: int) -> dict[str, str]:
    return {
        FEATURES: extractor.label,
        f"{FEATURES}.sha256": extractor.sha256,
        f"{FEATURES}.resize": extractor.resize,
        f"{FEATURES}.images": str(n),
    }
