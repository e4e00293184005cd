"""The controls: permuted pixels, fully connected models of conv's size, with affine shortcuts, of residual blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from vae_sweep import datasets, models
from vae_sweep.datasets.permuted import pixel_order, reorder, unshuffle
from vae_sweep.models.vae import VAE
from vae_sweep.training import loop, randomness
from vae_sweep.training.evaluation import evaluate

SHAPES = {"_target_": "vae_sweep.datasets.shapes.Shapes", "name": "shapes", "n_train": 60, "n_test": 20}
SHAPES |= {"image_size": 32}
NODES = {
    "fc": {"_target_": "vae_sweep.models.fc.FCVAE", "hidden_dims": [64, 32]},
    "fc_skip": {"_target_": "vae_sweep.models.fc_skip.SkipFCVAE", "hidden_dims": [64, 32]},
    "fc_res": {"_target_": "vae_sweep.models.fc_res.ResidualFCVAE", "width": 32, "blocks": 2},
    "conv_res": {
        "_target_": "vae_sweep.models.conv_res.ResidualConvVAE",
        "channels": [8, 16],
        "width": 32,
        "blocks": 1,
    },
    "fc_dct": {"_target_": "vae_sweep.models.fc_dct.FrequencyFCVAE", "width": 32, "blocks": 2},
    "conv_dct": {
        "_target_": "vae_sweep.models.conv_dct.FrequencyConvVAE",
        "channels": [8, 16],
        "width": 32,
        "blocks": 1,
    },
    "linear": {"_target_": "vae_sweep.models.linear.LinearVAE"},
    "conv": {"_target_": "vae_sweep.models.conv.ConvVAE", "channels": [32, 64, 128]},
    "fc_matched": {"_target_": "vae_sweep.models.fc_matched.MatchedFCVAE", "channels": [32, 64, 128]},
}
SHAPE = (3, 32, 32)


def load(tmp_path: Path, **settings: object) -> datasets.ImageDataset:
    return datasets.load(datasets.create({**SHAPES, **settings}), tmp_path)


def create(name: str, latent_dim: int = 8) -> VAE:
    randomness.seed_weights(0)
    return models.create(NODES[name], SHAPE, latent_dim)


def test_one_permutation_of_whole_pixels_is_used_for_every_image(tmp_path: Path) -> None:
    plain, permuted = load(tmp_path), load(tmp_path, permute_pixels=True)
    assert permuted.digest != plain.digest
    order = pixel_order(32, 32)
    assert sorted(order) == list(range(1024))
    for key, split in permuted.splits.items():
        original = plain.splits[key]
        assert np.array_equal(split.labels, original.labels)
        pixels = original.images.reshape(len(original), 3, 1024)
        for i in (0, 517, 1023):  # position i shows pixel order[i], all three channels of it
            assert np.array_equal(split.images.reshape(len(split), 3, 1024)[..., i], pixels[..., order[i]])
        assert np.array_equal(unshuffle(split.images, permuted.facts), original.images)
    assert np.array_equal(unshuffle(plain.test.images, plain.facts), plain.test.images)
    assert load(tmp_path / "again", permute_pixels=True).digest == permuted.digest


def permute_weights(model: VAE, order: np.ndarray) -> None:
    """Permute what meets the image: inputs of the first layers, outputs of the last."""
    places = torch.from_numpy(reorder(np.arange(3072).reshape(1, *SHAPE), order).reshape(-1))
    state = model.state_dict()
    for key, tensor in state.items():
        if tensor.dim() == 2 and tensor.shape[1] == 3072:
            state[key] = tensor[:, places]
        elif tensor.shape[0] == 3072:
            state[key] = tensor[places]
    model.load_state_dict(state)


@pytest.mark.parametrize("name", ["fc", "fc_skip", "fc_res", "linear"])
def test_fully_connected_models_do_not_notice_permuted_pixels(name: str, tmp_path: Path) -> None:
    """Weights permuted along: the same loss, before training and after it."""
    plain, permuted = load(tmp_path), load(tmp_path, permute_pixels=True)
    model, other = create(name), create(name)
    permute_weights(other, pixel_order(32, 32))
    tests = [torch.from_numpy(data.test.images) for data in (plain, permuted)]
    assert evaluate(other, tests[1]).loss == pytest.approx(evaluate(model, tests[0]).loss, rel=1e-6)
    settings = {"batch_size": 18, "lr": 1e-3, "seed": 0, "max_epochs": 2, "patience": 9, "min_delta": 0.0}
    for net, data in ((model, plain), (other, permuted)):
        list(
            loop.fit(net, *(torch.from_numpy(s.images) for s in (data.train, data.val)), loop.TrainSettings(**settings))
        )
    # Sums in another order: Adam's first steps divide rounding by rounding where a gradient is nearly zero.
    assert evaluate(other, tests[1]).loss == pytest.approx(evaluate(model, tests[0]).loss, rel=1e-4)


@pytest.mark.parametrize("name", ["conv_res", "conv_dct"])
def test_convolutions_start_at_zero_beside_an_affine_path(name: str) -> None:
    """Logits begin as an affine function of z; then every part has a gradient."""
    model = create(name)
    y, z = torch.randn(2, 4, 8)
    logits = [torch.logit(model.decode(v).double()) for v in (y, z, 0.3 * y + 0.7 * z)]
    torch.testing.assert_close(logits[2], 0.3 * logits[0] + 0.7 * logits[1], rtol=1e-3, atol=1e-5)
    x = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))
    settings = {"batch_size": 3, "lr": 1e-3, "seed": 0, "max_epochs": 2, "patience": 9, "min_delta": 0.0}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images = (x * 255).to(torch.uint8)
    list(loop.fit(model, images, images, loop.TrainSettings(**settings)))
    assert not [key for key, value in model.state_dict().items() if torch.equal(value, before[key])]


def test_a_convolutional_model_is_worse_on_permuted_pixels(tmp_path: Path) -> None:
    plain, permuted = load(tmp_path, n_train=400), load(tmp_path, n_train=400, permute_pixels=True)
    losses = []
    for data in (plain, permuted):
        model = create("conv", 32)
        settings = {"batch_size": 20, "lr": 2e-3, "seed": 0, "max_epochs": 6, "patience": 9, "min_delta": 0.0}
        list(
            loop.fit(
                model, *(torch.from_numpy(s.images) for s in (data.train, data.val)), loop.TrainSettings(**settings)
            )
        )
        losses.append(evaluate(model, torch.from_numpy(data.test.images)).loss)
    assert losses[1] > 1.05 * losses[0]


@pytest.mark.parametrize("latent_dim", [128, 256])
def test_the_matched_model_has_as_many_weights_as_conv(latent_dim: int) -> None:
    counts = [sum(p.numel() for p in create(name, latent_dim).parameters()) for name in ("fc_matched", "conv")]
    assert 0.994 * counts[1] < counts[0] <= counts[1]


def test_a_model_with_shortcuts_contains_a_linear_vae() -> None:
    model = create("fc_skip")
    for layer in (model.head, model.decoder[-3]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    assert_affine(model)


def test_a_residual_model_begins_as_a_linear_vae() -> None:
    model = create("fc_res")
    assert_affine(model)
    torch.nn.init.normal_(model.encoder[2].second.weight)
    with pytest.raises(AssertionError):
        assert_affine(model)


def assert_affine(model: VAE) -> None:
    """Means are an affine function of x, and logits one of z."""
    a, b = torch.rand(2, 4, *SHAPE)
    middle = model.encode(0.3 * a + 0.7 * b)
    torch.testing.assert_close(middle.mean, 0.3 * model.encode(a).mean + 0.7 * model.encode(b).mean)
    y, z = torch.randn(2, 4, 8)
    logits = [torch.logit(model.decode(v).double()) for v in (y, z, 0.3 * y + 0.7 * z)]
    torch.testing.assert_close(logits[2], 0.3 * logits[0] + 0.7 * logits[1], rtol=1e-3, atol=1e-4)
