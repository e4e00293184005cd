"""What makes two runs, or two sweeps, the same one."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

# Where a run is kept, how it is started, what is measured of it afterwards: not what it computes.
RUN_CONTROL = ("paths", "tracking", "sweep", "resume", "fail_fast", "metrics")

# Keys that came later, with the value that earlier versions had built in: their runs are the same runs.
LATER = (
    ("dataset", "permute_pixels", False),
    ("params", "schedule", "constant"),
    ("params", "epochs", None),
    ("params", "mirror", False),
    ("training", "precision", "float32"),
)


def run_key(cfg: DictConfig) -> str:
    """Return the identity of a run: a hash of its resolved configuration without run-control keys.

    What is configured by way of ``paths`` counts by its name there, so that a moved project keeps its runs.
    """
    cfg = copy.deepcopy(cfg)
    for key in cfg.get("paths", {}):
        cfg.paths[key] = str(key)
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    for section, key, default in LATER:
        if key in plain.get(section, {}) and plain[section][key] == default:
            del plain[section][key]
    return _hash({key: value for key, value in plain.items() if key not in RUN_CONTROL})


def sweep_key(overrides: Iterable[str], name: str | None) -> str:
    """Return the identity of a sweep: its name, or else a hash of its overrides, in whatever order they were given."""
    if name is not None:
        return _hash(["name", name])
    return _hash(sorted(o for o in overrides if o.lstrip("+~").partition("=")[0].split(".")[0] not in RUN_CONTROL))


@cache
def code_key() -> str:
    """Return a hash of the code that decides a run's numbers: models, objective, training, evaluation."""
    package = Path(__file__).parent
    files = [package / name for name in ("objective.py", "batches.py", "training.py", "evaluation.py")]
    files += sorted((package / "models").glob("*.py"))
    return _hash([[file.name, file.read_text(encoding="utf-8")] for file in files])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
