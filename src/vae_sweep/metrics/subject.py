"""The model that is measured, what is measured, and what several metrics of one model share."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.datasets import ImageDataset
from vae_sweep.metrics import latents
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import NOISE_SEED

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

TRAIN_IMAGES = 10_000  # at most, of the final training loss, the probe and the mixture: a fixed part


@dataclass(frozen=True)
class Settings:
    """What is measured: the section ``metrics`` of the configuration, with ``features`` resolved."""

    iwae_samples: int  # posterior draws per image; 0: no IWAE
    iwae_images: int  # test images, at most; and at most a fifth of them
    gmm_components: int  # of the ex-post sampler; 0: none
    ssim_images: int  # test images, at most; 0: no SSIM
    features: str  # inception | efficientnet_lite0 | none
    feature_images: int  # on each side of a distance, at most
    inception_weights: str | None
    factors: bool = False  # how well latents stand for known factors

    def key(self) -> str:
        """Return a hash of these settings and the version of the metrics: with another one, runs are measured again."""
        decisive = {key: value for key, value in asdict(self).items() if key != "inception_weights"}  # a path
        known = json.dumps([decisive, METRICS_VERSION], sort_keys=True)
        return hashlib.sha256(known.encode()).hexdigest()[:16]


class Bounds(NamedTuple):
    """What follows from a model's test loss alone."""

    values: dict[str, float]  # metrics by name
    variance: float  # of its decoder; 1/2 under reduction=mean
    neg_elbo: float  # at that variance, nats per image, with the constant where the loss has it


@dataclass
class Subject:
    """A trained model and the images that it is measured on."""

    model: VAE
    dataset: ImageDataset
    settings: Settings
    prior_seed: int  # draws the prior samples
    bounds: Bounds
    undefined: list[str] = field(default_factory=list)  # metrics that these images do not define, and why
    missing: list[str] = field(default_factory=list)  # why requested metrics are not there
    tags: dict[str, str] = field(default_factory=dict)  # about the metrics

    def images(self, split: str) -> torch.Tensor:
        """Return the images of a split, uint8 (N, C, H, W)."""
        return torch.from_numpy(self.dataset.splits[split].images)

    @cached_property
    def encoded(self) -> torch.Tensor:
        """Indices of the training images in :attr:`train`."""
        return fixed_subset(len(self.dataset.train), TRAIN_IMAGES)

    @cached_property
    def train(self) -> latents.Codes:
        """Posteriors of training images, at most :data:`TRAIN_IMAGES`."""
        return latents.encode(self.model, self.images("train")[self.encoded])

    @cached_property
    def val(self) -> latents.Codes:
        """Posteriors of the validation images."""
        return latents.encode(self.model, self.images("val"))

    @cached_property
    def test(self) -> latents.Codes:
        """Posteriors of the test images."""
        return latents.encode(self.model, self.images("test"))

    @cached_property
    def mixture(self) -> GaussianMixture | None:
        """The ex-post sampler; None where it is not requested, or there are too few images."""
        if not self.settings.gmm_components or len(self.train.mean) < 2:
            return None
        return latents.fit_mixture(self.train, self.val, self.settings.gmm_components)


def fixed_subset(n: int, most: int) -> torch.Tensor:
    """Return at most ``most`` of range(n), sorted, the same ones in every run."""
    return torch.from_numpy(np.sort(np.random.default_rng(NOISE_SEED).permutation(n)[:most]))
