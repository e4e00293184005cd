"""Architectures: one file each. A user's own needs no change here, only a YAML whose `_target_` names its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae_sweep.base import plugins
from vae_sweep.models.vae import VAE, Posterior

__all__ = ["VAE", "Posterior", "check", "create"]


def check(node: Mapping[str, Any]) -> None:
    """Check what images of every shape have in common in a ``model`` config node: its class and its arguments.

    Raises:
        UserError: for an unknown class or a wrong argument.
    """
    model_class = plugins.find(str(node.get("_target_", "")), VAE, "model._target_")
    plugins.check(model_class, node, "model", image_shape=(1, 1, 1), latent_dim=1)


def create(node: Mapping[str, Any], image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """Return the VAE that a ``model`` config node describes, with freshly drawn weights.

    Raises:
        UserError: for an unknown class, wrong arguments, or a shape that the architecture cannot take.
    """
    return plugins.instantiate(node, VAE, "model", image_shape=image_shape, latent_dim=latent_dim)
