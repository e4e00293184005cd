"""What MLflow loads of a LoggedModel: ``mlflow.pyfunc.load_model``, ``mlflow models serve``.

The input decides what is asked: latents (n, L) are decoded to images (n, C, H, W), images in [0, 1] are encoded to the
means (n, L) of their posteriors. ``params={"what": "reconstruct"}`` answers images with their reconstructions.
Decoded images are in [0, 1] where the decoder ends in a sigmoid; clamp them otherwise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE
from vae_sweep.training import checkpoint
from vae_sweep.training.evaluation import inference

WHAT = ("auto", "decode", "encode", "reconstruct")


class Served:
    """A trained model behind the interface that MLflow calls."""

    def __init__(self, model: VAE) -> None:
        self.model = model

    @torch.no_grad()
    def predict(self, data: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Return images for latents or latents for images, float32; ``params["what"]`` is one of :data:`WHAT`.

        Raises:
            UserError: for an input of another shape, or another ``what``.
        """
        what = (params or {}).get("what", "auto")
        if what not in WHAT:
            raise UserError(f"what={what}: unknown; one of {', '.join(WHAT)}")
        shapes = {"decode": (self.model.latent_dim,), "encode": self.model.image_shape}
        shapes["reconstruct"] = shapes["encode"]
        given = np.asarray(data, dtype=np.float32)
        fitting = [key for key in WHAT[1:] if given.shape[1:] == shapes[key] and what in ("auto", key)]
        if not fitting:
            allowed = " or ".join(f"{key} (n, {', '.join(map(str, shape))})" for key, shape in shapes.items())
            raise UserError(f"what={what}: the input has shape {given.shape}; {allowed}")
        x = torch.from_numpy(given)
        with inference(torch.device("cpu")):
            if fitting[0] == "decode":
                return self.model.decode(x).numpy()
            return (self.model.encode(x).mean if fitting[0] == "encode" else self.model.reconstruct(x)).numpy()


def _load_pyfunc(path: str, model_config: dict[str, Any] | None = None) -> Served:
    """Read the checkpoint at ``path``; MLflow calls this.

    ``model_config["model"]`` is the class, where it is not vae_sweep's own: the run that wrote the model has named it,
    and whoever lets MLflow load a model trusts the code that comes with it.
    """
    target = (model_config or {}).get("model")
    model_class = plugins.find(target, VAE, "model") if target else None
    return Served(checkpoint.load(Path(path), model_class)[0])
