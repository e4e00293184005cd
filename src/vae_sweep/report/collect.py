"""From the store: the runs of a sweep as rows, and all that a report is made of."""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_sweep.comparison import pairing
from vae_sweep.comparison.contrasts import CLOSED_FORM, Group
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.identity import IMAGES, made_of_text, trained
from vae_sweep.comparison.ranking import Ranking, ranking
from vae_sweep.comparison.rows import Cell, LinearRow, Row, data_label, is_finite, schedule_label
from vae_sweep.metrics import catalogue
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.tracking import names
from vae_sweep.tracking.store import NAME_LIMIT, Store, StoredRun

log = logging.getLogger(__name__)

TERMS = ("loss", "recon", "kl")
LOSSES = {"train": "best/train_", "val": "best/val_", "test": "test/"}  # split -> how its metrics begin
SETTINGS: dict[str, tuple[str, type]] = {  # field of a row -> its parameter in the store
    "dataset": ("dataset.name", str),
    "digest": ("dataset.digest", str),
    "model": ("model.name", str),
    "params": ("params.name", str),
    "seed": ("seed", int),
    "batch_size": ("params.batch_size", int),
    "lr": ("params.lr", float),
    "latent_dim": ("params.latent_dim", int),
    "beta": ("objective.beta", float),
    "reduction": ("objective.reduction", str),
    "variance": ("objective.variance", str),
    "n_parameters": ("n_parameters", int),
}
WHY = "vae_sweep.features.why"  # tag: why a run has this feature network, or none
BASELINES = {  # of the models of version 0.1, whose runs do not say
    **{"conv": "conv", "fc": "conv", "conv_res": "conv", "linear": CLOSED_FORM},
    **dict.fromkeys(("fc_matched", "fc_skip", "fc_res"), "fc"),
}


def rows_of(stored: Sequence[StoredRun], cells: Sequence[Cell], parent_id: str) -> list[Row]:
    """Return one row per cell and one per other run of the sweep, joined by identity, never by name.

    A cell without a run is PENDING. Runs of a planned configuration that have other images or code are left out.
    """
    runs: dict[str, StoredRun] = {}
    for run in stored:
        key = run.tags.get(names.RUN_KEY, run.run_id)
        if key not in runs or run.status == "FINISHED" or runs[key].status != "FINISHED":
            runs[key] = run
    planned = {cell.key: cell for cell in cells}
    replaced = {cell.settings for cell in cells}
    rows = []
    for key in planned | runs:
        found, cell = runs.get(key), planned.get(key)
        if found and not cell and found.tags.get(names.SETTINGS) in replaced:
            continue
        row = Row(None, "", "PENDING", key=key)
        given = {k: v for k, v in vars(cell).items() if hasattr(row, k)} if cell else {}
        row = replace(row, **given)
        if found:
            row = replace(row, **_settings(found), **_outcome(found, parent_id))
        if found and cell:
            name = cell.name if found.name == cell.name[:NAME_LIMIT] else found.name
            row = replace(row, name=name, baseline=row.baseline if cell.baseline is None else cell.baseline)
        rows.append(row)
    return rows


