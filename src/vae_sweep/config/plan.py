"""The cells of a sweep: what its overrides span, checked before any of it is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_sweep.base.errors import UserError
from vae_sweep.comparison.identity import Decides, decides, flatten
from vae_sweep.config.validation import validate

FAMILIAR = ("model", "params", "seed")  # in a cell's name without their key
MAX_CELLS = 1000  # of one sweep; each is composed and checked before the first is trained
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher")  # their jobs see this machine's devices


def plan(config: DictConfig) -> tuple[dict[str, tuple[list[str], DictConfig]], dict[str, list[str]]]:
    """Return the cells that the sweep's overrides span, and the swept keys with their values.

    A cell's name comes with its overrides and its configuration. Other sweepers than Hydra's own choose their cells as
    they go: then there is no cell yet.

    Raises:
        UserError: for values that cannot work, naming all bad values of a cell.
    """
    loader = GlobalHydra.instance().config_loader()
    known_ahead = config.hydra.sweeper["_target_"].endswith(".BasicSweeper")
    spans = _spans(config, known_ahead)
    swept = {key.lstrip("+~"): values for key, values in spans.items() if len(values) > 1}
    control = [key for key in swept if decides(key) is not Decides.TRAINED and not key.startswith("dataset.")]
    if control:
        raise UserError(
            f"{control[0]}={','.join(swept[control[0]])}: cannot be swept, because it changes no run's numbers; "
            "give one value"
        )
    if not known_ahead:
        return {}, swept
    if math.prod(map(len, spans.values())) > MAX_CELLS:
        counts = " x ".join(f"{len(values)}{'+' * (len(values) > MAX_CELLS)} {key}" for key, values in swept.items())
        raise UserError(
            f"the sweep holds more than {MAX_CELLS:,} runs ({counts}); give fewer values, or several sweeps"
        )
    cells: dict[str, tuple[list[str], DictConfig]] = {}
    for values in itertools.product(*spans.values()):
        chosen = [f"{key}={value}" for key, value in zip(spans, values, strict=True)]
        cfg = without_hydra(loader.load_sweep_config(config, chosen))
        validate(cfg)
        if "experiment" in swept:
            _check_whole(config, cfg, chosen)
        name = cell_name(cfg, chosen, tuple(swept))
        if name in cells:
            raise UserError(f"the sweep holds {name} twice ({' '.join(chosen)}); name every value once")
        cells[name] = chosen, cfg
    return cells, swept


def _check_whole(config: DictConfig, cell: DictConfig, chosen: list[str]) -> None:
    """Refuse a swept experiment that sets what a sweep has once, such as the store."""
    whole = flatten(OmegaConf.to_container(without_hydra(config)))
    for key, value in flatten(OmegaConf.to_container(cell)).items():
        once = decides(key) is Decides.PLACE or key == "metrics.features"
        if once and key.partition(".")[0] not in ("model", "dataset") and whole.get(key) != value:
            experiment = next(word for word in chosen if word.startswith("experiment="))
            raise UserError(
                f"{experiment}: it sets {key}={value}, which a sweep has once and not for some of its runs; "
                f"set {key} for the whole sweep instead"
            )


def _spans(config: DictConfig, known_ahead: bool) -> dict[str, list[str]]:
    """Values of every key that the command or the sweeper's ``params`` give, as they are written."""
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    arguments += list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    spans: dict[str, list[str]] = {}
    for override in parser.parse_overrides(arguments):
        key = override.get_key_element()
        if not override.is_sweep_override():
            spans[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            spans[key] = [str(value) for value in itertools.islice(override.sweep_string_iterator(), MAX_CELLS + 1)]
            if not spans[key]:
                raise UserError(f"{override.input_line}: has no value; give at least one")
        elif known_ahead:
            raise UserError(
                f"{override.input_line}: an interval has no steps; list its values, or use choice() or range()"
            )
        else:
            spans[key] = [str(override.input_line).partition("=")[2], "..."]
    return spans


def is_local(config: DictConfig) -> bool:
    """Return whether the sweep's jobs see this machine's devices."""
    return str(config.hydra.launcher["_target_"]).endswith(LOCAL_LAUNCHERS)


def cell_name(cfg: DictConfig, overrides: list[str], swept: tuple[str, ...]) -> str:
    """Return ``conv-p2``, with a swept seed ``conv-p2-s3``, with other swept keys ``conv-p2-beta=4``."""
    parts = [cfg.model.name, cfg.params.name, f"s{cfg.seed}" if "seed" in swept else "", variant(overrides, swept)]
    return "-".join(filter(None, parts))


def variant(overrides: list[str], swept: tuple[str, ...]) -> str:
    """Return what a job's overrides say of the swept keys that are neither model, params nor seed: ``beta=4``."""
    given = {key.lstrip("+~"): value for key, value in by_key(overrides).items()}
    keys = [key for key in swept if key not in FAMILIAR and key in given]
    return "-".join(f"{key.rpartition('.')[2]}={given[key]}" if "." in key else given[key] for key in keys)


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """Return overrides as key -> value; of one key given several times the last counts."""
    return {key: value for key, _, value in (override.partition("=") for override in overrides)}


def without_hydra(config: DictConfig) -> DictConfig:
    """Return the configuration without Hydra's own node, as a task function sees it."""
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain._set_parent(None)
    return plain
