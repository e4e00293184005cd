"""A trained model on disk: plain tensors and plain values, read without unpickling anything else.

The architecture's class is imported by the name in the checkpoint's configuration, and only a VAE is ever called.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from vae_sweep import models
from vae_sweep.errors import UserError
from vae_sweep.models.vae import VAE

FORMAT = "vae_sweep/1"


def save(path: Path, model: VAE, config: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write the weights, the resolved configuration and ``facts`` atomically; values must be plain Python."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "weights": state,
        "config": config,
        "image_shape": list(model.image_shape),
        "latent_dim": model.latent_dim,
        "facts": facts,
    }
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    os.replace(temporary, path)


def load(path: Path) -> tuple[VAE, dict[str, Any]]:
    """Return the model on the CPU, in evaluation mode, and the checkpoint's other content.

    Raises:
        UserError: for a file that is missing or is no checkpoint of this project.
    """
    if not path.is_file():
        raise UserError(f"run={path}: no such file; give a run id, or the path of a checkpoint.pt")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"run={path}: not a checkpoint that can be read ({type(error).__name__}); "
            "give a checkpoint.pt that vae_sweep wrote"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"run={path}: not a checkpoint of vae_sweep; give a checkpoint.pt that vae_sweep wrote")
    try:
        c, h, w = content["image_shape"]
        model = models.create(content["config"]["model"], (c, h, w), content["latent_dim"])
        model.load_state_dict(content["weights"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"run={path}: the checkpoint does not fit its architecture ({' '.join(str(error).split())[:200]}); "
            "the code of the model may have changed since it was written"
        ) from error
    return model.eval(), content
