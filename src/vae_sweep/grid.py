"""The cells of a sweep: what its overrides span, checked before any of it is trained."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_sweep.errors import UserError
from vae_sweep.identity import RUN_CONTROL
from vae_sweep.validation import validate

FAMILIAR = ("model", "params", "seed")  # in a cell's name without their key
PERMUTED = " (pixels permuted)"  # after a dataset's name in tables
MAX_CELLS = 1000  # of one sweep; each is composed and checked before the first is trained
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher")  # their jobs see this machine's devices


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's values, named like its run."""

    name: str
    variant: str  # what sets it apart beside model, params and seed; "" where nothing else is swept
    dataset: str
    model: str
    params: str
    seed: int
    batch_size: int
    lr: float
    schedule: str  # constant, or one_cycle with its epochs; and whether pictures are mirrored
    latent_dim: int
    beta: float
    reduction: str


def plan(config: DictConfig, root: Path) -> tuple[list[Cell], dict[str, list[str]]]:
    """Return the cells that the sweep's overrides span, checked, and the swept keys with their values.

    Prepares every dataset on the way. Other sweepers than Hydra's own choose their cells as they go: then the list
    is empty and nothing is known ahead. All values are checked before the first dataset is prepared.

    Raises:
        UserError: for values, data or architectures that cannot work, naming all bad values of a cell.
    """
    loader = GlobalHydra.instance().config_loader()
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    arguments += list(config.hydra.overrides.task)
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    known_ahead = config.hydra.sweeper["_target_"].endswith(".BasicSweeper")
    spans: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            spans[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            spans[key] = [str(value) for value in itertools.islice(override.sweep_string_iterator(), MAX_CELLS + 1)]
            if not spans[key]:
                raise UserError(f"{override.input_line}: holds no value, so there is nothing to train; give it some")
        elif known_ahead:
            raise UserError(
                f"{override.input_line}: a range without steps; list its values, or use choice() or range()"
            )
        else:
            spans[key] = [str(override.input_line).partition("=")[2], "..."]
    swept = {key.lstrip("+~"): values for key, values in spans.items() if len(values) > 1}
    control = [key for key in swept if key.partition(".")[0] in RUN_CONTROL]
    if control:
        raise UserError(
            f"{control[0]}={','.join(swept[control[0]])}: decides no run's numbers and cannot be swept; give one value"
        )
    if not known_ahead:
        return [], swept
    if math.prod(map(len, spans.values())) > MAX_CELLS:
        counts = " x ".join(f"{len(values)}{'+' * (len(values) > MAX_CELLS)} {key}" for key, values in swept.items())
        raise UserError(
            f"the sweep holds more than {MAX_CELLS:,} runs ({counts}); give fewer values, or several sweeps"
        )
    configs: dict[str, DictConfig] = {}
    variants: dict[str, str] = {}
    for values in itertools.product(*spans.values()):
        chosen = [f"{key}={value}" for key, value in zip(spans, values, strict=True)]
        cfg = application(loader.load_sweep_config(config, chosen))
        validate(cfg)
        name = cell_name(cfg, chosen, tuple(swept))
        if name in configs:
            raise UserError(f"the sweep holds {name} twice ({' '.join(chosen)}); name every value once")
        configs[name] = cfg
        variants[name] = variant(chosen, tuple(key for key in swept if key != "dataset.permute_pixels"))  # has a label
    local = config.hydra.launcher["_target_"].endswith(LOCAL_LAUNCHERS)
    return _cells(configs, variants, root, local), swept


def _cells(configs: dict[str, DictConfig], variants: dict[str, str], root: Path, local: bool) -> list[Cell]:
    """Prepare the data of every cell and check that they, the model and the device fit together."""
    from vae_sweep.preparation import check_model, prepare, source
    from vae_sweep.training import resolve_device

    for cfg in configs.values():
        source(cfg.dataset, root)
        if local:
            resolve_device(cfg.training.device)
    cells = []
    shapes: dict[str, tuple[int, int, int]] = {}
    for name, cfg in configs.items():
        data = f"{OmegaConf.to_container(cfg.dataset)} {cfg.params.batch_size} {cfg.params.latent_dim}"
        if data not in shapes:
            shapes[data] = prepare(cfg, root)[0].image_shape
        check_model(cfg, shapes[data])
        p, o = cfg.params, cfg.objective
        cells.append(
            Cell(
                *(
                    name,
                    variants[name],
                    data_label(cfg.dataset.name, bool(cfg.dataset.get("permute_pixels"))),
                    cfg.model.name,
                    p.name,
                    cfg.seed,
                ),
                *(p.batch_size, p.lr, schedule_label(p.schedule, p.epochs, p.mirror)),
                *(p.latent_dim, o.beta, o.reduction),
            )
        )
    return cells


def schedule_label(schedule: str, epochs: int | str | None, mirror: bool) -> str:
    """Return how tables call a schedule of the learning rate: ``constant``, ``one_cycle over 8 epochs, mirrored``."""
    label = schedule if epochs is None else f"{schedule} over {epochs} epochs"
    return f"{label}, mirrored" if mirror else label


def data_label(name: str, permuted: bool) -> str:
    """Return how tables call a dataset: ``cifar10``, or ``cifar10 (pixels permuted)``."""
    return f"{name}{PERMUTED}" if permuted else name


def cell_name(cfg: DictConfig, overrides: list[str], swept: tuple[str, ...]) -> str:
    """Return ``conv-p2``, with a swept seed ``conv-p2-s3``, with other swept keys ``conv-p2-beta=4``."""
    parts = [cfg.model.name, cfg.params.name, f"s{cfg.seed}" if "seed" in swept else "", variant(overrides, swept)]
    return "-".join(filter(None, parts))


def variant(overrides: list[str], swept: tuple[str, ...]) -> str:
    """Return what a job's overrides say of the swept keys that are neither model, params nor seed: ``beta=4``."""
    given = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    keys = [key for key in swept if key not in FAMILIAR and key in given]
    return "-".join(f"{key.rpartition('.')[2]}={given[key]}" if "." in key else given[key] for key in keys)


def application(config: DictConfig) -> DictConfig:
    """Return the configuration without Hydra's own node, as a task function sees it."""
    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain._set_parent(None)
    return plain
