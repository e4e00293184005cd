"""The cells of a sweep: what its overrides span, checked before any of it is trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_sweep.base.errors import UserError
from vae_sweep.base.sources import own_sources
from vae_sweep.comparison.identity import Decides, decides, parts, run_key, settings_key
from vae_sweep.comparison.rows import Cell, data_label, schedule_label
from vae_sweep.config.settings import settings_of
from vae_sweep.config.validation import validate

FAMILIAR = ("model", "params", "seed")  # in a cell's name without their key
MAX_CELLS = 1000  # of one sweep; each is composed and checked before the first is trained
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher")  # their jobs see this machine's devices


def plan(config: DictConfig, root: Path) -> tuple[dict[Cell, DictConfig], dict[str, list[str]]]:
    """Return the cells that the sweep's overrides span, each with its configuration, and the swept keys with values.

    Prepares every dataset on the way. Other sweepers than Hydra's own choose their cells as they go: then there
    is no cell and nothing is known ahead. All values are checked before the first dataset is prepared.

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
    control = [key for key in swept if decides(key) is not Decides.TRAINED and not key.startswith("dataset.")]
    if control:
        raise UserError(
            f"{control[0]}={','.join(swept[control[0]])}: decides no run's numbers and cannot be swept; give one value"
        )
    if not known_ahead:
        return {}, swept
    if math.prod(map(len, spans.values())) > MAX_CELLS:
        counts = " x ".join(f"{len(values)}{'+' * (len(values) > MAX_CELLS)} {key}" for key, values in swept.items())
        raise UserError(
            f"the sweep holds more than {MAX_CELLS:,} runs ({counts}); give fewer values, or several sweeps"
        )
    configs: dict[str, tuple[list[str], DictConfig]] = {}
    for values in itertools.product(*spans.values()):
        chosen = [f"{key}={value}" for key, value in zip(spans, values, strict=True)]
        cfg = without_hydra(loader.load_sweep_config(config, chosen))
        validate(cfg)
        name = cell_name(cfg, chosen, tuple(swept))
        if name in configs:
            raise UserError(f"the sweep holds {name} twice ({' '.join(chosen)}); name every value once")
        configs[name] = chosen, cfg
    local = config.hydra.launcher["_target_"].endswith(LOCAL_LAUNCHERS)
    return _cells(configs, tuple(swept), root, local), swept


def _cells(
    configs: dict[str, tuple[list[str], DictConfig]], swept: tuple[str, ...], root: Path, local: bool
) -> dict[Cell, DictConfig]:
    """Prepare the data of every cell and check that they, the model and the device fit together."""
    from vae_sweep.datasets import announce
    from vae_sweep.sweeps.preparation import check_model, prepare, source
    from vae_sweep.training.device import resolve_device

    for _, cfg in configs.values():
        source(cfg.dataset, root)
        if local:
            resolve_device(cfg.training.device, cfg.training.precision)
    cells: dict[str, tuple[Cell, DictConfig]] = {}  # by identity
    known: dict[str, tuple[tuple[int, int, int], str]] = {}  # shape and digest of the images
    for name, (overrides, cfg) in configs.items():
        data = f"{OmegaConf.to_container(cfg.dataset)} {cfg.params.batch_size} {cfg.params.latent_dim}"
        if data not in known:
            dataset, _ = prepare(cfg, root)
            announce(dataset)
            known[data] = dataset.image_shape, dataset.digest
        shape, digest = known[data]
        check_model(cfg, shape)
        made_of = parts(digest, own_sources(cfg.model, cfg.dataset))
        key = run_key(settings_of(cfg), made_of)
        if key in cells:
            raise UserError(
                f"the sweep holds {cells[key][0].name} and {name}, which are one run; leave one of them out"
            )
        cells[key] = _cell(cfg, overrides, swept, name=name, key=key, made_of=tuple(made_of.items())), cfg
    return dict(cells.values())


def _cell(cfg: DictConfig, overrides: list[str], swept: tuple[str, ...], **identity: Any) -> Cell:
    p, o = cfg.params, cfg.objective
    return Cell(
        variant=variant(overrides, tuple(k for k in swept if k != "dataset.permute_pixels")),  # that has a label
        dataset=data_label(cfg.dataset.name, bool(cfg.dataset.get("permute_pixels"))),
        model=cfg.model.name,
        params=p.name,
        seed=cfg.seed,
        batch_size=p.batch_size,
        lr=p.lr,
        schedule=schedule_label(p.schedule, p.epochs, p.mirror),
        latent_dim=p.latent_dim,
        beta=o.beta,
        reduction=o.reduction,
        settings=settings_key(settings_of(cfg)),
        baseline=cfg.model.get("baseline") or "",
        overrides=tuple(o for o in overrides if o.partition("=")[0].lstrip("+~") in swept),
        **identity,
    )


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
