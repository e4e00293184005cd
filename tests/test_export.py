"""``export``: what other programs read gives the images of the trained model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vae_sweep as vs
from vae_sweep import export, models
from vae_sweep.models import VAE, Posterior
from vae_sweep.models.linear import LinearVAE
from vae_sweep.training import checkpoint

NODES = {
    "fc": {"_target_": "vae_sweep.models.fc.FCVAE", "hidden_dims": [16]},
    "conv": {"_target_": "vae_sweep.models.conv.ConvVAE", "channels": [4, 8]},
    "conv_res": {
        "_target_": "vae_sweep.models.conv_res.ResidualConvVAE",
        "channels": [4, 8],
        "width": 16,
        "blocks": 1,
    },
    "fc_dct": {"_target_": "vae_sweep.models.fc_dct.FrequencyFCVAE", "width": 16, "blocks": 1},
    "linear": {"_target_": "vae_sweep.models.linear.LinearVAE"},
}
TEST = {"loss": 12.5, "recon": 10.0, "kl": 2.5}


def saved(root: Path, name: str) -> VAE:
    torch.manual_seed(0)
    node = {"name": name, **NODES[name]}
    model = models.create(node, (3, 8, 8), 5).eval()
    config = {"model": node, "dataset": {"name": "shapes"}, "seed": 3, "objective": {"beta": 1.0}}
    config["params"] = {"name": "p1", "lr": 0.001}
    checkpoint.save(root / "checkpoint.pt", model, config, {"name": f"{name}-p1", "test": TEST})
    return model


def written(root: Path, kind: str, **options) -> Path:
    files, difference = export.export(export.Options("checkpoint.pt", kind, **options), root)
    assert difference <= export.TOLERANCE
    assert all(file.is_file() for file in files)
    return files[0].parent


@pytest.mark.parametrize("name", NODES)
def test_onnx_runtime_gives_the_same_images(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="pip install 'vae-sweep[export]'")
    model, folder = saved(tmp_path, name), written(tmp_path, "onnx")
    z, x = torch.randn(7, 5), torch.rand(7, 3, 8, 8)  # a batch size that it was not made with
    decoder = runtime.InferenceSession(str(folder / "decoder.onnx"))
    encoder = runtime.InferenceSession(str(folder / "encoder.onnx"))
    with torch.no_grad():
        np.testing.assert_allclose(decoder.run(None, {"latents": z.numpy()})[0], model.decode(z), atol=1e-5)
        posterior = model.encode(x)
    mean, logvar = encoder.run(None, {"images": x.numpy()})
    np.testing.assert_allclose(mean, posterior.mean, atol=1e-5)
    np.testing.assert_allclose(logvar, posterior.logvar.detach(), atol=1e-5)


@pytest.mark.filterwarnings("ignore:You are using `torch.load`:FutureWarning")  # PyTorch 2.4's own torch.export.load
def test_pytorch_loads_the_program_without_the_class(tmp_path: Path) -> None:
    model, folder = saved(tmp_path, "conv"), written(tmp_path, "pt2")
    z = torch.randn(7, 5)
    with torch.no_grad():
        assert torch.allclose(torch.export.load(folder / "decoder.pt2").module()(z), model.decode(z), atol=1e-6)


def test_safetensors_hold_the_weights_and_the_configuration(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors", reason="pip install 'vae-sweep[export]'")
    model, folder = saved(tmp_path, "fc"), written(tmp_path, "safetensors", out="elsewhere", license="cc-by-4.0")
    assert folder == tmp_path / "elsewhere"
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        same = models.create(config["model"], (3, 8, 8), int(file.metadata()["latent_dim"]))
        same.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), model.parameters(), strict=True))
    card = (folder / "README.md").read_text(encoding="utf-8")
    for known in (
        'license: "cc-by-4.0"',
        "shapes, seed 3",
        "| test loss = recon + beta * kl | 12.50 = 10.00 + 2.50 nats/image |",
        "lr 0.001",
        "3x8x8",
    ):
        assert known in card


def test_the_card_says_what_the_numbers_are_and_that_pixels_are_permuted(tmp_path: Path) -> None:
    model = saved(tmp_path, "linear")
    node = {"name": "linear", **NODES["linear"]}
    config = {"model": node, "dataset": {"name": "shapes", "permute_pixels": True}}
    config["objective"] = {"beta": 1.0, "reduction": "mean"}
    facts = {"name": "linear-p1", "best_epoch": 3, "test": {"loss": 0.02345, "recon": 0.02331, "kl": 0.00014}}
    checkpoint.save(tmp_path / "checkpoint.pt", model, config, facts)
    card = (written(tmp_path, "pt2") / "README.md").read_text(encoding="utf-8")
    assert "| 0.0234 = 0.0233 + 0.0001 |" in card
    assert "| pixels | in the fixed order of vae_sweep.datasets.permuted.pixel_order" in card
    assert vs.api.name_of({"facts": facts, "config": config}).endswith("epoch 3, test loss 0.0234")
    checkpoint.save(tmp_path / "checkpoint.pt", model, config, {"name": "linear-p1"})
    card = (written(tmp_path, "pt2", out="other") / "README.md").read_text(encoding="utf-8")
    assert "| test loss = recon + beta * kl | unknown |" in card


class Tied(LinearVAE):
    """Two names for one weight, and a buffer that is no number."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.again = self.decoder
        self.register_buffer("used", torch.tensor([True, False]))


