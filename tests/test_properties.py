"""Whatever is configured or read from a file: one clear line, or something that works."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf, open_dict

from vae_sweep import models
from vae_sweep.base import system
from vae_sweep.base.errors import UserError
from vae_sweep.cli import config_dir
from vae_sweep.config import schema
from vae_sweep.config.messages import user_message
from vae_sweep.config.validation import validate
from vae_sweep.metrics import linear
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.sweeps.preparation import check_model, objective_of, prepare
from vae_sweep.training import checkpoint, loop, state

MODELS = ("conv", "fc", "linear")
MEMORY = 500e6  # bytes of the machine that the tests pretend to run on
KEYS = [  # of the configuration, as far as one line can set them
    *(f"params.{key}" for key in ("name", "batch_size", "lr", "latent_dim")),
    *("objective.beta", "objective.reduction", "seed", "resume"),
    *(f"training.{key}" for key in ("max_epochs", "patience", "min_delta", "device", "threads", "compile")),
    *(f"evaluation.{key}" for key in ("noise_draws", "n_samples", "n_interpolations")),
    *("model.name", "model.channels", "model._target_", "dataset.root", "dataset.fraction", "tracking.uri"),
    *(
        "paths.data",
        "paths.root",
        "sweep.name",
        "hydra.job.name",
        "training",
        "nothing",
        "",
        "model",
        "dataset",
        "params",
        "experiment",
        "hydra/launcher",
    ),
]


def tried(times: int) -> settings:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=times, deadline=None, derandomize=True, suppress_health_check=quiet)


powers = st.floats(-12, 12).map(lambda power: 10.0**power)
fractions = st.floats(0.05, 0.95)
TOKENS = [
    "null",
    "1",
    "-",
    ".",
    "e9",
    "inf",
    "x",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "'",
    '"',
    "$",
    "${",
    "oc.env:",
    "seed",
    " ",
]
TOKENS += [
    "range(",
    "choice(",
    ")",
    "\\",
    "/",
    "~",
    "=",
    "true",
    "fc",
    "shapes",
    "${seed}",
    "@",
    "!!python/name:os.system",
]
VALID: dict[str, st.SearchStrategy[Any]] = {
    "seed": st.integers(0, 2**63 - 1),
    "params.batch_size": st.integers(1, 8),
    "params.lr": st.one_of(st.just(1e-3), powers),
    "params.latent_dim": st.integers(1, 40),
    "objective.beta": st.one_of(st.just(1.0), st.floats(-5, 6).map(lambda power: 10.0**power)),
    "objective.reduction": st.sampled_from(["sum", "mean"]),
    "training.max_epochs": st.integers(1, 10**6),
    "training.patience": st.integers(1, 10**6),
    "training.min_delta": st.one_of(st.just(0.5), powers),
    "evaluation.n_samples": st.integers(1, 1024),
    "dataset.n_train": st.integers(5, 60),
    "dataset.n_test": st.integers(1, 20),
    "dataset.val_fraction": fractions,
    "dataset.image_size": st.sampled_from([1, 2, 4, 7, 8, 12, 16]),
    "dataset.split_seed": st.integers(0, 2**63 - 1),
}
widths = st.lists(st.sampled_from([1, 2, 3, 16, 64]), min_size=1, max_size=3)
huge = st.integers(-(10**30), 10**30)
numbers = st.one_of(huge, st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 1e308, 1e-320, "x", "null", "[]", "''"]))
extreme_widths = st.lists(st.one_of(st.integers(-1, 10**7), huge), max_size=3)


@st.composite
def overrides(draw: st.DrawFn) -> tuple[str, dict[str, str], bool]:
    """A model, values that are allowed but for up to two, and whether all are."""
    model = draw(st.sampled_from(MODELS))
    values = {key: draw(strategy) for key, strategy in VALID.items()}
    shape = {"conv": "model.channels", "fc": "model.hidden_dims"}.get(model)
    if shape:
        values[shape] = draw(widths)
    replaced = draw(st.lists(st.sampled_from(list(values)), max_size=2))
    for key in replaced:
        values[key] = draw(extreme_widths if key == shape else numbers)
    return model, {key: str(value).replace(" ", "") for key, value in values.items()}, not replaced


@pytest.fixture(scope="module")
def composed() -> Iterator[dict[str, DictConfig]]:
    """The shipped configuration of every model; while it lasts, configurations can be composed."""
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield {model: compose("config", [f"model={model}", "experiment=smoke"]) for model in MODELS}


@contextmanager
def pretended_memory() -> Iterator[None]:
    with mock.patch.object(system, "total_memory", return_value=MEMORY):
        yield


def refused(error: Exception) -> None:
    line = user_message(error)
    assert line is not None, f"only a traceback explains {error!r}"
    assert line.startswith("vae_sweep: ")
    assert "\n" not in line


@tried(150)
@given(drawn=overrides())
def test_a_configuration_is_refused_or_trains(
    drawn: tuple[str, dict[str, str], bool], composed: dict[str, DictConfig], tmp_path: Path
) -> None:
    model_name, values, allowed = drawn
    cfg = composed[model_name].copy()
    try:
        lines = [f"{key}={value}" for key, value in values.items()]
        ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(lines), cfg)
        OmegaConf.update(cfg, "paths.root", str(tmp_path))
        validate(cfg)
        allowed = False  # what follows may refuse sizes that do not fit each other
        with pretended_memory():
            dataset, spectrum = prepare(cfg, tmp_path)
            check_model(cfg, dataset.image_shape)
    except Exception as error:
        if allowed:
            raise
        return refused(error)

    objective = objective_of(cfg)
    line = linear.linear_loss(spectrum, dataset.test.images, cfg.params.latent_dim, objective)
    assert math.isfinite(line.loss)
    model = models.create(cfg.model, dataset.image_shape, cfg.params.latent_dim)
    assert 4 * sum(p.numel() for p in model.parameters()) < MEMORY
    images = torch.from_numpy(dataset.train.images[:40])
    settings = loop.TrainSettings(
        batch_size=cfg.params.batch_size,
        lr=cfg.params.lr,
        seed=cfg.seed,
        max_epochs=1,
        patience=cfg.training.patience,
        min_delta=cfg.training.min_delta,
        objective=objective,
        warmup=cfg.objective.warmup,
        clip_grad_norm=cfg.training.clip_grad_norm,
    )
    try:
        (epoch,) = loop.fit(model, images, torch.from_numpy(dataset.val.images[:40]), settings)
    except UserError as error:
        if "became" in str(error) and cfg.params.lr > 0.05:  # smaller ones must not diverge
            return None
        raise
    assert all(map(math.isfinite, [*epoch.train, *epoch.val]))
    assert epoch.step == -(-len(images) // cfg.params.batch_size)
    return None


def test_a_batch_that_memory_cannot_hold_is_refused(composed: dict[str, DictConfig]) -> None:
    cfg = composed["conv"].copy()
    with pretended_memory():
        check_model(cfg, (3, 32, 32))
        cfg.params.batch_size = 10_000
        with pytest.raises(UserError, match=r"params\.batch_size=10000: .* need 2\.\d+ GB of memory") as error:
            check_model(cfg, (3, 32, 32))
    refused(error.value)


@tried(100)
@given(
    key=st.sampled_from(KEYS),
    prefix=st.sampled_from(["", "", "", "+", "++", "~"]),
    value=st.one_of(st.text(max_size=8), st.lists(st.sampled_from(TOKENS), max_size=4).map("".join)),
)
def test_an_override_of_any_text_is_refused_in_one_line_or_composes(
    key: str, prefix: str, value: str, composed: dict[str, DictConfig]
) -> None:
    try:
        cfg = compose("config", [f"{prefix}{key}={value}"])
        with open_dict(cfg):
            cfg.paths.root = "/tmp"
        validate(cfg)
    except Exception as error:
        refused(error)


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), huge, st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=6,
)
PARTS = ("weights", "config", "image_shape", "latent_dim", "facts")


def good() -> dict[str, Any]:
    node = {"_target_": "vae_sweep.models.linear.LinearVAE", "name": "linear"}
    weights = dict(models.create(node, (3, 4, 4), 2).state_dict())
    named = {"model": node, "dataset": {"name": "shapes"}}
    known = {"weights": weights, "config": named, "image_shape": [3, 4, 4], "latent_dim": 2, "facts": {"name": "x"}}
    return {"format": checkpoint.FORMAT, **known}


def opened(path: Path) -> None:
    """Read a file as a checkpoint and as a state: a model or a UserError, a state or none."""
    try:
        model, content = checkpoint.load(path)
    except UserError as error:
        refused(error)
    else:
        assert isinstance(model, VAE)
        assert isinstance(content["facts"]["name"], str)
        assert torch.isfinite(model.sample(1)).all()
    path.replace(path.with_name("state.pt"))
    assert isinstance(state.load(path.parent), dict | None)


@tried(60)
@given(content=st.binary(max_size=200))
def test_a_checkpoint_of_any_bytes_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a checkpoint"):
        checkpoint.load(path)
    opened(path)


@tried(80)
@given(data=st.data())
def test_a_checkpoint_with_changed_bytes_is_refused_or_read(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(good(), path)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    opened(path)


@tried(100)
@given(part=st.sampled_from(PARTS), value=plain)
def test_a_checkpoint_with_other_content_is_refused_or_read(part: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save(good() | {part: value}, path)
    opened(path)


class Picky(VAE):
    """An architecture that looks at numbers while it is built, and has only weights of its own making."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__(image_shape, latent_dim)
        self.scale = float(torch.ones(2).sum())

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(x.flatten(1)[:, : self.latent_dim], x.flatten(1)[:, : self.latent_dim])

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return (self.scale * z.sum(1))[:, None, None, None].expand(-1, *self.image_shape)


def test_a_model_that_cannot_be_built_without_values_is_checked_too(composed: dict[str, DictConfig]) -> None:
    cfg = composed["conv"].copy()
    cfg.model = {"_target_": f"{__name__}.Picky", "name": "picky"}
    check_model(cfg, (3, 32, 32))
    cfg.model = {"_target_": f"{__name__}.Picky", "name": "picky", "depth": 3}
    with pytest.raises(UserError, match="does not fit its configuration"):
        check_model(cfg, (3, 32, 32))
