"""Data sources, and the one way to open them: ``load(create(cfg.dataset), cache_root)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from vae_sweep.base.errors import UserError
from vae_sweep.base.plugins import instantiate
from vae_sweep.datasets.base import MAX_IMAGES, SPLITS, Built, ImageDataset, Source, Split, check, hold_out
from vae_sweep.datasets.cache import load
from vae_sweep.datasets.describe import announce
from vae_sweep.datasets.permuted import Permuted

__all__ = ["SPLITS", "Built", "ImageDataset", "Source", "Split", "announce", "create", "hold_out", "load"]


def create(cfg: Mapping[Any, Any] | DictConfig) -> Source:
    """The data source that ``cfg._target_`` names, made with the other keys of `cfg` as its arguments.

    Only a class that derives from :class:`Source` is ever called, so a source of one's own needs nothing but
    its module on the Python path and a YAML that names it. ``cfg.name``, where given, becomes the source's name;
    ``cfg.permute_pixels`` shuffles the pixels of whatever the source gives, see :class:`Permuted`; ``cfg.max_images``
    limits the images of each split.

    Raises:
        UserError: `_target_` is missing, cannot be imported or is not a source, or the arguments do not fit.
    """
    settings = _plain(cfg)
    permuted, max_images = settings.pop("permute_pixels", False), settings.pop("max_images", None)
    if max_images is not None:
        whole = isinstance(max_images, int) and 1 <= max_images <= MAX_IMAGES
        check(whole, "max_images", max_images, f"a whole number from 1 to {MAX_IMAGES:,}, or null")
    try:
        source: Source = instantiate(settings, Source, "dataset")  # type: ignore[type-abstract]
    except TypeError as error:
        raise UserError(f"dataset: {settings.get('_target_')} cannot be made from its settings ({error})") from error
    if settings.get("name"):
        object.__setattr__(source, "name", str(settings["name"]))  # a source of one's own may be frozen
    object.__setattr__(source, "max_images", max_images)
    return Permuted(source) if permuted else source


def _plain(cfg: Mapping[Any, Any] | DictConfig) -> dict[str, Any]:
    if not isinstance(cfg, DictConfig):
        return {str(key): value for key, value in cfg.items()}
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue:
        missing = sorted(str(key).removeprefix("dataset.") for key in OmegaConf.missing_keys(cfg))
        given = " ".join(f"dataset.{key}=..." for key in missing)
        raise UserError(f"dataset.{missing[0]} has no value; add {given} to the command") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