def gather(store: Store, sweeps: Sequence[StoredRun], arrays: bool = True) -> Evidence:
    """Return the evidence of the sweeps whose own runs are given; with ``arrays`` also what its figures show."""
    found: list[Row] = []
    stored: dict[str | None, StoredRun] = {}
    for sweep in sweeps:
        children = store.children(sweep.run_id)
        stored |= {run.run_id: run for run in children}
        with store.artifact(sweep.run_id, names.PLAN) as path:
            plan = json.loads(path.read_text(encoding="utf-8")) if path else []
        found += rows_of(children, [Cell(**cell) for cell in plan], sweep.run_id)
    found, notes = pairing.without_repeats(pairing.with_comparable_splits(found))
    rows = pairing.with_unique_labels(found)
    done = [row for row in rows if row.status == "FINISHED"]
    known = catalogue.described({key for row in done for key, value in row.metrics.items() if is_finite(value)})
    metrics = tuple(pairing.of_loss(metric, done) for metric, _ in known if not metric.key.endswith("_floor"))
    runs = [stored[row.run_id] for row in rows if row.run_id in stored]
    contrasts = pairing.contrasts_of(done, metrics)
    groups = {metric.key: tuple(pairing.groups_of(done, metric)) for metric in metrics}
    data, models = (", ".join(dict.fromkeys(getattr(row, key) for row in found)) for key in ("dataset", "model"))
    return Evidence(
        title=f"{models} on {data}",
        sweeps=tuple(sweep.run_id for sweep in sweeps),
        rows=tuple(rows),
        metrics=metrics,
        groups=groups,
        references=_references(store, done),
        contrasts=tuple(contrasts),
        rankings=tuple(_rankings(metrics, groups)),
        controls=tuple(pairing.controls_of(contrasts)),
        when=" ".join(_when(sweep, runs) for sweep in sweeps),
        missing=_missing(metrics, runs),
        notes=(*notes, *_notes(done, runs)),
        facts=_facts(sweeps, runs),
        **(_arrays(store, done) if arrays else {}),
    )


def _rankings(metrics: Sequence[Metric], groups: Mapping[str, Sequence[Group]]) -> Iterator[Ranking]:
    """The models of each dataset with three or more, by every primary metric."""
    for metric in metrics:
        for dataset in dict.fromkeys(group.dataset for group in groups[metric.key]):
            found = ranking(dataset, metric, [group for group in groups[metric.key] if group.dataset == dataset])
            if metric.primary and found:
                yield found


def histories_of(store: Store, rows: Sequence[Row]) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return run -> images seen and validation loss after each epoch, of the runs that have trained one."""
    found = {}
    for row in rows:
        history = store.history(row.run_id, ("images_seen", "val/loss")) if row.run_id else []
        if history:
            seen, loss = (np.array([epoch[key] for epoch in history]) for key in ("images_seen", "val/loss"))
            found[row.name] = seen, loss
    return found


def arrays_of(store: Store, rows: Sequence[Row], artifact: str) -> dict[str, NDArray[Any]]:
    """Return run -> the array that its artifact holds, of the runs that have it undamaged."""
    found: dict[str, NDArray[Any]] = {}
    for row in rows:
        with store.artifact(row.run_id or "", artifact) as path:
            try:
                found |= {row.name: np.load(path)} if path else {}
            except (ValueError, EOFError) as error:
                log.warning("%s of %s is damaged (%s): it is left out", artifact, row.name, error)
    return found


def _settings(run: StoredRun) -> dict[str, Any]:
    """What a run was asked for, read back from its parameters."""
    p = run.params
    found = {field: kind(p[key]) for field, (key, kind) in SETTINGS.items() if key in p}
    if "reduction" in found:
        found.setdefault("variance", "0.5")  # of runs before it was a setting
    if "dataset" in found:
        found["dataset"] = data_label(found["dataset"], p.get("dataset.permute_pixels") == "True")
    if "model" in found:
        baseline = p.get("model.baseline", BASELINES.get(found["model"], ""))
        found["baseline"] = "" if baseline == "None" else baseline
    if "lr" in found:
        mirror = p.get("params.mirror") == "True"
        given = [int(p[key]) for key in ("params.epochs", "training.max_epochs") if p.get(key, "None") != "None"]
        epochs = min(given) if p.get("params.epochs", "None") != "None" else None
        found["schedule"] = schedule_label(p["params.schedule"], epochs, mirror)
    return found


def _outcome(run: StoredRun, parent_id: str) -> dict[str, Any]:
    """What became of a run, from its metrics and tags."""
    m = run.metrics
    made_of = made_of_text(run.tags.get(names.MADE_OF, "")) if run.params else {}  # some fail before they have any
    parts = {key: value for key, value in made_of.items() if key != IMAGES}
    return {
        "run_id": run.run_id,
        "name": run.name,
        "status": run.status,
        "reason": run.tags.get("vae_sweep.error"),
        "trained_in": _where_trained(run, parent_id),
        "training_state": run.tags.get(names.TRAINING_STATE),
        **{key: int(m[key]) if key in m else None for key in ("epochs", "best_epoch")},
        **{f"{split}_{term}": m.get(prefix + term) for split, prefix in LOSSES.items() for term in TERMS},
        **{key: m.get(key) for key in ("wall_time_s", "images_per_s")},
        "reference": _linear(run),
        "metrics": _heldout(run, "test/"),
        "configuration": trained({key: value for key, value in run.params.items() if key != "n_parameters"} | parts),
    }


def _where_trained(run: StoredRun, parent_id: str) -> str | None:
    """Another sweep, or a run of its own, that trained what a sweep shows; None for the sweep's own runs."""
    if run.parent_id == parent_id:
        return None
    return f"sweep {run.parent_id[:8]}" if run.parent_id else "a run of its own"


