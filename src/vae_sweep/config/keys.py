"""The keys of the shipped configurations, and which of them a wrong one may stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache

from vae_sweep.config import schema
from vae_sweep.config.validation import CHOICES

GROUPS = (*CHOICES, "images", "experiment")  # of conf/config.yaml's defaults list
TEXT, WHOLE = ("str", "str | None"), ("int", "int | None")  # types as the schema writes them
OTHER_TOOLS = {  # what they call a key
    "epochs": "training.max_epochs",
    "learning_rate": "params.lr",
    "accelerator": "training.device",
    "gpus": "training.device",
    "workers": "hydra.launcher.n_jobs",
}


@cache
def keys() -> dict[str, str]:
    """Return key -> type as the schema writes it, such as ``int | None``; of a config group ``choice``."""
    found = dict.fromkeys(GROUPS, "choice")
    for top in fields(schema.Config):
        kinds = schema.SCHEMAS.get(top.name, {}).values() or [top.default_factory]
        parts = {f"{top.name}.{f.name}": str(f.type) for kind in kinds if is_dataclass(kind) for f in fields(kind)}
        found |= parts or {top.name: str(top.type)}
    return found


def keys_called(name: str) -> list[str]:
    """Return the keys with this full name or this last part, such as ``params.lr`` for ``lr``."""
    if name in OTHER_TOOLS:
        return [OTHER_TOOLS[name]]
    return [key for key in keys() if name in (key, key.rpartition(".")[2]) and not key.endswith("._target_")]


def similar_keys(name: str) -> list[str]:
    """Return up to three keys that ``name``, which is none, may stand for."""
    leaf = name.lstrip("+~-").partition("=")[0].rpartition(".")[2].replace("-", "_")
    if leaf in OTHER_TOOLS:
        return [OTHER_TOOLS[leaf]]
    leaves = [key.rpartition(".")[2] for key in keys()]
    close = difflib.get_close_matches(leaf, dict.fromkeys(leaves), 2)
    return [key for like in close for key, end in zip(keys(), leaves, strict=True) if end == like][:3]


def choices_with(key: str) -> list[str]:
    """Return the choices that have ``key``, such as ``model=fc`` for ``model.hidden_dims``."""
    group, _, leaf = key.partition(".")
    kinds = schema.SCHEMAS.get(group, {})
    return [f"{group}={name}" for name, kind in kinds.items() if leaf in {f.name for f in fields(kind)}]


def closest(name: str, names: Iterable[str]) -> str:
    """Return a suggestion of the name that ``name`` resembles most; empty where it resembles none."""
    return did_you_mean(difflib.get_close_matches(name, list(names), 1))


def did_you_mean(names: list[str], otherwise: str = "") -> str:
    """Return the end of a message that suggests ``names``, or ``otherwise`` where there are none."""
    return f"; did you mean {' or '.join(names)}?" if names else otherwise
