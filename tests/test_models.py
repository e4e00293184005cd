"""Architectures: shapes, sizes, gradients, and the linear one against its closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from omegaconf import DictConfig, OmegaConf

from vae_sweep import models
from vae_sweep.base.errors import UserError
from vae_sweep.metrics import linear
from vae_sweep.metrics.measure import linear_vae
from vae_sweep.models.fc_dct import Frequencies
from vae_sweep.models.fc_matched import fc_weights
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.sweeps.preparation import check_model
from vae_sweep.training import loop, randomness
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.objective import Objective

NODES = {
    "fc": {"_target_": "vae_sweep.models.fc.FCVAE", "name": "fc", "hidden_dims": [512, 256]},
    "conv": {"_target_": "vae_sweep.models.conv.ConvVAE", "name": "conv", "channels": [32, 64, 128]},
    "linear": {"_target_": "vae_sweep.models.linear.LinearVAE", "name": "linear"},
    "fc_skip": {"_target_": "vae_sweep.models.fc_skip.SkipFCVAE", "name": "fc_skip", "hidden_dims": [64]},
    "fc_matched": {"_target_": "vae_sweep.models.fc_matched.MatchedFCVAE", "name": "fc_matched", "channels": [8, 16]},
    "fc_res": {"_target_": "vae_sweep.models.fc_res.ResidualFCVAE", "name": "fc_res", "width": 32, "blocks": 2},
    "conv_res": {
        "_target_": "vae_sweep.models.conv_res.ResidualConvVAE",
        "name": "conv_res",
        **{"channels": [8, 16], "width": 32, "blocks": 2},
    },
    "fc_dct": {"_target_": "vae_sweep.models.fc_dct.FrequencyFCVAE", "name": "fc_dct", "width": 32, "blocks": 2},
    "conv_dct": {
        "_target_": "vae_sweep.models.conv_dct.FrequencyConvVAE",
        "name": "conv_dct",
        **{"channels": [8, 16], "width": 32, "blocks": 2},
    },
}
SHAPE = (3, 32, 32)


class OwnVAE(VAE):
    """A user's architecture, named by its path alone."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.width = width


@pytest.mark.parametrize("name", NODES)
def test_shapes(name: str) -> None:
    model = models.create(NODES[name], SHAPE, 16)
    x = torch.rand(5, *SHAPE)
    reconstruction, posterior = model(x, torch.randn(5, 16))
    assert reconstruction.shape == x.shape
    assert posterior.mean.shape == posterior.logvar.shape == (5, 16)
    assert model.sample(3).shape == (3, *SHAPE)
    assert model.reconstruct(x).shape == x.shape
    if name != "linear":
        assert torch.equal(reconstruction, reconstruction.clamp(0, 1))


@pytest.mark.parametrize(
    ("name", "latent_dim", "expected"),
    [
        # Weights and biases by hand, layer by layer.
        ("fc", 128, (3072 + 1) * 512 + 513 * 256 + 257 * 256 + 129 * 256 + 257 * 512 + 513 * 3072),
        (
            "conv",
            128,
            (3 * 16 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 16 + 1) * 128 + 2049 * 256
            + 129 * 2048 + (128 * 16) * 64 + 64 + (64 * 16) * 32 + 32 + (32 * 16) * 3 + 3,
        ),
        ("linear", 128, 3073 * 128 + 128 + 129 * 3072),
    ],
)  # fmt: skip
def test_parameter_counts(name: str, latent_dim: int, expected: int) -> None:
    model = models.create(NODES[name], SHAPE, latent_dim)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 16, 24), (1, 16, 16)])
