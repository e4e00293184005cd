"""What the store holds of one or several sweeps, gathered for a report."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vae_sweep import catalogue, results, statistics
from vae_sweep.comparison import Row, is_finite
from vae_sweep.evidence import Evidence
from vae_sweep.grid import PERMUTED, Cell
from vae_sweep.measuring import MEASURED, REFERENCE, SPECTRUM
from vae_sweep.statistics import Contrast, Group, Metric
from vae_sweep.tracking import Store, StoredRun

Key = tuple[str, str, str]  # dataset, model, params (and what else is swept)


def gather(store: Store, sweeps: Sequence[StoredRun], pictures: bool = True) -> Evidence:
    """Return the evidence of the sweeps whose own runs are given; with ``pictures`` also arrays for figures."""
    found: list[tuple[Row, StoredRun | None]] = []
    for sweep in sweeps:
        children = store.children(sweep.run_id)
        by_name = {run.name: run for run in children}
        found += [(row, by_name.get(row.name)) for row in results.rows_of(children, _plan(store, sweep.run_id))]
    found, notes = _without_repeats(found)
    found = _named(found)
    rows = [row for row, _ in found]
    done = [row for row in rows if row.status == "FINISHED"]
    known = catalogue.described({key for row in done for key, value in row.metrics.items() if is_finite(value)})
    metrics = tuple(metric for metric, _ in known if not metric.key.endswith("_floor"))
    groups = {metric.key: tuple(groups_of(done, metric)) for metric in metrics}
    runs = [run for _, run in found if run is not None]
    contrasts = contrasts_of(done, metrics)
    return Evidence(
        title=_title(rows),
        sweeps=tuple(sweep.run_id for sweep in sweeps),
        rows=tuple(rows),
        metrics=metrics,
        groups=groups,
        references=_references(done),
        contrasts=tuple(contrasts),
        controls=tuple(controls_of(contrasts)),
        notes=(*notes, *_notes(done, runs)),
        facts=_facts(sweeps, runs),
        **(_arrays(store, done) if pictures else {}),
    )


def groups_of(done: Sequence[Row], metric: Metric) -> list[Group]:
    """Return one group of seeds for each dataset, model and hyperparameter set that has the metric."""
    values: dict[Key, dict[int, float]] = defaultdict(dict)
    labels = _labels(done)
    for row in done:
        value = row.metrics.get(metric.key)
        if is_finite(value) and row.seed is not None and value is not None:
            values[row.dataset, row.model, labels[row.name]][row.seed] = value
    return [statistics.group(*key, seeds) for key, seeds in values.items()]


def contrasts_of(done: Sequence[Row], metrics: Sequence[Metric]) -> list[Contrast]:
    """Return each other architecture minus the base, paired on hyperparameters and seed, for each dataset and metric.

    The base is conv, where there is one. Linear models trained by gradient descent have the closed form beside them
    and are left out.
    """
    labels, found = _labels(done), []
    for dataset in dict.fromkeys(row.dataset for row in done):
        here = [row for row in done if row.dataset == dataset]
        models = [model for model in dict.fromkeys(row.model for row in here) if model != "linear"]
        base = "conv" if "conv" in models else models[0] if models else ""
        for other in models:
            for metric in [_of_loss(metric, here[0]) for metric in metrics] if other != base else ():
                pairs: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
                values = {
                    (row.model, labels[row.name], row.seed): row.metrics[metric.key]
                    for row in here
                    if metric.key in row.metrics
                }
                for (model, params, seed), value in values.items():
                    if model == other and seed is not None and (base, params, seed) in values:
                        pairs[params][seed] = (value, values[base, params, seed])
                contrast = statistics.contrast(dataset, metric, other, base, pairs)
                found += [contrast] if contrast else []
    return list(statistics.declare(found))


def controls_of(contrasts: Sequence[Contrast]) -> list[str]:
    """Return what becomes of each primary contrast where the pixels are permuted, over the sets that both have."""
    plain = {(c.dataset, c.metric.key, c.a, c.b): c for c in contrasts if c.metric.primary}
    said = []
    for (dataset, key, a, b), permuted in plain.items():
        given = plain.get((dataset.replace(PERMUTED, ""), key, a, b))
        if PERMUTED in dataset and given is not None:
            sets = [[s for s in c.sets if s.params in {t.params for t in given.sets}] for c in (given, permuted)]
            shared = [s.params for s in sets[1]]
            means = [fmean(v for s in part if s.params in shared for v in s.values) for part in sets]
            metric = given.metric
            before, after = (f"{mean:+.{metric.digits}f}" for mean in means)
            unit = f" {metric.unit}" if metric.unit else ""
            said.append(
                f"Control on {given.dataset}, {', '.join(shared)}: {a} - {b} in {metric.label} is {before}{unit} on "
                f"the pictures as they are and {after}{unit} with their pixels in one fixed random order."
            )
    return said


def _of_loss(metric: Metric, row: Row) -> Metric:
    """The metric for runs of the row's loss: an averaged squared error is in no nats, and has no margin of them."""
    averaged = row.reduction == "mean" and metric.key in ("test/loss", "test/recon")
    return replace(metric, unit="(averaged error, not nats)", digits=4, margin=0.0) if averaged else metric


