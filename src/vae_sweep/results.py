"""A sweep's results: what the store holds of its runs, as rows, and the comparison written back to its parent."""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from vae_sweep import comparison, figures, table
from vae_sweep.comparison import ReferenceRow, Row
from vae_sweep.grid import Cell, data_label, schedule_label
from vae_sweep.identity import LATER, RUN_CONTROL
from vae_sweep.tracking import NOTE, NOTE_LIMIT, Store, StoredRun

log = logging.getLogger(__name__)

NAMES = "vae_sweep.metrics.names"  # tag: the held-out metrics of the last measuring, without prefix
REDRAW_AFTER = 60.0  # seconds: cells that end faster do not each pay for pictures
PLAN = "sweep.json"  # artifact of the parent: the cells, also those that have not started


def refresh(store: Store, parent_id: str, cells: Sequence[Cell], root: Path, pictures: bool = True) -> list[Row]:
    """Write the comparison of a sweep as it stands now to its parent run; return its rows.

    Safe when several workers of one machine do it at once.
    """
    with FileLock(root / "mlruns" / f".{parent_id}.lock"):
        stored = store.children(parent_id)
        rows = rows_of(stored, cells)
        done = [row for row in rows if row.status == "FINISHED"]
        record = store.record(parent_id)
        record.set_tags({NOTE: table.markdown(rows, max_chars=NOTE_LIMIT)})
        record.log_text(comparison.csv(rows), "comparison.csv")
        record.log_text(comparison.json_text(rows), "comparison.json")
        record.log_text(table.markdown(rows), "comparison.md")
        record.log_table(comparison.column_dict(rows), "comparison_table.json")
        record.log_metrics({"cells": len(rows), "cells_finished": len(done)})
        if done and pictures:
            _log_pictures(store, parent_id, rows)
            _drawn(root, parent_id).touch()
    return rows


def pictures_are_due(root: Path, parent_id: str) -> bool:
    """Return whether the sweep's pictures are old enough to be drawn again before it ends."""
    try:
        return time.time() - _drawn(root, parent_id).stat().st_mtime > REDRAW_AFTER
    except FileNotFoundError:
        return True


def _drawn(root: Path, parent_id: str) -> Path:
    """A file as old as the sweep's pictures."""
    return root / "mlruns" / f".{parent_id}.drawn"


def rows_of(stored: Sequence[StoredRun], cells: Sequence[Cell]) -> list[Row]:
    """Return one row per cell: what the store has of its latest run, or PENDING."""
    latest = {run.name: run for run in stored}
    planned = {cell.name: asdict(cell) for cell in cells}
    rows = []
    for name in planned | latest:
        run = latest.get(name)
        facts = planned.get(name) or (_facts(run) if run else {})
        row = {"run_id": None, "name": name, "status": "PENDING"} | facts
        rows.append(Row(**(row | _measured(run) if run else row)))
    return rows


def _measured(run: StoredRun) -> dict[str, Any]:
    """What a run's metrics and tags say, under the names of a comparison's row."""
    m = run.metrics
    found: dict[str, Any] = {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "reason": run.tags.get("vae_sweep.error"),
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
    found["configuration"] = {key: value for key, value in run.params.items() if _decides(key, value)}
    return found


def _test_metrics(values: Mapping[str, float], run: StoredRun) -> dict[str, float]:
    """Metrics with test/ before their names; of a run measured several times those of the last."""
    last = run.tags.get(NAMES)
    names = {*last.split(","), "loss", "recon", "kl"} if last else set(values)
    return {f"test/{key}": value for key, value in values.items() if key in names}


def _decides(key: str, value: str) -> bool:
    """Whether a parameter of a run decides its numbers; an image that is the same elsewhere is known by its digest."""
    where = ("n_parameters", "dataset.path", "dataset.root", "dataset.download", "training.device")
    old = any(key == f"{section}.{name}" and value == str(default) for section, name, default in LATER)
    return key.partition(".")[0] not in RUN_CONTROL and key not in where and not old


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


def _log_pictures(store: Store, parent_id: str, rows: Sequence[Row]) -> None:
    """The sweep's two figures: validation loss of all cells, and all cells' samples side by side."""
    curves, cells, samples, captions = {}, {}, {}, {}
    for row in rows:
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
                    captions[row.name] = f"test {row.test_loss:.2f}"
    where = ", ".join(sorted({row.dataset for row in rows}))
    seeds = ", ".join(map(str, sorted({row.seed for row in rows if row.seed is not None})))
    record = store.record(parent_id)
    figure = figures.validation_curves(curves, cells, _reference_lines(rows), f"{where}: validation loss, seed {seeds}")
    record.log_figure(figure, "figures/validation_loss.png")
    if samples:
        figure = figures.sample_columns(samples, f"{where}: samples from the prior, seed {seeds}", captions=captions)
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
