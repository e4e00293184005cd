"""`check_vae` passes what a sweep can train, whoever wrote it, and names what is wrong with anything else."""

from __future__ import annotations

import importlib
import itertools
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_class
from omegaconf import OmegaConf
from torch import nn

from vae_sweep.cli import config_dir
from vae_sweep.config import schema
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.testing import check_vae

README = Path(__file__).parents[1] / "README.md"

MODELS = sorted(path.stem for path in (config_dir() / "model").glob("*.yaml"))
SMALL = {"image_shape": (3, 8, 8), "latent_dim": 4}


@pytest.mark.parametrize("name", MODELS)
def test_shipped_models_keep_the_contract(name: str) -> None:
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("config", [f"model={name}"]).model)
    model_class = get_class(node.pop("_target_"))
    check_vae(model_class, **{key: value for key, value in node.items() if key not in ("name", "baseline")})


class Small(FCVAE):
    """FCVAE of one narrow layer, for others to change."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim, [8])


class WithDropout(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, p: float) -> None:
        super().__init__(image_shape, latent_dim)
        self.encoder.append(nn.Dropout(p))


class WithBatchNorm(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.encoder.append(nn.BatchNorm1d(8))


class WithConvolutionsAndAll(VAE):
    """Dropout of whole channels, batch normalization, and a schedule of its own that is kept as a buffer."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        n = image_shape[1] * image_shape[2] // 4
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.3), nn.Flatten())
        self.head = nn.Linear(4 * n, 2 * latent_dim)
        self.decoder = nn.Sequential(nn.Linear(latent_dim, 4 * n), nn.Unflatten(1, (4, image_shape[1] // 2, -1)))
        self.last = nn.ConvTranspose2d(4, 3, 4, 2, 1)
        self.register_buffer("updates", torch.zeros(()))

    def encode(self, x: torch.Tensor) -> Posterior:
        self.updates += self.training
        mean, logvar = self.head(self.encoder(x) * (1 - 0.9**self.updates)).chunk(2, 1)
        return Posterior(mean, logvar)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.last(self.decoder(z)))


class LayersDroppedByPython(Small):
    """Draws from the global generators of Python and NumPy while it trains."""

    def encode(self, x: torch.Tensor) -> Posterior:
        kept = x * (random.random() < 0.7) + 0.1 * float(np.random.rand()) if self.training else x  # noqa: NPY002
        return super().encode(kept)


@pytest.mark.parametrize(
    ("model_class", "arguments"),
    [(WithDropout, {"p": 0.5}), (WithBatchNorm, {}), (WithConvolutionsAndAll, {}), (LayersDroppedByPython, {})],
)
def test_dropout_and_batch_normalization_keep_the_contract(model_class: type[VAE], arguments: dict) -> None:
    check_vae(model_class, **SMALL, **arguments)


class ForgetsItsSizes(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.latent_dim = latent_dim + 1


class LooseTensor(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.scale = torch.ones(())


class WeightsOfItsOwn(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        source = torch.Generator()
        source.seed()
        nn.init.normal_(self.head.bias, generator=source)


class ReadsValues(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.size = self.head.weight.abs().sum().item()


class MeanOnly(Small):
    def encode(self, x: torch.Tensor) -> Any:
        return super().encode(x).mean


class OneLatentMore(Small):
    def encode(self, x: torch.Tensor) -> Posterior:
        found = super().encode(x)
        return Posterior(nn.functional.pad(found.mean, (0, 1)), found.logvar)


class FlatImages(Small):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z).flatten(1)


class OneImageIsNone(Small):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z).squeeze(0)


class Doubles(Small):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z).double()


class NotFinite(Small):
    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z).log().sub(1e9).exp().log()


class NegativePosterior(Posterior):
    def kl(self) -> torch.Tensor:
        return -super().kl()


class NegativeKL(Small):
    def encode(self, x: torch.Tensor) -> Posterior:
        found = super().encode(x)
        return NegativePosterior(found.mean, found.logvar)


class CountsItsCalls(Small):
    calls = 0

    def encode(self, x: torch.Tensor) -> Posterior:
        self.calls += 1
        return super().encode(x * (1 - 0.5**self.calls))


class DropoutInEvaluation(Small):
    def encode(self, x: torch.Tensor) -> Posterior:
        return super().encode(nn.functional.dropout(x))


class NoiseOfItsOwn(Small):
    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Posterior]:
        return super().forward(x, torch.randn_like(noise))


class SharedCounter(Small):
    calls = itertools.count()

    def encode(self, x: torch.Tensor) -> Posterior:
        return super().encode(x * (1 + next(self.calls)) if self.training else x)


class ScheduleInPython(Small):
    """The fault of a warm-up that is counted in an attribute: after an interruption it starts again."""

    updates = 0

    def encode(self, x: torch.Tensor) -> Posterior:
        self.updates += self.training
        return super().encode(x * min(1.0, self.updates / 5) if self.training else x)


class AverageOutsideTheState(Small):
    """Kept in a list, where PyTorch does not see it, and used in evaluation alone."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.average = [torch.zeros(())]

    def encode(self, x: torch.Tensor) -> Posterior:
        if self.training:
            self.average[0] = 0.9 * self.average[0] + 0.1 * x.detach().mean()
        return super().encode(x if self.training else x - self.average[0])


class BufferLeftOut(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.scale *= 0.9
        return super().decode(z) * self.scale


class DrawnConstant(Small):
    """Draws a number when it is built, and keeps it where no checkpoint does."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.factor = torch.rand(1, device="cpu").tolist()[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return super().decode(z) * self.factor


class Arguments(Small):
    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, layer: object) -> None:
        super().__init__(image_shape, latent_dim)


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        (ForgetsItsSizes, r"__init__: must call super\(\)\.__init__\(image_shape, latent_dim\)"),
        (LooseTensor, r"LooseTensor: scale is a tensor, but neither a parameter nor a buffer"),
        (WeightsOfItsOwn, r"two models of one seed have different weights"),
        (ReadsValues, r"ReadsValues\.__init__: cannot be built on the meta device"),
        (MeanOnly, r"MeanOnly\.encode: must give a Posterior\(mean, logvar\), not Tensor"),
        (OneLatentMore, r"OneLatentMore\.encode: mean: has the shape \(4, 5\), must have \(4, 4\)"),
        (FlatImages, r"FlatImages\.decode: has the shape \(4, 192\), must have \(4, 3, 8, 8\)"),
        (OneImageIsNone, r"decode: has the shape \(3, 8, 8\), must have \(1, 3, 8, 8\)"),
        (Doubles, r"decode: is torch\.float64, must be torch\.float32"),
        (NotFinite, r"decode: has values that are not finite"),
        (NegativeKL, r"encode: kl\(\) is -\S+ for an image; it cannot be negative"),
        (CountsItsCalls, r"forward: gives other values when it is called again in evaluation mode"),
        (DropoutInEvaluation, r"forward: draws random numbers in evaluation mode; give functional dropout training="),
        (NoiseOfItsOwn, r"forward: draws random numbers in evaluation mode"),
        (SharedCounter, r"forward: gives other values for a second model of the same seed"),
        (
            ScheduleInPython,
            r"interrupted after epoch 1 and continued, epoch 2 has the losses .* must be a parameter",
        ),
        (AverageOutsideTheState, r"interrupted after epoch 1 and continued, epoch 2 has the losses"),
        (DrawnConstant, r"gives another loss after it was read back from its checkpoint"),
        (BufferLeftOut, r"interrupted after epoch 1 and continued, epoch 2 has the losses"),
    ],
)
def test_a_model_that_breaks_the_contract_is_told_what_is_wrong(model_class: type[VAE], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_vae(model_class, **SMALL)


def test_the_class_of_the_readme_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(from math .*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_vae.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_vae", raising=False)
    check_vae(importlib.import_module("my_vae").MyVAE, **SMALL, width=8)


def test_arguments_that_no_checkpoint_can_hold_are_refused() -> None:
    with pytest.raises(AssertionError, match="its arguments must be numbers, text or lists"):
        check_vae(Arguments, **SMALL, layer=nn.Linear(1, 1))


def test_the_check_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    check_vae(WithDropout, **SMALL, p=0.5)
    assert torch.equal(torch.get_rng_state(), before)
