"""Architectures: one file each. A user's own needs no change here, only a YAML whose `_target_` names its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE, Posterior

__all__ = ["CHECKED", "VAE", "Posterior", "check", "check_outputs", "create"]

CHECKED = 2  # images, since the size of a batch must not matter


def check(node: Mapping[str, Any]) -> None:
    """Check what images of every shape have in common in a ``model`` config node: its class and its arguments.

    Raises:
        UserError: for an unknown class or a wrong argument.
    """
    model_class = plugins.find(str(node.get("_target_", "")), VAE, "model._target_")
    for key, comes_from in (("image_shape", "the images"), ("latent_dim", "params.latent_dim")):
        if key in node:
            raise UserError(f"model.{key}={node[key]}: comes from {comes_from}; leave it out of the model's YAML")
    plugins.check(model_class, node, "model", image_shape=(1, 1, 1), latent_dim=1)


@torch.no_grad()
def check_outputs(model: VAE) -> None:
    """Encode and decode CHECKED empty images, on the model's own device.

    Raises:
        UserError: where ``encode`` gives no Posterior, or one of them tensors of another shape.
        Exception: whatever the model itself raises.
    """
    n, name = CHECKED, f"{type(model).__module__}.{type(model).__qualname__}"
    device = next((parameter.device for parameter in model.parameters()), None)
    posterior = model.encode(torch.zeros(n, *model.image_shape, device=device))
    if not isinstance(posterior, Posterior):
        raise UserError(
            f"{name}.encode gives a {type(posterior).__name__}; it must give a Posterior: "
            "from vae_sweep.models import Posterior; return Posterior(mean, logvar)"
        )
    images = model.decode(torch.zeros(n, model.latent_dim, device=device))
    for what, found, shape in (
        ("encode gives a mean", posterior.mean, (model.latent_dim,)),
        ("encode gives a logvar", posterior.logvar, (model.latent_dim,)),
        ("decode gives", images, model.image_shape),
    ):
        if not isinstance(found, torch.Tensor) or tuple(found.shape) != (n, *shape):
            shown = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise UserError(f"{name}.{what} {shown} for {n} images; must be a tensor {(n, *shape)}")


def create(node: Mapping[str, Any], image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """Return the VAE that a ``model`` config node describes, with freshly drawn weights.

    Raises:
        UserError: for an unknown class, wrong arguments, or a shape that the architecture cannot take.
    """
    return plugins.instantiate(node, VAE, "model", image_shape=image_shape, latent_dim=latent_dim)
