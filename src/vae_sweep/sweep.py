"""The sweep: opens the parent run, refreshes the comparison after every cell, closes it.

Hydra calls the callback in the first process (``on_multirun_start``, ``on_run_start``) and in every worker
(``on_job_start``); its instance is pickled into the workers, which is how they learn where they belong. Hydra only
warns about an exception in a callback, so whatever must stop the command leaves as SystemExit.
"""

from __future__ import annotations

import itertools
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vae_sweep import config as configuration
from vae_sweep.errors import UserError
from vae_sweep.messages import one_line

if TYPE_CHECKING:
    from vae_sweep.comparison import Row
    from vae_sweep.run import Context
    from vae_sweep.tracking import Store, StoredRun

configuration.register()  # workers unpickle the callback before they compose their configuration
log = logging.getLogger(__name__)

PLAN = "sweep.json"  # artifact of the parent: the cells, also those that have not started
FAMILIAR = ("model", "params", "seed")  # already in a cell's name


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's values, named like its run."""

    name: str
    dataset: str
    model: str
    params: str
    seed: int
    batch_size: int
    lr: float
    latent_dim: int
    beta: float
    reduction: str


class SweepCallback(Callback):
    """Hydra's view of a sweep; ``current`` is the one that this process works for."""

    current: SweepCallback | None = None

    def __init__(self) -> None:
        self.context: Context | None = None
        self.finalized = False
        self.failures: list[str] = []  # one line per failed cell, known once the sweep is closed

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what cannot work, prepare the data, open the parent run; nothing has been trained yet."""
        with _refusals():
            self.context = open_sweep(config)
        SweepCallback.current = self

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Open the store for a single run."""
        with _refusals():
            self.context = open_single(config)
        SweepCallback.current = self

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        SweepCallback.current = self

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.finalize()

    def finalize(self, interrupted: bool = False) -> None:
        """Close the parent run with a last comparison and print it; safe to call twice."""
        if self.finalized or self.context is None or self.context.parent_id is None:
            return
        self.finalized = True
        rows = close_sweep(self.context, interrupted)
        self.failures = [f"{row.name}: {row.reason}" for row in rows if row.status == "FAILED"]


def open_sweep(config: DictConfig) -> Context:
    """Check every cell, prepare every dataset, open the parent run.

    Raises:
        UserError: for the first cell that cannot work.
    """
    from vae_sweep.run import Context

    HydraConfig.instance().set_config(config)  # Hydra does so only when a job starts; paths refer to it
    root = _root(config)
    # Workers elsewhere may have another working directory; what was meant is this one.
    with read_write(config.hydra):
        config.hydra.overrides.hydra.append("paths.root=" + json.dumps(str(root)))
    cells, swept = plan(config, root)
    store = _open_store(config, root)
    choices = [f"{key}={','.join(values)}" for key, values in swept.items()]
    datasets = sorted({cell.dataset for cell in cells})
    record = store.start_run(
        f"{','.join(datasets) or 'sweep'}: {' '.join(choices) or 'one cell'}",
        {
            "vae_sweep.role": "sweep",
            "vae_sweep.overrides": " ".join(config.hydra.overrides.task),
            "vae_sweep.outputs": str(config.hydra.sweep.dir),
        },
    )
    record.log_text(json.dumps([asdict(cell) for cell in cells], indent=1), PLAN)
    context = Context(str(root), store.uri, store.experiment_id, record.run_id, tuple(swept))
    refresh(context, pictures=False)
    return context


def open_single(config: DictConfig) -> Context:
    """Check the configuration, prepare the data and open the store for one run without a parent.

    Raises:
        UserError: for a run that cannot work.
    """
    from vae_sweep.run import Context, check_model, prepare
    from vae_sweep.training import resolve_device

    HydraConfig.instance().set_config(config)
    root = _root(config)
    cfg = _application(config)
    configuration.validate(cfg)
    resolve_device(cfg.training.device)
    check_model(cfg, prepare(cfg, root)[0].image_shape)
    store = _open_store(config, root)
    return Context(str(root), store.uri, store.experiment_id, progress_bar=sys.stderr.isatty())