def _linear(run: StoredRun) -> LinearRow | None:
    """The closed-form linear VAE on the run's loss; None where the run has not recorded it yet."""
    if "reference/test_loss" not in run.metrics:
        return None
    losses = {f"{split}_{term}": run.metrics[f"reference/{split}_{term}"] for split in LOSSES for term in TERMS}
    settings: dict[str, Any] = {
        key: _settings(run)[key] for key in ("dataset", "latent_dim", "beta", "reduction", "variance")
    }
    heldout = {
        k: v for k, v in _heldout(run, "reference/").items() if k.removeprefix("test/") not in (*losses, "active")
    }
    metrics = heldout | {f"test/{term}": losses[f"test_{term}"] for term in TERMS}
    return LinearRow(**settings | losses, active=int(run.metrics["reference/active"]), metrics=metrics)


def _heldout(run: StoredRun, prefix: str) -> dict[str, float]:
    """The run's metrics below ``prefix``, as test/...; of a run measured several times those of the last."""
    found = {key.removeprefix(prefix): value for key, value in run.metrics.items() if key.startswith(prefix)}
    last = run.tags.get(names.METRIC_NAMES)
    known = {*last.split(","), *TERMS} if last else set(found)
    return {f"test/{key}": value for key, value in found.items() if key in known}


