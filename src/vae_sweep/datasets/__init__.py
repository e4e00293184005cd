"""Data sources: one file each. ``load(create(node), cache_root)`` opens one.

A user's own needs no change here, only a YAML whose `_target_` names its class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vae_sweep.base.errors import UserError
from vae_sweep.base.plugins import instantiate
from vae_sweep.datasets.base import MAX_IMAGES, SPLITS, Built, ImageDataset, Source, Split, check, hold_out
from vae_sweep.datasets.cache import load, prepared_identity
from vae_sweep.datasets.describe import announce
from vae_sweep.datasets.permuted import Permuted

__all__ = [
    "SPLITS",
    "Built",
    "ImageDataset",
    "Source",
    "Split",
    "announce",
    "create",
    "hold_out",
    "load",
    "prepared_identity",
]


def create(node: Mapping[str, Any]) -> Source:
    """Return the data source that a ``dataset`` config node, as a plain mapping, describes.

    ``_target_`` names its class, a :class:`Source`; the other keys are its arguments. Three keys are common to all
    sources: ``name``; ``permute_pixels``, see :class:`Permuted`; ``max_images``, which limits each split.

    Raises:
        UserError: for a class that cannot be imported or is not a :class:`Source`, and for wrong arguments.
    """
    settings = dict(node)
    permuted, max_images = settings.pop("permute_pixels", False), settings.pop("max_images", None)
    if max_images is not None:
        whole = isinstance(max_images, int) and 1 <= max_images <= MAX_IMAGES
        check(whole, "max_images", max_images, f"a whole number from 1 to {MAX_IMAGES:,}, or null")
    try:
        source: Source = instantiate(settings, Source, "dataset")  # type: ignore[type-abstract]
    except TypeError as error:
        raise UserError(
            f"dataset: {settings.get('_target_')} cannot be created from these settings ({error})"
        ) from error
    if settings.get("name"):
        object.__setattr__(source, "name", str(settings["name"]))  # a user's own may be frozen
    object.__setattr__(source, "max_images", max_images)
    return Permuted(source) if permuted else source
