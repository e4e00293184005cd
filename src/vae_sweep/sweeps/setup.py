"""What the first process decides once for all runs: project folder, tracking store, feature network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from vae_sweep.base.errors import UserError
from vae_sweep.config.plan import is_local

if TYPE_CHECKING:
    from vae_sweep.tracking.store import Store


def choose_features(config: DictConfig, root: Path) -> tuple[str, str]:
    """The feature network of all runs, decided once, and why.

    Raises:
        UserError: where the requested one is not available.
    """
    import torch

    from vae_sweep.base.system import resolve_path
    from vae_sweep.metrics.features import resolve
    from vae_sweep.training.device import resolve_device

    name, weights = config.training.device, config.metrics.inception_weights
    if is_local(config):
        name = str(resolve_device(name))
    device = torch.device("cpu" if name == "auto" else name)  # jobs elsewhere may have what this machine has not
    path = str(resolve_path(root, weights, "metrics.inception_weights")) if weights else None
    return resolve(config.metrics.features, path, device)


def project_root(config: DictConfig) -> Path:
    """The project folder, absolute.

    Raises:
        UserError: where its name cannot be handed to a worker as it is.
    """
    named = OmegaConf.select(config, "paths.root", throw_on_resolution_failure=False)
    root = Path(named or config.hydra.runtime.cwd)
    if not root.is_absolute():
        raise UserError(f"paths.root={named}: must be an absolute path, or left out for the current folder")
    if "${" in str(root) or "\\" in str(root):
        raise UserError(
            f"paths.root={root}: the folder name has ${{ or a backslash, which Hydra cannot read; use another folder"
        )
    try:
        str(root).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(root).decode(errors="backslashreplace")
        raise UserError(f"paths.root={shown}: the folder name is not valid UTF-8; rename it") from error
    return root


def quoted(value: str) -> str:
    """A value as Hydra's command line takes it, whatever it holds but a backslash."""
    return '"' + value.replace('"', '\\"') + '"'


def open_store(config: DictConfig, root: Path) -> Store:
    from vae_sweep.tracking.store import Store
    from vae_sweep.tracking.uris import masked, store_uri

    try:
        for folder in (root / "mlruns", root / "outputs"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"paths.root={root}: cannot be written ({error.strerror}: {error.filename}); "
            "give a folder where mlruns/ and outputs/ can be made"
        ) from error
    uri = store_uri(config.tracking.uri, root)
    if config.tracking.uri and masked(config.tracking.uri) != config.tracking.uri:
        _hide_password(config, masked(config.tracking.uri))
        HydraConfig.instance().set_config(config)  # its copy travels, too
    return Store.open(uri, root, config.tracking.experiment)


def _hide_password(config: DictConfig, shown: str) -> None:
    """Hydra prints the overrides and keeps them with the results; workers get the address by another way."""
    given, job, masked_override = config.tracking.uri, config.hydra.job, f"tracking.uri={quoted(shown)}"
    with read_write(config), read_write(config.hydra):
        config.tracking.uri = shown
        for overrides in (config.hydra.overrides.task, config.hydra.overrides.hydra):
            for index, override in enumerate(overrides):
                named = override.lstrip("+").startswith("tracking.uri=")
                overrides[index] = masked_override if named else override.replace(given, shown)
        config.hydra.overrides.hydra.append(masked_override)  # where it stands in a file of the user's
        job.override_dirname = (job.override_dirname or "").replace(given, shown)


def finished_anywhere(config: DictConfig, store: Store) -> set[str]:
    """Return the identities of the runs of any sweep that this machine need not train again."""
    from vae_sweep.sweeps.environment import machine_kind
    from vae_sweep.training.device import resolve_device

    return store.finished_keys(machine_kind(resolve_device(config.training.device)))
