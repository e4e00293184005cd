"""What the store holds of one or several sweeps, gathered for a report."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_sweep.comparison import pairing
from vae_sweep.comparison.convergence import Facts, Limits, judge
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Cell, Row, is_finite
from vae_sweep.datasets.describe import RECORD
from vae_sweep.metrics import catalogue
from vae_sweep.report import publish
from vae_sweep.sweeps.remeasure import MEASURED, REFERENCE, SPECTRUM, UNDEFINED
from vae_sweep.tracking.store import Store, StoredRun


def gather(store: Store, sweeps: Sequence[StoredRun], pictures: bool = True) -> Evidence:
    """Return the evidence of the sweeps whose own runs are given; with ``pictures`` also arrays for figures."""
    found: list[Row] = []
    stored: dict[str | None, StoredRun] = {}
    for sweep in sweeps:
        children = store.children(sweep.run_id)
        stored |= {run.run_id: run for run in children}
        found += publish.rows_of(children, _plan(store, sweep.run_id), sweep.run_id)
    found = [_with_training(store, row, stored) for row in found]
    found, notes = pairing.without_repeats(found)
    rows = pairing.with_unique_sets(found)
    done = [row for row in rows if row.status == "FINISHED"]
    known = catalogue.described({key for row in done for key, value in row.metrics.items() if is_finite(value)})
    metrics = tuple(pairing.of_loss(metric, done) for metric, _ in known if not metric.key.endswith("_floor"))
    groups = {metric.key: tuple(pairing.groups_of(done, metric)) for metric in metrics}
    runs = [stored[row.run_id] for row in rows if row.run_id in stored]
    contrasts = pairing.contrasts_of(done, metrics)
    return Evidence(
        title=_title(rows),
        sweeps=tuple(sweep.run_id for sweep in sweeps),
        rows=tuple(rows),
        metrics=metrics,
        groups=groups,
        references=_references(done),
        contrasts=tuple(contrasts),
        controls=tuple(pairing.controls_of(contrasts)),
        notes=(*notes, *_notes(done, runs)),
        facts=_facts(sweeps, runs),
        **(_arrays(store, done) if pictures else {}),
    )


def _plan(store: Store, sweep_id: str) -> list[Cell]:
    """The cells of a sweep, also those that have not started."""
    with store.artifact(sweep_id, publish.PLAN) as path:
        cells = json.loads(path.read_text(encoding="utf-8")) if path else []
    known = {f.name for f in fields(Cell)}
    return [
        Cell(**{"schedule": "constant"} | {key: value for key, value in cell.items() if key in known}) for cell in cells
    ]


def _with_training(store: Store, row: Row, stored: Mapping[str | None, StoredRun]) -> Row:
    """The row with how its training ended: of a run of an earlier version as far as its history tells."""
    if row.status != "FINISHED" or row.training_state or row.run_id is None or row.beta is None:
        return row
    run, history = stored[row.run_id], store.history(row.run_id, ("train/loss", "val/loss"))
    if not history or "training.max_epochs" not in run.params:
        return row
    max_epochs, patience, min_delta = (run.params[f"training.{key}"] for key in ("max_epochs", "patience", "min_delta"))
    cycle = run.params.get("params.epochs", "None")
    variance = run.metrics.get("implied_variance", row.beta / 2)  # beta / 2 for a sum, D times that for a mean
    limits = Limits(
        *(int(max_epochs), int(patience), float(min_delta)),
        cycle=None if cycle == "None" else int(cycle),
        nat=row.beta / 2 / variance,
    )
    active = row.metrics.get("test/active_units")
    facts = Facts(
        linear_active=row.reference.active if row.reference else None, active=None if active is None else int(active)
    )
    val, train = ([epoch[key] for epoch in history] for key in ("val/loss", "train/loss"))
    return replace(row, training_state=judge(val, train, limits, facts).state)


def _references(done: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Dataset -> latents -> metric -> value of the closed-form linear VAE."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in done:
        if row.reference:
            known = found[row.dataset].setdefault(str(row.reference.latent_dim), {})
            known |= row.reference.metrics  # one run may have been measured, another not
    return dict(found)


def _arrays(store: Store, done: Sequence[Row]) -> dict[str, Any]:
    """What the figures draw."""
    histories, curves, data = {}, {}, {}
    stacks: dict[str, dict[str, NDArray[Any]]] = {"samples": {}, "interpolations": {}, "spectra": {}}
    lines: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for row in done:
        assert row.run_id is not None
        history = store.history(row.run_id, ("images_seen", "val/loss"))
        if history:
            columns = [[epoch[key] for epoch in history] for key in ("images_seen", "val/loss")]
            histories[row.name] = (np.array(columns[0]), np.array(columns[1]))
        for kind, name in {
            "samples": "samples.npy",
            "interpolations": "interpolations.npy",
            "spectra": SPECTRUM,
        }.items():
            with store.artifact(row.run_id, name) as path:
                if path:
                    stacks[kind][row.name] = np.load(path)
        if row.dataset not in data:
            with store.artifact(row.run_id, RECORD) as path:
                data[row.dataset] = tuple(json.loads(path.read_text(encoding="utf-8"))["lines"]) if path else ()
        label = f"{row.latent_dim} latents"
        if row.dataset not in curves or label not in lines[row.dataset]:
            with store.artifact(row.run_id, REFERENCE) as path:
                if path:
                    known = json.loads(path.read_text(encoding="utf-8"))
                    lines[row.dataset][label] = np.array(known["spectrum"])
                    curves[row.dataset] = (np.array(known["curve"]["kl"]), np.array(known["curve"]["recon"]))
    return {"histories": histories, **stacks, "linear_spectra": dict(lines), "linear_curves": curves, "data": data}


def _title(rows: Sequence[Row]) -> str:
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return f"{models} on {', '.join(dict.fromkeys(row.dataset for row in rows))}"


def _notes(done: Sequence[Row], runs: Sequence[StoredRun]) -> list[str]:
    """What was left out of the metrics, and why; which network the distances come from."""
    notes = []
    whys = Counter(run.tags["vae_sweep.features.why"] for run in runs if run.tags.get("vae_sweep.features.why"))
    notes += [f"Distribution distances: {why} ({count} of {len(done)} runs)." for why, count in whys.items()]
    notes += sorted({_floor(row) for row in done} - {""})
    if len({run.tags[MEASURED] for run in runs if MEASURED in run.tags}) > 1:
        notes.append(
            "Held-out metrics were measured with different settings or versions of the code; the sweeps' own commands "
            "measure all of them alike."
        )
    missing = [run.name for run in runs if run.status == "FINISHED" and MEASURED not in run.tags]
    if missing:
        notes.append(
            f"Without held-out metrics beside the loss: {', '.join(missing)}; the sweep's own command measures them."
        )
    undefined = Counter(line for run in runs for line in run.tags.get(UNDEFINED, "").splitlines())
    notes += [
        f"Not defined on these images: {line} ({count} of {len(done)} runs)." for line, count in undefined.items()
    ]
    sizes = {run.params.get("dataset.fraction") for run in runs} - {None, "1.0"}
    notes += [
        f"Trained on the share {size} of the training images, one fixed subset." for size in sorted(map(str, sizes))
    ]
    return notes


def _floor(row: Row) -> str:
    """The distances of real training images from the test images: what a perfect generator would get."""
    known = [
        metric
        for metric, _ in catalogue.described(row.metrics)
        if metric.key.endswith("_floor") and "_sd_" not in metric.key
    ]
    said = ", ".join(f"{metric.label} {row.metrics[metric.key]:.{metric.digits}f}" for metric in known)
    return f"Floor on {row.dataset}, what real images get: {said}." if said else ""


def _facts(sweeps: Sequence[StoredRun], runs: Sequence[StoredRun]) -> dict[str, str]:
    """Settings and versions that the runs share, or all values where they do not."""
    facts = {f"sweep {sweep.run_id[:8]}": sweep.tags.get("vae_sweep.overrides", "") for sweep in sweeps}
    tags = {
        "images": "vae_sweep.images",
        "device": "vae_sweep.device",
        "feature network": "vae_sweep.features",
        "its weights, sha256": "vae_sweep.features.sha256",
        "its input": "vae_sweep.features.resize",
        "images on each side of a distance": "vae_sweep.features.images",
        "commit": "mlflow.source.git.commit",
    }
    tags |= {key.partition(".")[2]: key for run in runs for key in sorted(run.tags) if key.startswith("version.")}
    facts |= {name: _values(run.tags.get(key) for run in runs) for name, key in tags.items()}
    params = ("objective.beta", "objective.reduction", "training.max_epochs", "training.patience", "training.min_delta")
    facts |= {key: _values(run.params.get(key) for run in runs) for key in params}
    return {name: value for name, value in facts.items() if value}


def _values(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))


def glossary(evidence: Evidence) -> Mapping[str, str]:
    """Return metric key -> what it measures, for the metrics of a report."""
    return {metric.key: text for metric, text in catalogue.described(metric.key for metric in evidence.metrics)}
