"""Ranges and names that the schema's types cannot express: every bad value of a configuration in one line.

Arguments of a model or a data source are checked by its class.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from vae_sweep.base.errors import UserError
from vae_sweep.config.schema import Config


def _whole(low: int, high: int, note: str = "") -> tuple[Callable[[Any], bool], str]:
    return lambda v: low <= v <= high, f"a whole number from {low} to {high:,}{note}"


def _number(low: str, high: str, note: str = "") -> tuple[Callable[[Any], bool], str]:
    return lambda v: float(low) <= v <= float(high), f"a number from {low} to {high}{note}"


def _device(value: str) -> bool:
    return re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None


SECTIONS = (
    *("model", "dataset", "params", "objective", "training", "evaluation", "metrics"),
    *("paths", "tracking", "sweep"),
)
CHOICES = {"model": "_target_", "dataset": "_target_", "params": "name"}  # and a key that each choice has
_NAME = (  # names end up in the paths of folders
    lambda v: re.fullmatch(r"[\w-][\w.-]*", v) is not None and len(v.encode()) <= 100,
    "up to 100 letters, digits, '_', '-' and '.', not starting with '.'",
)

# Within these bounds results fit into float32, and runs end.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "progress": (
        lambda v: v in ("auto", "table", "plain", "log", "none"),
        "auto (a table on a terminal, else plain), table, plain, log (every epoch) or none",
    ),
    "register": (lambda v: v is None or _NAME[0](v), f"a name ({_NAME[1]}), or null"),
    "seed": (lambda v: 0 <= v < 2**63, "a whole number from 0 to 2^63 - 1"),
    "model.name": _NAME,
    "model.baseline": (lambda v: v is None or _NAME[0](v), f"the name of a model ({_NAME[1]}), closed_form or null"),
    "dataset.name": _NAME,
    "params.name": _NAME,
    "params.batch_size": (lambda v: v >= 1, "a whole number >= 1 (images per update)"),
    "params.lr": _number("1e-12", "1e12"),
    "params.latent_dim": _whole(1, 65536),
    "params.schedule": (lambda v: v in ("constant", "one_cycle"), "constant or one_cycle"),
    "params.epochs": (lambda v: v is None or 1 <= v <= 1_000_000, "a whole number from 1 to 1,000,000, or null"),
    "objective.beta": _number("1e-6", "1e6", " (1 = the ELBO)"),
    "objective.variance": (
        lambda v: v in ("optimal", "learned") or (not isinstance(v, (bool, str)) and 1e-6 <= v <= 1e6),
        "a number from 1e-6 to 1e6 (squared units of [0, 1]), optimal or learned",
    ),
    "objective.warmup": _number("0", "1e6", " (epochs)"),
    "objective.reduction": (lambda v: v in ("sum", "mean"), "sum or mean"),
    "training.max_epochs": _whole(1, 1_000_000),
    "training.patience": _whole(1, 1_000_000, " (epochs)"),
    "training.min_delta": _number("0", "1e12", " (nats/image)"),
    "training.clip_grad_norm": (lambda v: v is None or 0 < v <= 1e12, "a number > 0, or null"),
    "training.device": (_device, "auto, cpu, cuda, cuda:N or mps"),
    "training.channels_last": (lambda v: v == "auto" or isinstance(v, bool), "auto, true or false"),
    "training.compile": (
        lambda v: isinstance(v, bool) or v in ("reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        "false, true, reduce-overhead, max-autotune or max-autotune-no-cudagraphs",
    ),
    "training.precision": (lambda v: v in ("float32", "tf32", "bfloat16", "auto"), "float32, tf32, bfloat16 or auto"),
    "training.threads": _whole(1, 256),
    "tracking.retry_seconds": _number("0", "1e6", " (seconds)"),
    "evaluation.noise_draws": _whole(1, 1000),
    "evaluation.n_samples": _whole(1, 1024),
    "evaluation.n_interpolations": _whole(1, 64),
    "metrics.iwae_samples": _whole(0, 10_000, " (0 = none)"),
    "metrics.iwae_images": _whole(1, 10_000_000),
    "metrics.gmm_components": _whole(0, 1000, " (0 = none)"),
    "metrics.ssim_images": _whole(0, 10_000_000, " (0 = none)"),
    "metrics.features": (
        lambda v: v in ("auto", "inception", "efficientnet_lite0", "none"),
        "auto, inception, efficientnet_lite0 or none",
    ),
    "metrics.feature_images": _whole(50, 10_000_000),
    "sweep.name": (lambda v: v is None or bool(v.strip()), "a name, or null"),
    "tracking.experiment": (lambda v: bool(v.strip()), "a name"),
}


_LAUNCHER: dict[str, tuple[Callable[[Any], bool], str]] = {
    "launcher.n_jobs": (lambda v: v != 0, "1, a number of runs at once, or -1 (as many as CPU cores)"),
    "launcher.prefer": (lambda v: v in ("processes", "threads"), "processes or threads"),
    "launcher.batch_size": (lambda v: v == "auto" or int(v) >= 1, "auto or a whole number >= 1"),
    "launcher.pre_dispatch": (
        lambda v: re.fullmatch(r"all|[1-9]\d*|([1-9]\d*\*)?n_jobs", v) is not None,
        "all, a whole number >= 1, or a multiple such as 2*n_jobs",
    ),
    "launcher.timeout": (lambda v: v > 0, "a number > 0 (seconds), or null"),
    "launcher.max_nbytes": (lambda v: re.fullmatch(r"\d+[KMG]?", v) is not None, "a size such as 50M, or null"),
    "launcher.mmap_mode": (lambda v: v in ("r", "r+", "w+", "c"), "r, r+, w+ or c"),
    **dict.fromkeys(
        (
            *("launcher.timeout_min", "launcher.cpus_per_task", "launcher.nodes", "launcher.tasks_per_node"),
            *("launcher.mem_gb", "launcher.array_parallelism", "launcher.ray.init.num_cpus", "sweeper.max_batch_size"),
        ),
        (lambda v: v >= 1, "a whole number >= 1"),
    ),
    **dict.fromkeys(
        (
            *("launcher.signal_delay_s", "launcher.max_num_timeout", "launcher.gpus_per_node"),
            *("launcher.ray.remote.num_cpus", "launcher.ray.remote.num_gpus", "launcher.ray.init.num_gpus"),
        ),
        (lambda v: v >= 0, "a number >= 0"),
    ),
}


def validate_launcher(hydra: DictConfig) -> None:
    """Check what Hydra hands to a launcher and its sweeper, which check it only after the sweep was opened.

    Raises:
        UserError: one line that names every bad value.
    """
    given = {key: OmegaConf.select(hydra, key) for key in _LAUNCHER}
    problems = [
        f"hydra.{key}={value}: must be {_LAUNCHER[key][1]}"
        for key, value in given.items()
        if value is not None and not _holds(_LAUNCHER[key][0], value)
    ]
    if hydra.launcher["_target_"].endswith(".SlurmLauncher") and shutil.which("srun") is None:
        problems.append("hydra/launcher=slurm: there is no `srun` here; start the sweep on a machine of the cluster")
    if problems:
        raise UserError("; ".join(problems))


def validate(cfg: DictConfig) -> None:
    """Check what types cannot express.

    Raises:
        UserError: one line that names every bad value.
    """
    replaced = [key for key in SECTIONS if OmegaConf.is_interpolation(cfg, key)]
    if replaced:
        raise UserError(f"{replaced[0]}: a section cannot be replaced by another; set the keys in it one by one")
    problems = [
        f"+{key}: no such key; a `+` cannot add one here; known keys: {', '.join(known)}"
        for key, known in _unknown_keys(cfg)
    ]
    missing = [key for key, mark in CHOICES.items() if OmegaConf.select(cfg, f"{key}.{mark}") is None]
    problems += [
        f"{key}.{CHOICES[key]}: the YAML that was chosen has none; add a line `{CHOICES[key]}: ...` to it"
        if cfg.get(key)
        else f"{key}: nothing is chosen; give {key}=<name>, --help lists the names"
        for key in missing
    ]
    for key, (ok, allowed) in _RANGES.items():
        value = OmegaConf.select(cfg, key)
        if key.partition(".")[0] not in missing and not _holds(ok, value):
            problems.append(f"{key}{' has no value' if value is None else f'={value}'}: must be {allowed}")
    problems += [] if "params" in missing else _contradictions(cfg)
    if problems:
        raise UserError("; ".join(problems))


def _contradictions(cfg: DictConfig) -> Iterator[str]:
    """Values that do not go together."""
    params = cfg.params
    if (params.schedule == "one_cycle") != (params.epochs is not None):
        yield (
            f"params.schedule={params.schedule} params.epochs={params.epochs}: a one_cycle needs its number of "
            "epochs, and a constant learning rate ends by early stopping (training.patience, training.max_epochs)"
        )
    if cfg.objective.reduction == "mean" and cfg.objective.variance != 0.5:
        yield (
            f"objective.reduction=mean objective.variance={cfg.objective.variance}: the mean implies a variance of its "
            "own (half the number of values); leave one of both out"
        )
    epochs = min(params.epochs or cfg.training.max_epochs, cfg.training.max_epochs)
    if cfg.objective.warmup > epochs:
        yield (
            f"objective.warmup={cfg.objective.warmup:g}: longer than the training of at most {epochs} epochs, so "
            "objective.beta would never be reached; give a shorter one"
        )
    if params.mirror and OmegaConf.select(cfg, "dataset.permute_pixels"):
        yield "params.mirror=true: images whose pixels are permuted have no left and right; give only one of both"


def _holds(ok: Callable[[Any], bool], value: Any) -> bool:
    try:
        return ok(value)
    except (TypeError, AttributeError, ValueError):
        return False


def _unknown_keys(node: DictConfig, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Keys that a `+` override added to a node whose schema does not have them."""
    schema = OmegaConf.get_type(node) if path else Config  # without Hydra's node the whole has lost its type
    known = [f.name for f in fields(schema)] if is_dataclass(schema) else None
    for key in map(str, node):
        full = f"{path}{key}"
        if known is not None and key not in known:
            yield full, known
        elif (
            not OmegaConf.is_missing(node, key)
            and not OmegaConf.is_interpolation(node, key)
            and isinstance(node._get_node(key), DictConfig)
            and node[key] is not None
        ):
            yield from _unknown_keys(node[key], f"{full}.")