def test_tied_weights_and_flags_are_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    safetensors = pytest.importorskip("safetensors", reason="pip install 'vae-sweep[export]'")
    model = Tied((3, 2, 2), 4).eval()
    content = {"facts": {"name": "tied-p1"}, "config": {"dataset": {"name": "shapes"}}}
    monkeypatch.setattr(export.api, "open_checkpoint", lambda *given: (model, content))
    folder = written(tmp_path, "safetensors")
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("again.weight"), model.decoder.weight)
        assert file.get_tensor("used").tolist() == [True, False]


class Moody(VAE):
    """No program: what it computes depends on the numbers it sees."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.shift = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(x.flatten(1)[:, : self.latent_dim], x.flatten(1)[:, : self.latent_dim])

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        shift = self.shift if z.sum().item() > 0 else self.shift + 1
        return (z.sum(1)[:, None, None, None] + shift).expand(-1, *self.image_shape)


def test_what_cannot_be_exported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "linear")
    with pytest.raises(vs.UserError, match=r"^format=tf: must be one of pt2, onnx, safetensors$"):
        export.export(export.Options("checkpoint.pt", "tf"), tmp_path)
    model = Moody((3, 2, 2), 4)
    node = {"_target_": "moody.Moody", "name": "moody"}
    config = {"model": node, "dataset": {"name": "shapes"}, "objective": {"beta": 1.0}}
    checkpoint.save(tmp_path / "moody.pt", model, config, {"name": "moody-p1"})
    monkeypatch.setattr(export.api, "open_checkpoint", lambda *given: (model, {"facts": {"name": "moody-p1"}}))
    with pytest.raises(vs.UserError, match=r"^format=pt2: PyTorch cannot export the decoder of Moody .*safetensors"):
        export.export(export.Options("moody.pt", "pt2"), tmp_path)
    assert not (tmp_path / "outputs" / "exported" / "moody-p1-pt2").exists()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        vs.UserError, match=r"^format=onnx: needs onnx, onnxruntime; pip install 'vae-sweep\[export\]'$"
    ):
        export.export(export.Options("checkpoint.pt", "onnx"), tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "pt2"])
def test_a_model_that_differs_too_much_leaves_no_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors", reason="pip install 'vae-sweep[export]'")
    saved(tmp_path, "linear")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(vs.UserError, match=f"^format={kind}: the exported model differs by .* use another format"):
        export.export(export.Options("checkpoint.pt", kind), tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["checkpoint.pt"]
    assert list(tmp_path.glob("outputs/exported/*")) == []