def plan(config: DictConfig, root: Path) -> tuple[list[Cell], dict[str, list[str]]]:
    """Return the cells that the sweep's overrides span, checked, and the swept keys with their values.

    Other sweepers than Hydra's own choose their cells as they go: then the list is empty and nothing is known ahead.

    Raises:
        UserError: for values, data or architectures that cannot work, naming all bad values of a cell.
    """
    from vae_sweep.run import check_model, prepare

    loader = GlobalHydra.instance().config_loader()
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    arguments += list(config.hydra.overrides.task)
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    spans: dict[str, list[str]] = {}
    for override in overrides:
        if override.is_sweep_override() and not override.is_discrete_sweep():
            return [], {}
        key = override.get_key_element()
        spans[key] = (
            [str(value) for value in override.sweep_string_iterator()]
            if override.is_sweep_override()
            else [override.get_value_element_as_str()]
        )
    swept = {key: values for key, values in spans.items() if len(values) > 1}
    if not config.hydra.sweeper["_target_"].endswith(".BasicSweeper"):
        return [], swept
    cells: dict[str, Cell] = {}
    shapes: dict[str, tuple[int, int, int]] = {}
    for values in itertools.product(*spans.values()):
        chosen = [f"{key}={value}" for key, value in zip(spans, values, strict=True)]
        cfg = _application(loader.load_sweep_config(config, chosen))
        configuration.validate(cfg)
        name = cell_name(cfg, chosen, tuple(swept))
        if name in cells:
            raise UserError(f"the sweep holds {name} twice ({' '.join(chosen)}); name every value once")
        data = str(OmegaConf.to_container(cfg.dataset, resolve=False)) + f" {cfg.params.batch_size}"
        if data not in shapes:
            shapes[data] = prepare(cfg, root)[0].image_shape
        check_model(cfg, shapes[data])
        p, o = cfg.params, cfg.objective
        cells[name] = Cell(
            *(name, cfg.dataset.name, cfg.model.name, p.name, cfg.seed),
            *(p.batch_size, p.lr, p.latent_dim, o.beta, o.reduction),
        )
    return list(cells.values()), swept


def cell_name(cfg: DictConfig, overrides: list[str], swept: tuple[str, ...]) -> str:
    """Return ``conv-p2``, with a swept seed ``conv-p2-s3``, with other swept keys ``conv-p2-beta=4``."""
    parts = [cfg.model.name, cfg.params.name]
    if "seed" in swept:
        parts.append(f"s{cfg.seed}")
    given = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    parts += [
        f"{key.rpartition('.')[2]}={given[key]}" if "." in key else given[key]
        for key in (k.lstrip("+~") for k in swept)
        if key not in FAMILIAR and key in given
    ]
    return "-".join(parts)


def refresh(context: Context, pictures: bool = True) -> list[Row]:
    """Write the comparison of a sweep as it stands now to its parent run; return its rows."""
    from vae_sweep import comparison, tracking

    assert context.parent_id is not None
    store = context.store()
    with FileLock(Path(context.root) / "mlruns" / f".{context.parent_id}.lock"):
        stored = store.children(context.parent_id)
        rows = _rows(stored, _planned(store, context.parent_id))
        record = store.record(context.parent_id)
        done = [row for row in rows if row.status == "FINISHED"]
        record.set_tags({tracking.NOTE: comparison.markdown(rows, max_chars=tracking.NOTE_LIMIT)})
        record.log_text(comparison.csv(rows), "comparison.csv")
        record.log_text(comparison.json_text(rows), "comparison.json")
        record.log_text(comparison.markdown(rows), "comparison.md")
        record.log_table(comparison.column_dict(rows), "comparison_table.json")
        record.log_metrics({"cells": len(rows), "cells_finished": len(done)})
        if pictures and done:
            _log_pictures(store, context.parent_id, rows, stored)
    return rows


def close_sweep(context: Context, interrupted: bool) -> list[Row]:
    """Close the parent run (KILLED, FAILED or FINISHED), mark cells that were torn down, print and return the rows."""
    from vae_sweep import comparison
    from vae_sweep.tracking import ui_command

    assert context.parent_id is not None
    store = context.store()
    for child in store.children(context.parent_id):
        if child.status == "RUNNING":
            store.record(child.run_id).finish("KILLED")
    rows = refresh(context)
    status = "KILLED" if interrupted else "FINISHED" if all(r.status == "FINISHED" for r in rows) else "FAILED"
    store.record(context.parent_id).finish(status)
    print(f"\n{comparison.text(rows).rstrip()}\n\n{comparison.summary(rows)}\n")
    print(f"Sweep {context.parent_id}: {status}. To compare its runs and see their pictures:")
    print(f"  {ui_command(store.uri, Path(context.root))}")
    return rows


def _rows(stored: list[StoredRun], planned: list[Cell]) -> list[Row]:
    """One row per cell: what the store has of its latest run, or PENDING."""
    from vae_sweep import comparison

    latest = {run.name: run for run in stored}
    cells = {cell.name: asdict(cell) for cell in planned}
    rows = []
    for name in cells | latest:
        run = latest.get(name)
        facts = {
            key: value for key, value in (cells.get(name) or (_facts(run) if run else {})).items() if key != "name"
        }
        rows.append(
            comparison.Row(**_measured(run), **facts) if run else comparison.Row(None, name, "PENDING", **facts)
        )
    return rows


