"""Rows of one or several sweeps: which are the same cell, which may be paired, and what the pairs say. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations, takewhile
from statistics import fmean
from typing import Any

from vae_sweep.comparison import statistics
from vae_sweep.comparison.contrasts import CLOSED_FORM, Contrast, Group
from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.identity import SPLITS, architecture, shared
from vae_sweep.comparison.rows import PERMUTED, Row, is_finite, loss_label, with_unique_names
from vae_sweep.metrics.catalogue import Metric

DATASET_FACTS = ("test/probe_accuracy_pca",)  # metrics that depend on the images alone: no model differs in them
Setting = tuple[tuple[str, Any], ...]  # all that two runs must share, but architecture and seed, to be a pair


def with_comparable_splits(rows: Iterable[Row]) -> list[Row]:
    """Return the rows, those of the same images without their splits where some know them and others do not.

    Earlier versions recorded none. Where rows of the same images know different ones, each keeps its own.
    """
    rows = list(rows)
    known: dict[tuple[str, str | None], set[str | None]] = defaultdict(set)
    for row in rows:
        if row.configuration:
            known[row.dataset, row.digest].add(row.configuration.get(SPLITS))
    return [
        replace(row, configuration={key: value for key, value in row.configuration.items() if key != SPLITS})
        if None in (found := known[row.dataset, row.digest]) and len(found) == 2
        else row
        for row in rows
    ]


def without_repeats(rows: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """Return one row per run, and a note on what was left out.

    Of a run that several sweeps hold, the first finished one counts, never the better one. A cell that has not started
    is left out where another sweep has finished it.
    """
    kept: dict[Any, Row] = {}
    rows = list(rows)
    finished = {row.key for row in rows if row.status == "FINISHED"}
    for row in rows:
        key = tuple(sorted(row.configuration.items())) or row.key
        if not row.configuration and row.key in finished:
            continue
        if key not in kept or kept[key].status != "FINISHED":
            kept[key] = row
    repeats = len(rows) - len(kept)
    note = f"{repeats} cells are in several of these sweeps; the first finished run counts."
    return list(kept.values()), [note] if repeats else []


def with_unique_labels(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with names, models, datasets and sets that are the same only where they stand for the same.

    One dataset name may stand for different images or several losses, which do not compare; one model's name for
    several architectures; one set's name for different hyperparameters. ``params`` then says all of it and ``variant``
    nothing.
    """
    rows = _with_unique_models(rows)
    digests: dict[str, set[str | None]] = defaultdict(set)
    losses: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for row in rows:
        digests[row.dataset] |= {row.digest} - {None}
        losses[row.dataset.removesuffix(PERMUTED)] |= {(row.beta, row.reduction, row.variance)} - {(None,) * 3}
    named = []
    for row in rows:
        base = row.dataset.removesuffix(PERMUTED)
        dataset = base
        if len(digests[row.dataset]) > 1 and row.digest:
            dataset += f" [{row.digest[:8]}]"
        if len(losses[base]) > 1 and row.beta is not None:
            dataset += f", {loss_label(row)}"
        named.append(replace(row, dataset=dataset + row.dataset[len(base) :]))
    labels = _labels(named)
    return with_unique_names([replace(row, params=labels[setting(row)], variant="") for row in named])


def _with_unique_models(rows: Sequence[Row]) -> list[Row]:
    """The rows, with what differs in its name where one model's name stands for several architectures."""
    known: dict[str, set[frozenset[tuple[str, str]]]] = defaultdict(set)
    for row in rows:
        if row.configuration:
            known[row.model].add(architecture(row.configuration))

    def named(row: Row) -> Row:
        if len(known[row.model]) < 2 or not row.configuration:
            return row
        own = architecture(row.configuration) - frozenset.intersection(*known[row.model])
        said = ", ".join(f"{key.removeprefix('model.')}={value}" for key, value in sorted(own))
        name = f"{row.model} [{said}]" if said else row.model
        return replace(row, model=name, baseline=name if row.baseline == row.model else row.baseline)

    return [named(row) for row in rows]


def setting(row: Row) -> Setting:
    """Return all that a run must share with another, but architecture and seed, to be its pair."""
    numbers = row.batch_size, row.lr, row.schedule, row.latent_dim, row.beta, row.reduction, row.variance
    known = shared(row.configuration) or {"params": row.params, "variant": row.variant, "numbers": str(numbers)}
    return ("dataset", row.dataset), *sorted(known.items())


def _labels(rows: Sequence[Row]) -> dict[Setting, str]:
    """Setting -> what its names have in common, and where another has that, too, the values that differ."""
    names: dict[Setting, set[str]] = defaultdict(set)
    for row in rows:
        names[setting(row)].add(f"{row.params} {row.variant}".strip())
    same: dict[tuple[str, str], list[Setting]] = defaultdict(list)
    for found, given in names.items():
        same[found[0][1], _common(given)].append(found)
    labels = {}
    for (_, name), settings in same.items():
        common = set(settings[0]).intersection(*settings)
        for found in settings:
            said = ", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in sorted(set(found) - common))
            labels[found] = f"{name} [{said}]" if said else name
    return labels


