"""A sweep's results: what the store holds of its runs, as rows, and the comparison written back to its parent."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from vae_sweep.comparison.identity import IMAGES, trained
from vae_sweep.comparison.rows import (
    Cell,
    ReferenceRow,
    Row,
    column_dict,
    csv,
    data_label,
    json_text,
    schedule_label,
    with_unique_names,
)
from vae_sweep.metrics.losses import number, spec, unit
from vae_sweep.report import sweep_figures, text
from vae_sweep.tracking.names import MADE_OF, RUN_KEY, SETTINGS
from vae_sweep.tracking.store import NAME_LIMIT, NOTE, NOTE_LIMIT, Store, StoredRun

log = logging.getLogger(__name__)

NAMES = "vae_sweep.metrics.names"  # tag: the held-out metrics of the last measuring, without prefix
TRAINING_STATE = "vae_sweep.training_state"  # tag: how training ended; with .why after it, in a sentence
REDRAW_AFTER = 60.0  # seconds: cells that end faster do not each pay for pictures
PLAN = "sweep.json"  # artifact of the parent: the cells, also those that have not started


def refresh(
    store: Store,
    parent_id: str,
    cells: Sequence[Cell],
    root: Path,
    figures: bool = True,
    changed: str | None = None,
) -> list[Row]:
    """Write the comparison of a sweep as it stands now to its parent run; return its rows.

    With ``changed``, the id of a run, that run alone is read again. Safe when several workers of one machine do it at
    once.
    """
    with FileLock(_beside(root, parent_id, "lock")):
        stored = _stored(store, parent_id, root, changed)
        rows = rows_of(stored, cells, parent_id)
        done = [row for row in rows if row.status == "FINISHED"]
        record = store.record(parent_id)
        record.set_tags({NOTE: text.markdown(rows, max_chars=NOTE_LIMIT)})
        record.log_text(csv(rows), "comparison.csv")
        record.log_text(json_text(rows), "comparison.json")
        record.log_text(text.markdown(rows), "comparison.md")
        record.log_table(column_dict(rows), "comparison_table.json")
        record.log_metrics({"cells": len(rows), "cells_finished": len(done)})
        if done and figures:
            _log_figures(store, parent_id, rows)
            _beside(root, parent_id, "drawn").touch()
    return rows


def _stored(store: Store, parent_id: str, root: Path, changed: str | None) -> list[StoredRun]:
    """The sweep's runs: all from the store, or those of the last time with the changed one read again."""
    path = _beside(root, parent_id, "runs")
    runs = {} if changed is None else {run["run_id"]: StoredRun(**run) for run in _json(path)}
    if changed is not None and runs:
        runs[changed] = store.get(changed)
    else:
        runs = {run.run_id: run for run in store.children(parent_id)}
    path.write_text(json.dumps([vars(run) for run in runs.values()]), encoding="utf-8")
    return list(runs.values())


def _json(path: Path) -> list[dict[str, Any]]:
    """What the file holds; nothing where it is missing or was not written to its end."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []


def figures_due(root: Path, parent_id: str) -> bool:
    """Return whether the sweep's pictures are old enough to be drawn again before it ends."""
    try:
        return time.time() - _beside(root, parent_id, "drawn").stat().st_mtime > REDRAW_AFTER
    except FileNotFoundError:
        return True


def _beside(root: Path, parent_id: str, kind: str) -> Path:
    """A file about a sweep's comparison, beside the artifacts."""
    return root / "mlruns" / f".{parent_id}.{kind}"


def rows_of(stored: Sequence[StoredRun], cells: Sequence[Cell], parent_id: str) -> list[Row]:
    """Return one row per cell and one per other run of the sweep, joined by identity, never by name.

    A cell without a run is PENDING. Runs of a planned configuration that have other images or code are left out.
    """
    runs: dict[str, StoredRun] = {}
    for run in stored:
        key = run.tags.get(RUN_KEY, run.run_id)
        if key not in runs or run.status == "FINISHED" or runs[key].status != "FINISHED":
            runs[key] = run
    ids = {run.name: key for key, run in runs.items()}
    planned = {cell.key or ids.get(cell.name, cell.name): cell for cell in cells}  # no keys in earlier versions
    replaced = {cell.settings for cell in cells} - {""}
    rows = []
    for key in planned | runs:
        found, cell = runs.get(key), planned.get(key)
        if found and not cell and found.tags.get(SETTINGS) in replaced:
            continue
        facts = _cell_facts(cell) if cell else {}
        row: dict[str, Any] = {"run_id": None, "status": "PENDING", "key": key} | facts
        rows.append(Row(**(row | _facts(found) | _measured(found, parent_id) if found else row)))
        if found and cell and found.name == cell.name[:NAME_LIMIT]:
            rows[-1] = replace(rows[-1], name=cell.name)
    return rows


def _cell_facts(cell: Cell) -> dict[str, Any]:
    known = {f.name for f in fields(Row)} - {"key", "settings"}
    return {key: value for key, value in asdict(cell).items() if key in known}