def _measured(run: StoredRun) -> dict[str, Any]:
    """What a run's metrics and tags say, under the names of a comparison's row."""
    from vae_sweep.comparison import ReferenceRow

    m = run.metrics
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "reason": run.tags.get("vae_sweep.error"),
        "n_parameters": int(run.params["n_parameters"]) if "n_parameters" in run.params else None,
        "wall_time_s": m.get("wall_time_s"),
        "images_per_s": m.get("images_per_s"),
    }
    for key in ("epochs", "best_epoch"):
        found[key] = int(m[key]) if key in m else None
    for split, prefix in {"train": "best/train_", "val": "best/val_", "test": "test/"}.items():
        found |= {f"{split}_{term}": m.get(prefix + term) for term in ("loss", "recon", "kl")}
    if "reference/test_loss" in m:
        facts = _facts(run)
        known = {key: facts[key] for key in ("dataset", "latent_dim", "beta", "reduction")}
        values: dict[str, Any] = {f.name: m[f"reference/{f.name}"] for f in fields(ReferenceRow) if f.name not in known}
        found["reference"] = ReferenceRow(**known, **values | {"active": int(values["active"])})
    return found


def _facts(run: StoredRun) -> dict[str, Any]:
    """What a cell is, read back from its run's parameters, for sweepers that choose cells as they go."""
    p = run.params
    keys = {"dataset": "dataset.name", "model": "model.name", "params": "params.name", "seed": "seed"}
    keys |= {key: f"params.{key}" for key in ("batch_size", "lr", "latent_dim")}
    keys |= {key: f"objective.{key}" for key in ("beta", "reduction")}
    kinds = {"seed": int, "batch_size": int, "latent_dim": int, "lr": float, "beta": float}
    return {key: kinds.get(key, str)(p[full]) for key, full in keys.items() if full in p}


def _planned(store: Store, parent_id: str) -> list[Cell]:
    with store.artifact(parent_id, PLAN) as path:
        return [Cell(**cell) for cell in json.loads(path.read_text())] if path else []


def _log_pictures(store: Store, parent_id: str, rows: list[Row], stored: list[StoredRun]) -> None:
    """The sweep's two figures: validation loss of all cells, and all cells' samples side by side."""
    import numpy as np

    from vae_sweep import figures

    curves, samples, captions = {}, {}, {}
    for row in rows:
        if row.run_id is None:
            continue
        history = store.history(row.run_id, ("images_seen", "val/loss"))
        if history:
            curves[row.name] = tuple(np.array([h[key] for h in history]) for key in ("images_seen", "val/loss"))
        if row.status == "FINISHED":
            with store.artifact(row.run_id, "samples.npy") as path:
                if path:
                    samples[row.name] = np.load(path)
                    captions[row.name] = f"test {row.test_loss:.2f}"
    latents: dict[float, set[int]] = {}  # by the reference's loss: more latents than it can use change nothing
    for row in rows:
        if row.reference:
            latents.setdefault(round(row.reference.val_loss, 6), set()).add(row.reference.latent_dim)
    references = {
        f"linear (closed form), {', '.join(map(str, sorted(sizes)))} latents": loss for loss, sizes in latents.items()
    }
    where = ", ".join(sorted({row.dataset for row in rows}))
    seeds = ", ".join(map(str, sorted({row.seed for row in rows if row.seed is not None})))
    record = store.record(parent_id)
    figure = figures.validation_curves(curves, references, f"{where}: validation loss, seed {seeds}")  # type: ignore[arg-type]
    record.log_figure(figure, "figures/validation_loss.png")
    if samples:
        figure = figures.sample_columns(samples, f"{where}: samples from the prior, seed {seeds}", captions=captions)
        record.log_figure(figure, "figures/samples.png")


def _application(config: DictConfig) -> DictConfig:
    """The configuration without Hydra's own node, as a task function sees it."""
    with open_dict(config):
        plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    plain._set_parent(None)
    return plain


def _root(config: DictConfig) -> Path:
    root = OmegaConf.select(config, "paths.root", throw_on_resolution_failure=False)
    return Path(root or config.hydra.runtime.cwd).expanduser().absolute()


def _open_store(config: DictConfig, root: Path) -> Store:
    from vae_sweep.tracking import Store, store_uri

    try:
        for folder in (root / "mlruns", root / "outputs"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"paths.root={root}: cannot be written ({error.strerror}: {error.filename}); "
            "give a folder where mlruns/ and outputs/ can be made"
        ) from error
    return Store.open(store_uri(config.tracking.uri, root), root, config.tracking.experiment)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what a user can mend into one line and exit code 1; let anything else show its traceback."""
    try:
        yield
    except Exception as error:
        message = one_line(error)
        if message is None:
            log.exception("vae_sweep failed before the first run")
            raise SystemExit(1) from error
        raise SystemExit(message) from error
