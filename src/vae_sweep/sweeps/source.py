"""The data source of a configuration; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from vae_sweep import datasets
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path


def source(node: Mapping[str, Any], root: Path) -> datasets.Source:
    """Return the data source of a ``dataset`` config node, its relative paths seen from ``root``.

    Raises:
        UserError: where its settings cannot work.
    """
    settings = _plain(node)
    for key in ("path", "root"):
        if isinstance(settings.get(key), str) and settings[key].strip():
            settings[key] = str(resolve_path(root, settings[key], f"dataset.{key}"))
    return datasets.create(settings)


def _plain(node: Mapping[str, Any]) -> dict[str, Any]:
    """The ``dataset`` node as a dict, resolved."""
    if not isinstance(node, DictConfig):
        return dict(node)
    try:
        plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue:
        missing = sorted(str(key).removeprefix("dataset.") for key in OmegaConf.missing_keys(node))
        given = " ".join(f"dataset.{key}=..." for key in missing)
        raise UserError(f"dataset.{missing[0]} has no value; add {given} to the command") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
