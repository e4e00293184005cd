"""A trained model on disk: plain tensors and plain values, read without unpickling anything else.

A checkpoint may come from anywhere: the class that it names is built only if it is one of vae_sweep's, or if the caller
gives it.
"""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError
from vae_sweep.base.files import atomic_write
from vae_sweep.models.vae import VAE
from vae_sweep.training.state import write

FORMAT = "vae_sweep/1"
UNFINISHED = "checkpoint.pt.tmp"  # what a killed process may leave


def save(path: Path, model: VAE, config: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the weights, the resolved configuration and ``facts`` atomically; values must be plain Python.

    Raises:
        UserError: where the disk does not take it.
    """
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "weights": state,
        "config": config,
        "image_shape": list(model.image_shape),
        "latent_dim": model.latent_dim,
        "facts": facts,
    }
    try:
        with atomic_write(path) as temporary:
            write(content, temporary)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); fix that, then the same command continues"
        ) from error


def check_holds(path: Path | None, model: VAE) -> None:
    """Refuse a stored checkpoint that does not hold the weights of ``model``.

    Raises:
        UserError: where it is another run's, or damaged; the same command stores it again.
    """
    found = {}
    if path is not None:
        with suppress(Exception):  # whatever a damaged file makes PyTorch raise
            found = torch.load(path, map_location="cpu", weights_only=True)["weights"]
    weights = model.state_dict()
    same = found.keys() == weights.keys() and all(_same(found[key], weights[key].cpu()) for key in weights)
    if not same:
        raise UserError("the store does not have the checkpoint that was written to it; start the same command again")


def _same(stored: torch.Tensor, own: torch.Tensor) -> bool:
    """Bit-identical, NaN included."""
    if stored.dtype != own.dtype or stored.shape != own.shape:
        return False
    return torch.equal(stored, own) or torch.allclose(stored, own, rtol=0, atol=0, equal_nan=True)


def load(path: Path, model_class: type[VAE] | None = None) -> tuple[VAE, dict[str, Any]]:
    """Return the model on the CPU, in evaluation mode, and the checkpoint's other content.

    ``model_class`` is built instead of the class that the checkpoint names; without it, that must be vae_sweep's own.
    The content is not trusted: it is checked before it is used, and takes no more memory than the file's size.

    Raises:
        UserError: for a file that is missing or is no checkpoint of this project, and for a class of another package.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, it takes a name of any length
        raise UserError(f"run={path}: no such file; give a run id, or the path of a checkpoint.pt")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's, about formats that it knows and this project does not write
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"run={path}: not a checkpoint that can be read ({type(error).__name__}); "
            "give a checkpoint.pt that vae_sweep wrote"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"run={path}: not a checkpoint of vae_sweep; give a checkpoint.pt that vae_sweep wrote")
    try:
        model = _model(content, model_class)
        named = [content["facts"]["name"], content["config"]["dataset"]["name"]]
    except UserError as error:
        raise UserError(f"run={path}: {error}") from error
    except Exception as error:  # neither the constructor nor the values are trusted
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"run={path}: the checkpoint does not fit its architecture ({type(error).__name__}: {reason}); "
            "the code of the model may have changed since it was written"
        ) from error
    if not all(isinstance(name, str) for name in named):
        raise UserError(f"run={path}: the checkpoint's names are not text; give a checkpoint.pt that vae_sweep wrote")
    if not all(torch.isfinite(tensor).all() for tensor in model.state_dict().values()):
        raise UserError(f"run={path}: the checkpoint's weights are not finite; give one of a run that did not diverge")
    return model.eval(), content


def _model(content: dict[str, Any], model_class: type[VAE] | None) -> VAE:
    node, weights, latent_dim = content["config"]["model"], content["weights"], content["latent_dim"]
    c, h, w = content["image_shape"]
    if not all(type(size) is int and size > 0 for size in (c, h, w, latent_dim)):
        raise ValueError(f"sizes must be whole numbers > 0, not {[c, h, w, latent_dim]}")
    if model_class is None:
        plugins.require_ours(node, "model")
        model_class = plugins.find(node["_target_"], VAE, "model._target_")
    arguments = {"image_shape": (c, h, w), "latent_dim": latent_dim}

    def built() -> VAE:
        model = plugins.build(model_class, node, "model", **arguments)
        if "decoder_log_variance" in weights:
            model.learn_variance()
        return model

    try:
        with torch.device("meta"):
            outline = built()
    except (NotImplementedError, RuntimeError):  # a user's own may want to see numbers while it is built
        outline = None
    if outline is not None:
        outline.load_state_dict(weights, assign=True)  # what does not fit is refused before it takes memory
    model = built()
    model.load_state_dict(weights)
    return model
