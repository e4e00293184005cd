"""The one answer to "is this the same run?".

:data:`TABLE` says of every configuration key what it decides. From it follow the identity of runs and sweeps, which
rows of tables are the same run, and which runs may be paired.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from vae_sweep.base.versions import TRAINING_VERSION


class Decides(Enum):
    """What a configuration key decides."""

    TRAINED = "the trained numbers: another value is another run"
    MEASURED = "the measured numbers: with another value a finished run is measured again"
    SHOWN = "what is shown: with another value the figures of a finished run are drawn again"
    PLACE = "where things are, how a run is started, what it is compared with: none of its numbers depends on it"


IMAGES, SPLITS = "the images", "the splits or labels of the images"  # parts of a run, beside its configuration
TRAINING_CODE = "the training code of vae_sweep"  # another

# A key decides what its longest entry here says; a key without one decides the trained numbers.
TABLE = {
    "paths": Decides.PLACE,
    "tracking": Decides.PLACE,
    "sweep": Decides.PLACE,
    "resume": Decides.PLACE,
    "fail_fast": Decides.PLACE,
    "progress": Decides.PLACE,
    "register": Decides.PLACE,
    "dataset.path": Decides.PLACE,  # images are known by their digest, wherever they lie
    "dataset.root": Decides.PLACE,
    "dataset.download": Decides.PLACE,
    "model.baseline": Decides.PLACE,
    "metrics": Decides.MEASURED,
    "metrics.inception_weights": Decides.PLACE,  # the file's content is checked
    "evaluation": Decides.SHOWN,
    "evaluation.noise_draws": Decides.TRAINED,  # of the test loss, which is a run's own result
}

# Keys that came later, with the value that earlier versions had built in: their runs are the same runs.
LATER = {
    "dataset.permute_pixels": False,
    "dataset.max_images": None,
    "dataset.splits": "auto",
    "dataset.value_range": None,
    "params.schedule": "constant",
    "params.epochs": None,
    "params.mirror": False,
    "training.precision": "float32",
    "training.clip_grad_norm": None,
    "objective.variance": 0.5,
    "objective.warmup": 0.0,
    TRAINING_CODE: "version 1",
}


def decides(key: str) -> Decides:
    """Return what the configuration key ``key`` (dotted) decides."""
    while key not in TABLE and "." in key:
        key = key.rpartition(".")[0]
    return TABLE.get(key, Decides.TRAINED)


def trained(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a flat configuration, or of a run's stored parameters, that decide the trained numbers."""
    return {
        key: value
        for key, value in flat.items()
        if decides(key) is Decides.TRAINED and not (key in LATER and str(value) == str(LATER[key]))
    }


def shared(configuration: Mapping[str, str]) -> dict[str, str]:
    """Return what two runs must share to be a pair: all of a run's stored configuration but architecture and seed.

    Images are told by the name and digest of the data set, and a user's own modules belong to the architecture.
    """
    return {
        key: value
        for key, value in configuration.items()
        if key != "seed" and not key.startswith("dataset.") and not _of_architecture(key)
    }


def architecture(configuration: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """Return what a run's stored configuration says of its model: its class and arguments, a user's own modules."""
    return frozenset((key, value) for key, value in configuration.items() if _of_architecture(key))


def _of_architecture(key: str) -> bool:
    return key.startswith("model.") or key.endswith(".py")


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, keys joined by dots."""
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    return {k: v for key, value in node.items() for k, v in flatten(value, f"{prefix}{key}.").items()}


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return a hash of what is configured of a run (:func:`trained`): the same for other images and other code."""
    return _hash(settings)


def parts(digest: str, sources: Mapping[str, str], arrangement: str = "") -> dict[str, str]:
    """Return what makes a run beside its configuration, each part by its name.

    ``digest``: hash of its images. ``sources``: text of a user's own modules, by name. ``arrangement``: hash of the
    splits and labels, where images and settings do not decide them.
    """
    own = {f"{module}.py": _hash(text) for module, text in sources.items()}
    splits = {SPLITS: arrangement} if arrangement else {}
    return {IMAGES: digest, **splits, TRAINING_CODE: f"version {TRAINING_VERSION}", **own}


def in_short(made_of: Mapping[str, str], most: int) -> str:
    """Return :func:`parts` as JSON, where it has more than ``most`` characters the user's own modules as one."""
    text = json.dumps(dict(made_of))
    if len(text) <= most:
        return text
    own = {key: value for key, value in made_of.items() if key.endswith(".py")}
    return json.dumps({**{k: v for k, v in made_of.items() if k not in own}, f"{len(own)} modules.py": _hash(own)})


def made_of_text(text: str) -> dict[str, str]:
    """Return what :func:`in_short` wrote; empty where it was cut, as earlier versions did."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return {}


def run_key(settings: Mapping[str, Any], made_of: Mapping[str, str]) -> str:
    """Return the identity of a run: a hash of its configuration (:func:`trained`) and of its :func:`parts`."""
    return _hash([settings, dict(made_of)])


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return which parts differ, in words; splits and labels only where both know them."""
    keys = {*before, *now} - ({SPLITS} if SPLITS not in before or SPLITS not in now else set())
    return " and ".join(key for key in sorted(keys) if before.get(key) != now.get(key))


def sweep_key(runs: Iterable[str], name: str | None) -> str:
    """Return the identity of a sweep: its name, or else the identities of its runs, in whatever order."""
    return _hash(["name", name] if name is not None else sorted(runs))


@cache
def training_code() -> str:
    """Return a hash of the texts that train, to tell whether two processes of one sweep have the same installed."""
    package = Path(__file__).parents[1]
    files = [file for room in ("models", "training") for file in sorted((package / room).glob("*.py"))]
    return _hash([[file.name, file.read_text(encoding="utf-8")] for file in files])


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