def _references(store: Store, done: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Dataset -> latents -> metric -> value of the closed-form linear VAE: once of each, whichever run measured it."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    read: set[tuple[str, str]] = set()
    for row in done:
        if not row.reference or not row.run_id:
            continue
        key = row.dataset, str(row.reference.latent_dim)
        known = found[key[0]].setdefault(key[1], {})
        known |= row.reference.metrics  # of runs of 0.1.0 all of them
        if key in read:
            continue
        with store.artifact(row.run_id, names.LINEAR) as path:
            content = json.loads(path.read_text(encoding="utf-8")) if path else {}
        if "metrics" in content:
            known |= {f"test/{name}": value for name, value in content["metrics"].items()}
            read.add(key)
    return dict(found)


def _arrays(store: Store, done: Sequence[Row]) -> dict[str, Any]:
    """What the figures show, and what each dataset was taken for."""
    curves, data = {}, {}
    linear: dict[str, dict[str, NDArray[np.float64]]] = defaultdict(dict)
    for row in done:
        assert row.run_id is not None
        if row.dataset not in data:
            with store.artifact(row.run_id, names.DATA) as path:
                data[row.dataset] = tuple(json.loads(path.read_text(encoding="utf-8"))["lines"]) if path else ()
        label = f"{row.latent_dim} latents"
        if row.dataset not in curves or label not in linear[row.dataset]:
            with store.artifact(row.run_id, names.LINEAR) as path:
                if path:
                    known = json.loads(path.read_text(encoding="utf-8"))
                    linear[row.dataset][label] = np.array(known["spectrum"])
                    curves[row.dataset] = (np.array(known["curve"]["kl"]), np.array(known["curve"]["recon"]))
    most = sorted(done, key=lambda row: row.latent_dim or 0)  # of several closed forms the one with most latents

    def linear_images(file: str) -> dict[str, NDArray[np.uint8]]:
        images = arrays_of(store, most, file)
        return {row.dataset: images[row.name] for row in most if row.name in images}

    return {
        "histories": histories_of(store, done),
        **{kind: arrays_of(store, done, f"{kind}.npy") for kind in ("samples", "reconstructions", "interpolations")},
        "linear_samples": linear_images(names.LINEAR_SAMPLES),
        "linear_reconstructions": linear_images(names.LINEAR_RECONSTRUCTIONS),
        "spectra": arrays_of(store, done, names.SPECTRUM),
        "linear_spectra": dict(linear),
        "linear_curves": curves,
        "data": data,
    }


def _when(sweep: StoredRun, runs: Sequence[StoredRun]) -> str:
    """Start of a sweep, and when the last run that it trained itself had ended; it may have been interrupted."""
    ends = [run.ended for run in runs if run.parent_id == sweep.run_id and run.ended]
    if sweep.started is None:
        return ""
    start, end = (datetime.fromtimestamp(seconds, UTC) for seconds in (sweep.started, max(ends, default=sweep.started)))
    until = f" to {end:%H:%M}" if end.date() == start.date() else f" to {end:%Y-%m-%d %H:%M}"
    return (
        f"Sweep {sweep.run_id[:8]}: {start:%Y-%m-%d %H:%M}{until if end - start >= timedelta(minutes=1) else ''} UTC."
    )


def _missing(metrics: Sequence[Metric], runs: Sequence[StoredRun]) -> str:
    """Why no run has the second primary metric; "" where one has it, or none is finished."""
    measured = [run for run in runs if run.status == "FINISHED"]
    if not measured or any(metric.primary and metric.key != "test/loss" for metric in metrics):
        return ""
    whys = dict.fromkeys(run.tags[WHY].removeprefix("skipped: ") for run in measured if run.tags.get(WHY))
    return "; ".join(whys) or "no run has recorded it"


def _notes(done: Sequence[Row], runs: Sequence[StoredRun]) -> list[str]:
    """What was left out of the metrics, and why; which network the distances come from."""
    whys = Counter(run.tags[WHY] for run in runs if run.tags.get(WHY))
    notes = [f"Distribution distances: {why} ({count} of {len(done)} runs)." for why, count in whys.items()]
    notes += sorted({_floor(row) for row in done} - {""})
    if len({run.tags[names.MEASURED] for run in runs if run.tags.get(names.MEASURED)}) > 1:
        notes.append(
            "Held-out metrics were measured with different settings or versions of the code; the sweeps' own commands "
            "measure all of them alike."
        )
    missing = [run.name for run in runs if run.status == "FINISHED" and not run.tags.get(names.MEASURED)]
    if missing:
        lost = ", ".join(missing)
        notes.append(f"Without held-out metrics beside the loss: {lost}; the sweep's own command measures them.")
    undefined = Counter(line for run in runs for line in run.tags.get(names.UNDEFINED, "").splitlines())
    notes += [f"Not defined on these images: {line} ({n} of {len(done)} runs)." for line, n in undefined.items()]
    sizes = sorted({run.params.get("dataset.fraction", "1.0") for run in runs} - {"1.0"})
    return notes + [f"Trained on the share {size} of the training images, one fixed subset." for size in sizes]


def _floor(row: Row) -> str:
    """The distances of real training images from the test images: what a perfect generator would get."""
    known = [m for m, _ in catalogue.described(row.metrics) if m.key.endswith("_floor") and "_sd_" not in m.key]
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
    params = [f"objective.{key}" for key in ("beta", "reduction", "variance", "warmup")]
    params += [f"training.{key}" for key in ("max_epochs", "patience", "min_delta", "clip_grad_norm")]
    facts |= {key: _values(run.params.get(key) for run in runs) for key in params}
    return {name: value for name, value in facts.items() if value}


def _values(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value}))