def _plan(store: Store, sweep_id: str) -> list[Cell]:
    """The cells of a sweep, also those that have not started."""
    with store.artifact(sweep_id, results.PLAN) as path:
        return [Cell(**cell) for cell in json.loads(path.read_text())] if path else []


def _without_repeats(
    found: Sequence[tuple[Row, StoredRun | None]],
) -> tuple[list[tuple[Row, StoredRun | None]], list[str]]:
    """One row per cell: of a cell that several sweeps hold, the first that finished. Never the best."""
    cells: dict[tuple[Any, ...], tuple[Row, StoredRun | None]] = {}
    repeats = 0
    for row, run in found:
        cell = (row.dataset, row.digest, row.model, *_recipe(row), row.seed)
        if cell in cells:
            repeats += 1
            if cells[cell][0].status == "FINISHED":
                continue
        cells[cell] = (row, run)
    kept = list(cells.values())
    return kept, [f"{repeats} cells are in several of these sweeps; the first finished run counts."] if repeats else []


def _named(found: Sequence[tuple[Row, StoredRun | None]]) -> list[tuple[Row, StoredRun | None]]:
    """Rows whose names tell them apart, and whose datasets tell what may be compared.

    Equal names may stand for different images, and one dataset for several losses, which do not compare.
    """
    digests: dict[str, set[str | None]] = defaultdict(set)
    losses: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for row, _ in found:
        digests[row.dataset] |= {row.digest} - {None}
        losses[row.dataset].add((row.beta, row.reduction))
    renamed = []
    for row, run in found:
        dataset = row.dataset
        if len(digests[row.dataset]) > 1 and row.digest:
            dataset += f" [{row.digest[:8]}]"
        if len(losses[row.dataset]) > 1 and row.beta is not None:
            dataset += f", beta {row.beta:g}, {row.reduction}"
        renamed.append((replace(row, dataset=dataset), run))
    for form in ("{0.name}", "{0.name} on {0.dataset}", "{0.name} on {0.dataset}, {0.run_id}"):
        names = [form.format(row) for row, _ in renamed]
        if len(set(names)) == len(names):
            break
    return [(replace(row, name=name), run) for (row, run), name in zip(renamed, names, strict=True)]


def _recipe(row: Row) -> tuple[Any, ...]:
    """All that two runs must share, but model and seed, for their difference to mean something."""
    return row.params, row.variant, row.batch_size, row.lr, row.latent_dim, row.beta, row.reduction


def _labels(rows: Iterable[Row]) -> dict[str, str]:
    """Run -> its hyperparameter set in words, with more of it where equal words would stand for different ones."""
    recipes = {row.name: _recipe(row) for row in rows}
    short = {name: f"{recipe[0]} {recipe[1]}".strip() for name, recipe in recipes.items()}
    meanings: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for name, label in short.items():
        meanings[label].add(recipes[name])
    return {
        name: label if len(meanings[label]) == 1 else _at_length(label, recipes[name]) for name, label in short.items()
    }


def _at_length(label: str, recipe: tuple[Any, ...]) -> str:
    _, _, batch, lr, latent, beta, reduction = recipe
    return f"{label} [batch {batch}, lr {lr:g}, latent {latent}, beta {beta:g}, {reduction}]"


def _references(done: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Dataset -> latents -> metric -> value of the closed-form linear VAE."""
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for row in done:
        if row.reference:
            found[row.dataset][str(row.reference.latent_dim)] = dict(row.reference.metrics)
    return dict(found)


def _arrays(store: Store, done: Sequence[Row]) -> dict[str, Any]:
    """What the figures draw."""
    histories, curves = {}, {}
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
        label = f"{row.latent_dim} latents"
        if row.dataset not in curves or label not in lines[row.dataset]:
            with store.artifact(row.run_id, REFERENCE) as path:
                if path:
                    known = json.loads(path.read_text())
                    lines[row.dataset][label] = np.array(known["spectrum"])
                    curves[row.dataset] = (np.array(known["curve"]["kl"]), np.array(known["curve"]["recon"]))
    return {"histories": histories, **stacks, "linear_spectra": dict(lines), "linear_curves": curves}


def _title(rows: Sequence[Row]) -> str:
    models = ", ".join(dict.fromkeys(row.model for row in rows))
    return f"{models} on {', '.join(dict.fromkeys(row.dataset for row in rows))}"


def _notes(done: Sequence[Row], runs: Sequence[StoredRun]) -> list[str]:
    """What was left out of the metrics, and why; which network the distances come from."""
    notes = []
    whys = Counter(run.tags["vae_sweep.features.why"] for run in runs if run.tags.get("vae_sweep.features.why"))
    notes += [f"Distribution distances: {why} ({count} of {len(done)} runs)." for why, count in whys.items()]
    missing = [run.name for run in runs if run.status == "FINISHED" and MEASURED not in run.tags]
    if missing:
        notes.append(
            f"Without held-out metrics beside the loss: {', '.join(missing)}; the sweep's own command measures them."
        )
    sizes = {run.params.get("dataset.fraction") for run in runs} - {None, "1.0"}
    notes += [
        f"Trained on the share {size} of the training images, one fixed subset." for size in sorted(map(str, sizes))
    ]
    return notes


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