def _measured(run: StoredRun, parent_id: str) -> dict[str, Any]:
    """What a run's metrics and tags say, under the names of a comparison's row."""
    m = run.metrics
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "reason": run.tags.get("vae_sweep.error"),
        "trained_in": _where_trained(run, parent_id),
        "training_state": run.tags.get(TRAINING_STATE),
        "digest": run.params.get("dataset.digest"),
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
        known: dict[str, Any] = {key: facts[key] for key in ("dataset", "latent_dim", "beta", "reduction")}
        known |= {f.name: m[f"reference/{f.name}"] for f in fields(ReferenceRow) if f.name not in (*known, "metrics")}
        heldout = _test_metrics({k: v for k, v in _without(m, "reference/").items() if k not in known}, run)
        known["metrics"] = heldout | {f"test/{term}": known[f"test_{term}"] for term in ("loss", "recon", "kl")}
        found["reference"] = ReferenceRow(**known | {"active": int(known["active"])})
    found["metrics"] = _test_metrics(_without(m, "test/"), run)
    parts = {key: value for key, value in json.loads(run.tags.get(MADE_OF, "{}")).items() if key != IMAGES}
    found["configuration"] = trained({k: v for k, v in run.params.items() if k != "n_parameters"} | parts)
    return found


def _where_trained(run: StoredRun, parent_id: str) -> str | None:
    """Another sweep, or a run of its own, that trained what a sweep shows; None for the sweep's own runs."""
    if run.parent_id == parent_id:
        return None
    return f"sweep {run.parent_id[:8]}" if run.parent_id else "a run of its own"


def _test_metrics(values: Mapping[str, float], run: StoredRun) -> dict[str, float]:
    """Metrics with test/ before their names; of a run measured several times those of the last."""
    last = run.tags.get(NAMES)
    names = {*last.split(","), "loss", "recon", "kl"} if last else set(values)
    return {f"test/{key}": value for key, value in values.items() if key in names}


def _without(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The metrics whose keys begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}


def _facts(run: StoredRun) -> dict[str, Any]:
    """What a cell is, read back from its run's parameters."""
    p = run.params
    keys = {"dataset": "dataset.name", "model": "model.name", "params": "params.name", "seed": "seed"}
    keys |= {key: f"params.{key}" for key in ("batch_size", "lr", "latent_dim")}
    keys |= {key: f"objective.{key}" for key in ("beta", "reduction")}
    kinds = {"seed": int, "batch_size": int, "latent_dim": int, "lr": float, "beta": float}
    found = {key: kinds.get(key, str)(p[full]) for key, full in keys.items() if full in p}
    if "dataset" in found:
        found["dataset"] = data_label(found["dataset"], p.get("dataset.permute_pixels") == "True")
    if "lr" in found:
        epochs, mirror = p.get("params.epochs", "None"), p.get("params.mirror") == "True"
        schedule = p.get("params.schedule", "constant")
        found["schedule"] = schedule_label(schedule, None if epochs == "None" else epochs, mirror)
    return found


def _log_figures(store: Store, parent_id: str, rows: Sequence[Row]) -> None:
    """The sweep's two figures: validation loss of all cells, and all cells' samples side by side."""
    curves, cells, samples, captions = {}, {}, {}, {}
    for row in with_unique_names(rows):
        if row.run_id is None:
            continue
        history = store.history(row.run_id, ("images_seen", "val/loss"))
        if history:
            cells[row.name] = (row.model, "-".join(filter(None, [row.params, row.variant])))
            curves[row.name] = (
                np.array([epoch["images_seen"] for epoch in history]),
                np.array([epoch["val/loss"] for epoch in history]),
            )
        if row.status == "FINISHED":
            with store.artifact(row.run_id, "samples.npy") as path:
                if path:
                    samples[row.name] = np.load(path)
                    captions[row.name] = f"test {number(row.test_loss, spec(row.reduction))}"
    where = ", ".join(sorted({row.dataset for row in rows}))
    seeds = ", ".join(map(str, sorted({row.seed for row in rows if row.seed is not None})))
    record = store.record(parent_id)
    measured = unit({row.reduction for row in rows if row.reduction})
    title = f"{where}: validation loss, seed {seeds}"
    figure = sweep_figures.validation_curves(curves, cells, _reference_lines(rows), title, measured)
    record.log_figure(figure, "figures/validation_loss.png")
    if samples:
        figure = sweep_figures.sample_columns(
            samples, f"{where}: samples from the prior, seed {seeds}", captions=captions
        )
        record.log_figure(figure, "figures/samples.png")


def _reference_lines(rows: Sequence[Row]) -> dict[str, float]:
    """One line per loss of the closed form: more latents than it can use change nothing, so sizes share a line."""
    found = [row.reference for row in rows if row.reference]
    latents: dict[tuple[str, float, str, float], set[int]] = defaultdict(set)
    for line in found:
        latents[line.dataset, line.beta, line.reduction, round(line.val_loss, 6)].add(line.latent_dim)
    varying = [len({getattr(line, key) for line in found}) > 1 for key in ("dataset", "beta", "reduction")]
    lines = {}
    for (dataset, beta, reduction, loss), sizes in latents.items():
        said = [dataset, f"beta {beta:g}", reduction]
        parts = [part for part, varies in zip(said, varying, strict=True) if varies]
        lines[", ".join(["linear (closed form)", *parts, f"{_span(sizes)} latents"])] = loss
    return lines


def _span(sizes: set[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def plan_text(cells: Sequence[Cell]) -> str:
    """Return the cells as JSON, for the parent's :data:`PLAN`."""
    return json.dumps([asdict(cell) for cell in cells], indent=1)