def _common(names: set[str]) -> str:
    """The beginning that names such as ``p1 beta=4-hidden_dims=[8]`` share, in whole words, or else the shortest."""
    alike = takewhile(lambda letters: len({*letters}) == 1, zip(*names, strict=False))
    prefix = "".join(letters[0] for letters in alike)
    if prefix not in names:  # it ends within a word
        prefix = prefix[: max(prefix.rfind(" "), prefix.rfind("-"), 0)]
    return prefix or min(names, key=lambda name: (len(name), name))


def groups_of(done: Sequence[Row], metric: Metric) -> list[Group]:
    """Return one group of seeds for each dataset, model and hyperparameter set that has the metric."""
    values: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for row in done:
        value = row.metrics.get(metric.key)
        if is_finite(value) and row.seed is not None and value is not None:
            values[row.dataset, row.model, row.params][row.seed] = value
    return [statistics.group(*key, seeds) for key, seeds in values.items()]


def compared(rows: Iterable[Row]) -> dict[tuple[str, str], bool]:
    """Return all pairs of models (a, b) that are compared as a - b, and whether the models' baselines ask for each.

    These come first: every model minus the one that is its own baseline (or the first, where there is none), and every
    other baseline minus the models that name it. A model with the baseline :data:`CLOSED_FORM` is left out.
    """
    baselines: dict[str, str | None] = {}
    for row in rows:
        baselines[row.model] = baselines.get(row.model) or row.baseline
    models = [model for model, baseline in baselines.items() if baseline != CLOSED_FORM]
    common = next((model for model in models if baselines[model] == model), next(iter(models), None))
    pairs = [(model, common) for model in models if model != common]
    pairs += [(other, model) for model in models for other in models if _is_named(other, baselines[model])]
    found: dict[tuple[str, str], bool] = {}
    for planned, some in ((True, pairs), (False, combinations(models, 2))):
        for a, b in some:
            if a != b and b is not None and not {(a, b), (b, a)} & found.keys():
                found[a, b] = planned
    return found


def _is_named(model: str, name: str | None) -> bool:
    """Whether the model has this name, or is one of several architectures of it."""
    return model == name or model.startswith(f"{name} [")


def contrasts_of(done: Sequence[Row], metrics: Sequence[Metric]) -> list[Contrast]:
    """Return the contrasts of each dataset, of its models as :func:`compared`, and each metric.

    Of pairs that no baseline asks for only the primary metrics are compared.

    Runs are paired on hyperparameter set and seed.
    """
    found = []
    for dataset in dict.fromkeys(row.dataset for row in done):
        here = [row for row in done if row.dataset == dataset]
        for (a, b), planned in compared(here).items():
            for metric in metrics:
                if metric.key in DATASET_FACTS or not (planned or metric.primary):
                    continue
                if contrast := _contrast(dataset, metric, a, b, here):
                    found.append(replace(contrast, planned=planned))
    return list(statistics.declare(found))


def _contrast(dataset: str, metric: Metric, a: str, b: str, here: Sequence[Row]) -> Contrast | None:
    values = {(r.model, r.params, r.seed): r.metrics[metric.key] for r in here if metric.key in r.metrics}
    pairs: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for (model, params, seed), value in values.items():
        if model == a and seed is not None and (b, params, seed) in values:
            pairs[params][seed] = (value, values[b, params, seed])
    states = [r.training_state for r in here if r.model in (a, b) and r.seed in pairs.get(r.params, {})]
    return statistics.contrast(dataset, of_loss(metric, here), a, b, pairs, states)


def controls_of(contrasts: Sequence[Contrast]) -> list[str]:
    """Return what becomes of each planned primary contrast with permuted pixels, over the pairs that both have."""
    known = {(c.dataset, c.metric.key, c.a, c.b): c for c in contrasts if c.planned and c.metric.primary}
    said = []
    for (dataset, key, a, b), permuted in known.items():
        given = known.get((dataset.removesuffix(PERMUTED), key, a, b))
        if given is None or given is permuted:
            continue
        before, after = (
            {(s.params, seed): value for s in c.sets for seed, value in zip(s.seeds, s.values, strict=True)}
            for c in (given, permuted)
        )
        both = sorted(before.keys() & after.keys())
        if not both:
            continue
        metric, rests = given.metric, caveat([*given.states, *permuted.states])
        unit = f" {metric.unit}" if metric.unit else ""
        means = [f"{fmean(side[pair] for pair in both):+.{metric.digits}f}{unit}" for side in (before, after)]
        sets = ", ".join(dict.fromkeys(params for params, _ in both))
        said.append(
            f"{rests} Control on {given.dataset} ({sets}; {len(both)} pairs): {a} - {b} in {metric.label} is "
            f"{means[0]} on the images as they are and {means[1]} with their pixels in one fixed random order.".lstrip()
        )
    return said


def of_loss(metric: Metric, rows: Sequence[Row]) -> Metric:
    """The metric for runs of the rows' loss: an averaged squared error is in no nats, and has no margin of them."""
    reductions = {row.reduction for row in rows} if metric.key in ("test/loss", "test/recon") else set()
    if reductions == {"mean"}:
        return replace(metric, unit="averaged error, not nats", digits=4, margin=0.0)
    return replace(metric, unit="nats/image, or averaged error") if "mean" in reductions else metric
