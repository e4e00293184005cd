"""Tests for an architecture of your own: ``check_vae(MyVAE, width=64)``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.training import checkpoint, state
from vae_sweep.training.evaluation import evaluate, to_float
from vae_sweep.training.loop import EpochMetrics, TrainSettings, fit
from vae_sweep.training.randomness import Stream, seed_weights, seeded

N_TRAIN, N_VAL, BATCH, EPOCHS = 20, 6, 8, 3  # random images; the last batch is a short one
SETTINGS = TrainSettings(BATCH, lr=1e-3, seed=0, max_epochs=EPOCHS, patience=EPOCHS, min_delta=0.0)
KEPT = "what training changes must be a parameter or a persistent buffer (self.register_buffer)"

Build = Callable[[], VAE]


def check_vae(
    model_class: type[VAE],
    *,
    image_shape: tuple[int, int, int] = (3, 32, 32),  # (C, H, W)
    latent_dim: int = 8,
    **arguments: Any,  # the class's own, as they stand in its YAML
) -> None:
    """Check that a sweep can train ``model_class``, interrupt it after any epoch, and reproduce its numbers.

    The model is built on the CPU and on the meta device, encodes and decodes random images, and is trained on them for
    three epochs: in one go, and interrupted after each. Both must be bit-identical.

    Raises:
        AssertionError: for the first check that fails, with what to change.
        UserError: where the class does not take these arguments, or this image shape.
    """
    name = model_class.__name__

    def build() -> VAE:
        seed_weights(0)
        return plugins.build(model_class, arguments, name, image_shape=image_shape, latent_dim=latent_dim)

    with torch.random.fork_rng([]), tempfile.TemporaryDirectory() as folder:
        _check_construction(build, name, image_shape, latent_dim)
        _check_shapes(build(), name)
        _check_repeatable(build, name)
        model = _check_resumable(build, name, Path(folder))
        _check_checkpoint(model, name, arguments, Path(folder))


def _check_construction(build: Build, name: str, image_shape: tuple[int, int, int], latent_dim: int) -> None:
    """The sizes are kept, the weights depend on the seed alone, and the meta device can build it."""
    model = build()
    _require(
        (tuple(model.image_shape), model.latent_dim) == (image_shape, latent_dim),
        f"{name}.__init__: must call super().__init__(image_shape, latent_dim)",
    )
    attributes = [attribute for module in model.modules() for attribute in vars(module).items()]
    loose = [key for key, value in attributes if isinstance(value, torch.Tensor)]
    _require(
        not loose,
        f"{name}: {', '.join(loose)} is a tensor, but neither a parameter nor a buffer, so it does not follow the "
        "model to a GPU or into a checkpoint; use self.register_buffer(name, tensor)",
    )
    _require(
        _equal(model.state_dict(), build().state_dict()),
        f"{name}.__init__: two models of one seed have different weights; draw them from PyTorch's global generator",
    )
    needs_values = (
        f"{name}.__init__: cannot be built on the meta device, on which a sweep counts weights before it trains; do "
        "not read values of tensors in it"
    )
    with _explained(needs_values), torch.device("meta"):
        build()


@torch.no_grad()
def _check_shapes(model: VAE, name: str) -> None:
    """Encoder, decoder and the whole model give finite float32 values of the right shapes in either mode."""
    for training, n in ((True, 4), (False, 4), (False, 1)):  # batch normalization cannot be trained on one image
        model.train(training)
        x, noise = to_float(_images(n, 0, model)), _noise(n, model)
        _check_posterior(model.encode(x), (n, model.latent_dim), f"{name}.encode")
        found = {"decode": model.decode(noise), "reconstruct": model.reconstruct(x), "sample": model.sample(n)}
        found["forward"], posterior = model(x, noise)
        _check_posterior(posterior, (n, model.latent_dim), f"{name}.forward")
        for method, images in found.items():
            _check_tensor(images, x.shape, f"{name}.{method}")


def _check_posterior(posterior: object, shape: tuple[int, int], what: str) -> None:
    if not isinstance(posterior, Posterior):
        raise AssertionError(f"{what}: must give a Posterior(mean, logvar), not {type(posterior).__name__}")
    _check_tensor(posterior.mean, shape, f"{what}: mean")
    _check_tensor(posterior.logvar, shape, f"{what}: logvar")
    kl = posterior.kl()
    _check_tensor(kl, shape[:1], f"{what}: kl()")
    _require(bool((kl > -1e-3).all()), f"{what}: kl() is {float(kl.min()):.3g} for an image; it cannot be negative")


def _check_tensor(tensor: object, shape: tuple[int, ...], what: str) -> None:
    if not isinstance(tensor, torch.Tensor):
        raise AssertionError(f"{what}: must be a tensor, not {type(tensor).__name__}")
    _require(tensor.shape == shape, f"{what}: has the shape {tuple(tensor.shape)}, must have {tuple(shape)}")
    _require(tensor.dtype == torch.float32, f"{what}: is {tensor.dtype}, must be torch.float32")
    _require(bool(torch.isfinite(tensor).all()), f"{what}: has values that are not finite")


def _check_repeatable(build: Build, name: str) -> None:
    """A forward pass depends on weights, input and global generators; in evaluation not on the generators."""

    def output(model: VAE, seed: int) -> dict[str, torch.Tensor]:
        with torch.no_grad(), seeded(seed, Stream.TRAINING):
            reconstruction, posterior = model(to_float(_images(4, 0, model)), _noise(4, model))
        return {"reconstruction": reconstruction, "mean": posterior.mean, "logvar": posterior.logvar}

    model = build().eval()
    first = output(model, 0)
    _require(
        _equal(first, output(model, 0)),
        f"{name}.forward: gives other values when it is called again in evaluation mode; it must keep nothing from "
        "one call to the next, and use no generator of its own",
    )
    _require(
        _equal(first, output(model, 1)),
        f"{name}.forward: draws random numbers in evaluation mode; give functional dropout training=self.training, and "
        "use the noise that forward is given for the latents",
    )
    _require(
        _equal(output(build().train(), 0), output(build().train(), 0)),
        f"{name}.forward: gives other values for a second model of the same seed; draw from PyTorch's, NumPy's or "
        "Python's global generator, and keep nothing outside the model",
    )


def _check_resumable(build: Build, name: str, folder: Path) -> VAE:
    """Return the model trained in one go; training that is interrupted and continued must give the same numbers."""
    whole = build()
    expected = [(epoch.train, epoch.val) for epoch in _trained(whole, name)]
    for done, losses in enumerate(expected):
        saved = state.load(folder)
        part = next(_trained(build(), name, saved and saved["fit"]))
        _require(
            (part.train, part.val) == losses,
            f"{name}: interrupted after epoch {done} and continued, epoch {done + 1} has the losses "
            f"{part.train.loss:.6f} (train) and {part.val.loss:.6f} (val) instead of {losses[0].loss:.6f} and "
            f"{losses[1].loss:.6f}; {KEPT}",
        )
        state.save(folder, {"fit": part.snapshot()})
    last = state.load(folder)
    assert last is not None
    rest = build()
    list(_trained(rest, name, last["fit"]))
    _require(_equal(rest.state_dict(), whole.state_dict()), f"{name}: continued, it ends with other weights; {KEPT}")
    return whole


def _trained(model: VAE, name: str, saved: dict[str, Any] | None = None) -> Iterator[EpochMetrics]:
    with _explained(f"{name}: cannot be trained or continued"):
        images, val = _images(N_TRAIN, 1, model), _images(N_VAL, 2, model)
        yield from fit(model, images, val, SETTINGS, snapshot=saved)


def _check_checkpoint(model: VAE, name: str, arguments: Mapping[str, Any], folder: Path) -> None:
    config = {"model": dict(arguments), "dataset": {"name": "random"}}
    with _explained(f"{name}: cannot be read back from its checkpoint; its arguments must be numbers, text or lists"):
        checkpoint.save(folder / "checkpoint.pt", model, config, {"name": name})
        loaded, _ = checkpoint.load(folder / "checkpoint.pt", type(model))
    images = _images(N_VAL, 2, model)
    _require(
        evaluate(loaded, images) == evaluate(model, images),
        f"{name}: gives another loss after it was read back from its checkpoint; {KEPT}",
    )


def _images(n: int, seed: int, model: VAE) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *model.image_shape), dtype=torch.uint8, generator=source)


def _noise(n: int, model: VAE) -> torch.Tensor:
    return torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(0))


def _equal(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _require(condition: bool, message: str) -> None:
    if not condition:  # not `assert`, which -O leaves out
        raise AssertionError(message)


@contextmanager
def _explained(message: str) -> Iterator[None]:
    try:
        yield
    except (UserError, RuntimeError, NotImplementedError) as error:
        raise AssertionError(f"{message} ({error})") from error
