"""Architectures: one file each. A user's own needs no change here, only a YAML whose `_target_` names its class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae_sweep.base.plugins import instantiate
from vae_sweep.models.vae import VAE, Posterior

__all__ = ["VAE", "Posterior", "create"]


def create(node: Mapping[str, Any], image_shape: tuple[int, int, int], latent_dim: int) -> VAE:
    """Return the VAE that a ``model`` config node describes, with freshly drawn weights.

    Raises:
        UserError: for an unknown class, wrong arguments, or a shape that the architecture cannot take.
    """
    return instantiate(node, VAE, "model", image_shape=image_shape, latent_dim=latent_dim)
