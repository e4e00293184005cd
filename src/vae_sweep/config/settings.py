"""What a run's identity takes from its configuration."""

from __future__ import annotations

import copy
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_sweep.comparison.identity import flatten, trained


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """Return what decides the trained numbers of a configuration: dotted key -> value, resolved.

    Values that refer to ``paths`` count by the name there, so that a moved project keeps its runs. A whole number as
    ``objective.variance`` is the same number with a point.
    """
    cfg = copy.deepcopy(cfg)
    for key in cfg.get("paths", {}):
        cfg.paths[key] = str(key)
    settings = trained(flatten(OmegaConf.to_container(cfg, resolve=True)))
    if isinstance(variance := settings.get("objective.variance"), int):
        settings["objective.variance"] = float(variance)
    return settings