def test_frequencies_are_those_of_scipy(shape: tuple[int, int, int]) -> None:
    """Of brightness, scaled by hand; the inverse gives the image back."""
    frequencies, x = Frequencies(shape), torch.rand(4, *shape, generator=torch.Generator().manual_seed(0))
    found = frequencies(x)
    brightness = x.numpy().sum(1) / math.sqrt(shape[0])
    expected = scipy.fft.dctn(brightness, axes=(1, 2), norm="ortho")
    side = math.sqrt(shape[1] * shape[2])
    assert found[:, 0, 0, 0].numpy() == pytest.approx(expected[:, 0, 0] * 4 / side, rel=1e-5)
    assert found[:, 0, 3, 4].numpy() == pytest.approx(expected[:, 3, 4] * 4 / side * 6**1.5, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(frequencies.inverse(found), x)


@pytest.mark.parametrize(("name", "plain"), [("fc_dct", "fc_res"), ("conv_dct", "conv_res")])
def test_frequencies_change_weights_and_no_function(name: str, plain: str) -> None:
    """With the transformed weights in its place the plain model gives the same posteriors and images."""
    model, other = (models.create(NODES[key], SHAPE, 8) for key in (name, plain))
    other.load_state_dict(model.state_dict())
    inward, outward = (
        (other.encoder[1], other.decoder[-3]) if name == "fc_dct" else (other.encoder_shortcut, other.decoder_shortcut)
    )
    frequencies = model.frequencies
    with torch.no_grad():
        weight = inward.weight.unflatten(1, SHAPE) / frequencies.scale
        inward.weight.copy_(frequencies.inverse(weight / frequencies.scale).flatten(1))
        outward.weight.copy_(4 * frequencies.inverse(outward.weight.T.unflatten(1, SHAPE)).flatten(1).T)
        outward.bias.copy_(4 * frequencies.inverse(outward.bias.view(1, *SHAPE)).flatten())
        x, z = torch.rand(5, *SHAPE), torch.randn(5, 8)
        torch.testing.assert_close(other.encode(x).mean, model.encode(x).mean, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other.decode(z), model.decode(z), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.decode(z), model.eval().decode(z), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("latent_dim", [2, 128])
def test_the_matched_model_is_the_widest_that_has_no_more_weights(latent_dim: int) -> None:
    def count(model: VAE) -> int:
        return sum(p.numel() for p in model.parameters())

    matched = models.create(NODES["fc_matched"] | {"channels": [32, 64, 128]}, SHAPE, latent_dim)
    conv = models.create(NODES["conv"], SHAPE, latent_dim)
    width = matched.encoder[1].out_features
    wider = models.create(NODES["fc"] | {"hidden_dims": [width + 1, (width + 1) // 2]}, SHAPE, latent_dim)
    assert fc_weights(SHAPE, latent_dim, width) == count(matched) <= count(conv) < count(wider)


@pytest.mark.parametrize("name", ["fc", "conv", "linear"])
def test_gradient_flows_through_reparameterization(name: str) -> None:
    """Every weight of encoder and decoder gets a gradient from the reconstruction alone, none from KL."""
    model = models.create(NODES[name], SHAPE, 8)
    reconstruction, _ = model(torch.rand(4, *SHAPE), torch.randn(4, 8))
    reconstruction.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


def test_rsample_is_the_reparameterization() -> None:
    """z = mean + sigma noise: dz/dmean = 1 and dz/dlogvar = sigma noise / 2."""
    mean = torch.tensor([[1.0, -2.0]], requires_grad=True)
    logvar = torch.tensor([[0.0, math.log(4.0)]], requires_grad=True)
    z = Posterior(mean, logvar).rsample(torch.tensor([[0.5, -1.0]]))
    torch.testing.assert_close(z, torch.tensor([[1.5, -4.0]]))
    z.sum().backward()
    torch.testing.assert_close(mean.grad, torch.ones(1, 2))
    torch.testing.assert_close(logvar.grad, torch.tensor([[0.25, -1.0]]))


def gaussian_images(n: int, seed: int) -> np.ndarray:
    """uint8 images of 3x4x4 values with a few strong directions, inside [0, 255] without clipping to speak of."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(99).standard_normal((48, 6)))[0]
    values = rng.standard_normal((n, 6)) * [1.6, 1.3, 1.1, 0.9, 0.4, 0.2] @ basis.T
    return np.clip(np.rint(127.5 + 50 * values), 0, 255).astype(np.uint8).reshape(n, 3, 4, 4)


@pytest.mark.parametrize(("beta", "reduction"), [(1.0, "sum"), (0.05, "sum"), (0.002, "mean")])
def test_ppca_weights_in_the_linear_model_give_the_closed_form(beta: float, reduction: str) -> None:
    train, test = gaussian_images(3000, 0), gaussian_images(2000, 1)
    spectrum = linear.spectrum(train)
    objective = Objective(beta / 10, reduction)  # the images vary little: a small variance keeps directions in use
    expected = linear.linear_loss(spectrum, test, 8, objective)
    assert expected.active >= 1
    model = linear_vae(spectrum, 8, objective, (3, 4, 4))
    found = evaluate(model, torch.from_numpy(test), objective, noise_draws=40)
    assert found.kl == pytest.approx(expected.kl, rel=1e-5)  # analytic, no noise in it
    assert found.recon == pytest.approx(expected.recon, rel=1e-2)  # four standard errors of 80,000 draws
    assert found.loss == pytest.approx(expected.loss, rel=5e-3)


@pytest.mark.parametrize("objective", [Objective(0.01), Objective(variance="optimal")])
def test_a_trained_linear_vae_approaches_the_closed_form(objective: Objective) -> None:
    train = gaussian_images(2000, 0)
    spectrum = linear.spectrum(train)
    optimum = linear.linear_optimum(spectrum, 4, objective)
    mean_image = objective.recon(spectrum.total_variance, 48)  # the loss of a model that uses no latent
    assert optimum.active >= 3
    randomness.seed_weights(0)
    model = models.create(NODES["linear"], (3, 4, 4), 4)
    images = torch.from_numpy(train)
    for batch_size, lr in ((50, 1e-2), (50, 3e-3), (100, 1e-3), (250, 5e-4)):
        settings = {"batch_size": batch_size, "lr": lr, "seed": 0, "max_epochs": 80, "patience": 99}
        list(loop.fit(model, images, images, loop.TrainSettings(objective=objective, min_delta=0.0, **settings)))
    found = evaluate(model, images, objective, noise_draws=100)
    gain = mean_image - optimum.loss
    assert -0.002 * gain < found.loss - optimum.loss < 0.005 * gain  # below it: Monte Carlo only


def test_a_users_own_architecture_needs_only_its_path() -> None:
    model = models.create({"_target_": f"{__name__}.OwnVAE", "name": "own", "width": 3}, SHAPE, 2)
    assert isinstance(model, OwnVAE)
    assert model.width == 3


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "os.system", "command": "false"}, r"model\._target_='os\.system': must be a subclass of"),
        ({"_target_": "vae_sweep.models.fc.Nothing"}, r"cannot be imported"),
        ({"_target_": "no_such_module.VAE"}, r"cannot be imported"),
        ({"_target_": "vae_sweep.models.fc.FCVAE", "widths": [1]}, r"does not fit its configuration"),
        (NODES["conv"] | {"channels": [8] * 6}, r"multiples of 64; the images are 32x32"),
        (
            NODES["conv"] | {"channels": [8, 0]},
            r"^model\.channels=\[8, 0\]: must be a list of 1 to 100 widths from 1 to",
        ),
        (NODES["fc"] | {"hidden_dims": []}, r"^model\.hidden_dims=\[\]: must be a list of 1 to 100 widths"),
        (NODES["fc"] | {"hidden_dims": [64.0]}, r"^model\.hidden_dims=\[64\.0\]: must be a list"),
        (NODES["fc"] | {"hidden_dims": 64}, r"^model\.hidden_dims=64: must be a list"),
        (
            NODES["fc_skip"] | {"hidden_dims": [1] * 101},
            r"^model\.hidden_dims=\[1, .*\.\.\.: must be a list of 1 to 100",
        ),
        (NODES["fc_res"] | {"blocks": 0}, r"^model\.blocks=0: must be a whole number from 1 to 100$"),
        (NODES["fc_res"] | {"width": 10**7}, r"^model\.width=10000000: must be a whole number from 1 to 1,000,000$"),
        (NODES["conv_res"] | {"blocks": True}, r"^model\.blocks=True: must be a whole number"),
        (NODES["conv_res"] | {"width": -1}, r"^model\.width=-1: must be a whole number"),
        (NODES["fc_matched"] | {"channels": [10**6] * 2}, r"^model\.channels=.* give fewer channels$"),
    ],
)
def test_what_cannot_be_built_is_refused(node: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        models.create(node, SHAPE, 4)


class NoShape(VAE):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()  # type: ignore[call-arg]


class Own(VAE):
    """What people write first."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int = 3) -> None:
        super().__init__(image_shape, latent_dim)
        self.layer = torch.nn.Linear(12, 2 * latent_dim)
        self.back = torch.nn.Linear(latent_dim, 12)

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(*self.layer(x.flatten(1)).chunk(2, 1))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.back(z).unflatten(1, self.image_shape)


class TakesAll(Own):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int, **more: Any) -> None:
        super().__init__(image_shape, latent_dim)


class Tuple(Own):
    def encode(self, x: torch.Tensor) -> Posterior:
        return self.layer(x.flatten(1)).chunk(2, 1)  # type: ignore[return-value]


class Flat(Own):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.back(z)


class Whole(Own):
    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(self.layer(x.flatten(1)), self.layer(x.flatten(1)))


class NoLayer(Own):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.no_such_layer(z)


class Asks(Own):
    """Looks at the numbers, so it cannot run without."""

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z) if bool(z.sum() == 0) else self.back(z)


def configured(model_class: type[VAE], **more: Any) -> DictConfig:
    node = {"_target_": f"test_models.{model_class.__name__}", "name": "own", **more}
    return OmegaConf.create({"model": node, "params": {"latent_dim": 5, "batch_size": 4}})


@pytest.mark.parametrize(
    ("model_class", "more", "message"),
    [
        (NoShape, {}, r"^model: test_models\.NoShape\.__init__ failed \(TypeError: .*image_shape.*HYDRA_FULL_ERROR=1"),
        (TakesAll, {"depth": 3}, r"^model: test_models\.TakesAll does not .*missing a required argument: 'width'\)"),
        (Own, {"widht": 3}, r"^model: test_models\.Own does not .*no argument widht\); its arguments: width$"),
        (
            Tuple,
            {},
            r"^test_models\.Tuple\.encode gives a tuple; .*import Posterior; return Posterior\(mean, logvar\)$",
        ),
        (Flat, {}, r"^test_models\.Flat\.decode gives \(2, 12\) for 2 images; must be a tensor \(2, 3, 2, 2\)$"),
        (Whole, {}, r"^test_models\.Whole\.encode gives a mean \(2, 10\) for 2 images; must be a tensor \(2, 5\)$"),
        (
            NoLayer,
            {},
            r"^model=own: test_models\.NoLayer fails on two images \(AttributeError: .*'no_such_layer'.*FULL",
        ),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_said_before_the_first_run(
    model_class: type[VAE], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_model(configured(model_class, **more), (3, 2, 2))


@pytest.mark.parametrize("model_class", [Own, Asks])
def test_a_class_of_ones_own_that_works_is_accepted(model_class: type[VAE]) -> None:
    check_model(configured(model_class, width=4), (3, 2, 2))


@pytest.mark.parametrize(
    ("target", "more", "products"),
    [
        ("fc.FCVAE", {"hidden_dims": [8]}, 48 * 8 + 8 * 10 + 5 * 8 + 8 * 48),
        # kernels of 4x4 at 2x2 places, and the layers to and from 2 * 5 and 5 latents
        ("conv.ConvVAE", {"channels": [8]}, 3 * 8 * 16 * 4 + 32 * 10 + 5 * 32 + 8 * 3 * 16 * 4),
    ],
)
def test_an_update_costs_three_passes_of_two_operations_for_each_product(
    target: str, more: dict[str, Any], products: int
) -> None:
    config = configured(Own)
    config.model = {"_target_": f"vae_sweep.models.{target}", "name": "counted", **more}
    assert check_model(config, (3, 4, 4)) == 3 * 2 * products
