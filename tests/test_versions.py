"""Numbers of tiny runs, as they were when the version was last raised: they say when it must be raised again."""

from __future__ import annotations

import pytest
import torch

from vae_sweep import models
from vae_sweep.base.versions import METRICS_VERSION, TRAINING_VERSION
from vae_sweep.datasets.base import ImageDataset
from vae_sweep.datasets.cache import load
from vae_sweep.datasets.shapes import Shapes
from vae_sweep.metrics import linear
from vae_sweep.metrics.measure import Settings, linear_vae, measure_linear
from vae_sweep.training import loop, randomness
from vae_sweep.training.objective import ELBO

NODES = {
    "fc": {"_target_": "vae_sweep.models.fc.FCVAE", "hidden_dims": [32, 16]},
    "conv": {"_target_": "vae_sweep.models.conv.ConvVAE", "channels": [8, 16]},
    "linear": {"_target_": "vae_sweep.models.linear.LinearVAE"},
    "fc_matched": {"_target_": "vae_sweep.models.fc_matched.MatchedFCVAE", "channels": [8, 16]},
    "fc_skip": {"_target_": "vae_sweep.models.fc_skip.SkipFCVAE", "hidden_dims": [32, 16]},
    "fc_res": {"_target_": "vae_sweep.models.fc_res.ResidualFCVAE", "width": 16, "blocks": 1},
    "conv_res": {"_target_": "vae_sweep.models.conv_res.ResidualConvVAE", "channels": [8], "width": 16, "blocks": 1},
    "fc_dct": {"_target_": "vae_sweep.models.fc_dct.FrequencyFCVAE", "width": 16, "blocks": 1},
    "conv_dct": {"_target_": "vae_sweep.models.conv_dct.FrequencyConvVAE", "channels": [8], "width": 16, "blocks": 1},
}
# Version -> training and validation loss after two epochs, nats/image. Add a line when the version is raised.
TRAINED = {
    1: {
        "fc": (88.1121, 88.455),
        "conv": (89.0688, 88.9058),
        "linear": (535.9232, 529.2054),
        "fc_matched": (93.0984, 93.6386),
        "fc_skip": (96.2364, 96.5501),
        "fc_res": (90.2773, 89.1365),
        "conv_res": (88.656, 84.9258),
        "fc_dct": (80.5448, 92.4517),
        "conv_dct": (67.815, 58.9178),
    }
}
# Version -> metrics of the closed-form linear VAE with 4 latents. Add a line when the version is raised.
MEASURED = {
    2: {
        "neg_elbo": 30.853278,
        "neg_elbo_with_constant": 470.429554,
        "bits_per_dim": 8.883706,
        "optimal_sigma": 0.185634,
        "neg_elbo_optimal_sigma": -199.160733,
        "bits_per_dim_optimal_sigma": 7.625875,
        "active_units": 4,
        "aggregate_mean_norm": 0.154555,
        "aggregate_variance": 0.945429,
        "aggregate_kl": 0.054634,
        "probe_accuracy": 20.0,
        "probe_accuracy_pca": 20.0,
        "psnr": 14.915562,
        "ssim": 0.296578,
        "mixture_gain": 0.075026,
        "mixture_components": 2,
        "iwae_10": 30.853278,
        "iwae_10_se": 0.0,
        "iwae_10_gain": 0.0,
        "iwae_10_ess": 10.0,
    }
}
MEASURED[3] = MEASURED[2] | {
    "squared_error": 26.465398,
    "bits_per_dim_gaussian": 7.488592,
    "scale_gaussian": 0.186729,
    "bits_per_dim_logistic": 7.375312,
    "scale_logistic": 0.094311,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return load(Shapes(n_train=300, n_test=100, image_size=16), tmp_path_factory.mktemp("cache"))


def trained(name: str, data: ImageDataset) -> tuple[float, float]:
    randomness.seed_weights(0)
    model = models.create(NODES[name], data.image_shape, 4)
    images = [torch.from_numpy(split.images) for split in (data.train, data.val)]
    options = {"batch_size": 32, "lr": 1e-3, "seed": 0, "max_epochs": 2, "patience": 5, "min_delta": 0.5}
    *_, last = loop.fit(model, *images, loop.TrainSettings(**options))
    return last.train.loss, last.val.loss


def measured(data: ImageDataset) -> dict[str, float]:
    settings = Settings(10, 20, 2, 50, "none", 50, None)
    spectrum = linear.spectrum(data.train.images)
    model = linear_vae(spectrum, 4, ELBO, data.image_shape)
    return measure_linear(model, spectrum, ELBO, data, settings).values


@pytest.mark.parametrize("name", NODES)
def test_training_gives_the_numbers_of_its_version(name: str, data: ImageDataset) -> None:
    assert trained(name, data) == pytest.approx(TRAINED.get(TRAINING_VERSION, {}).get(name), rel=1e-3), (
        "training gives other numbers than before: raise TRAINING_VERSION, so that stored runs are not "
        "taken for runs of this code, add the new numbers here, and say it in CHANGELOG.md"
    )


def test_measuring_gives_the_numbers_of_its_version(data: ImageDataset) -> None:
    assert measured(data) == pytest.approx(MEASURED.get(METRICS_VERSION, {}), rel=1e-3, abs=1e-3), (
        "the metrics give other numbers than before: raise METRICS_VERSION, so that finished runs are "
        "measured again and caches made anew, add the new numbers here, and say it in CHANGELOG.md"
    )
