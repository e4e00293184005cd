"""Rows of one or several sweeps: which are the same cell, which may be paired, and what the pairs say. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from vae_sweep.comparison import statistics
from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.identity import shared
from vae_sweep.comparison.rows import PERMUTED, Row, is_finite, with_unique_names
from vae_sweep.comparison.statistics import Contrast, Group
from vae_sweep.metrics.catalogue import Metric

DATASET_FACTS = ("probe_accuracy_pca",)  # metrics that depend on the images alone: no model differs in them
Recipe = tuple[tuple[str, Any], ...]  # all that two runs must share, but architecture and seed, to be a pair


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


def with_unique_sets(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with names, datasets and sets in words that tell apart what differs.

    One dataset name may stand for different images or several losses, which do not compare; one set's name for
    different recipes. ``params`` then says all of it and ``variant`` nothing.
    """
    digests: dict[str, set[str | None]] = defaultdict(set)
    losses: dict[str, set[tuple[Any, ...]]] = defaultdict(set)
    for row in rows:
        digests[row.dataset] |= {row.digest} - {None}
        losses[row.dataset.removesuffix(PERMUTED)] |= {(row.beta, row.reduction)} - {(None, None)}
    named = []
    for row in rows:
        base = row.dataset.removesuffix(PERMUTED)
        dataset = base
        if len(digests[row.dataset]) > 1 and row.digest:
            dataset += f" [{row.digest[:8]}]"
        if len(losses[base]) > 1 and row.beta is not None:
            dataset += f", beta {row.beta:g}, {row.reduction}"
        named.append(replace(row, dataset=dataset + row.dataset[len(base) :]))
    sets = _sets(named)
    named = [replace(row, params=sets[_recipe(row)], variant="") for row in named]
    return with_unique_names(named)


def groups_of(done: Sequence[Row], metric: Metric) -> list[Group]:
    """Return one group of seeds for each dataset, model and hyperparameter set that has the metric."""
    values: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
    for row in done:
        value = row.metrics.get(metric.key)
        if is_finite(value) and row.seed is not None and value is not None:
            values[row.dataset, row.model, row.params][row.seed] = value
    return [statistics.group(*key, seeds) for key, seeds in values.items()]


def contrasts_of(done: Sequence[Row], metrics: Sequence[Metric]) -> list[Contrast]:
    """Return the contrasts of each dataset and metric, paired on hyperparameter set and seed.

    Each other architecture minus conv (or the first, where there is no conv), and fc minus each of its variants.
    Linear models trained by gradient descent have the closed form beside them and are left out.
    """
    found = []
    for dataset in dict.fromkeys(row.dataset for row in done):
        here = [row for row in done if row.dataset == dataset]
        models = [model for model in dict.fromkeys(row.model for row in here) if model != "linear"]
        base = "conv" if "conv" in models else models[0] if models else ""
        compared = [(other, base) for other in models if other != base]
        compared += [("fc", other) for other in models if other.startswith("fc_") and "fc" in models and base != "fc"]
        for a, b in compared:
            for metric in metrics:
                if metric.key.removeprefix("test/") in DATASET_FACTS:
                    continue
                values = {(r.model, r.params, r.seed): r.metrics[metric.key] for r in here if metric.key in r.metrics}
                pairs: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
                for (model, params, seed), value in values.items():
                    if model == a and seed is not None and (b, params, seed) in values:
                        pairs[params][seed] = (value, values[b, params, seed])
                states = [r.training_state for r in here if r.model in (a, b) and r.seed in pairs.get(r.params, {})]
                contrast = statistics.contrast(dataset, of_loss(metric, here), a, b, pairs, states)
                found += [contrast] if contrast else []
    return list(statistics.declare(found))


def controls_of(contrasts: Sequence[Contrast]) -> list[str]:
    """Return what becomes of each primary contrast where the pixels are permuted, over the pairs that both have."""
    known = {(c.dataset, c.metric.key, c.a, c.b): c for c in contrasts if c.metric.primary}
    said = []
    for (dataset, key, a, b), permuted in known.items():
        given = known.get((dataset.removesuffix(PERMUTED), key, a, b))
        if given is None or given is permuted:
            continue
        sides = [
            {(s.params, seed): value for s in c.sets for seed, value in zip(s.seeds, s.values, strict=True)}
            for c in (given, permuted)
        ]
        shared = sorted(sides[0].keys() & sides[1].keys())
        if not shared:
            continue
        metric = given.metric
        unit = f" {metric.unit}" if metric.unit else ""
        before, after = (f"{fmean(side[pair] for pair in shared):+.{metric.digits}f}{unit}" for side in sides)
        sets = ", ".join(dict.fromkeys(params for params, _ in shared))
        rests = caveat([*given.states, *permuted.states])
        said.append(
            f"{rests} Control on {given.dataset} ({sets}; {len(shared)} pairs): {a} - {b} in {metric.label} is "
            f"{before} on the pictures as they are and {after} with their pixels in one fixed random order.".lstrip()
        )
    return said


def of_loss(metric: Metric, rows: Sequence[Row]) -> Metric:
    """The metric for runs of the rows' loss: an averaged squared error is in no nats, and has no margin of them."""
    reductions = {row.reduction for row in rows} if metric.key in ("test/loss", "test/recon") else set()
    if reductions == {"mean"}:
        return replace(metric, unit="averaged error, not nats", digits=4, margin=0.0)
    return replace(metric, unit="nats/image, or averaged error") if "mean" in reductions else metric


def _recipe(row: Row) -> Recipe:
    given = shared(row.configuration)
    numbers = row.batch_size, row.lr, row.schedule, row.latent_dim, row.beta, row.reduction
    known = given or {"params": row.params, "variant": row.variant, "numbers": str(numbers)}
    return ("dataset", row.dataset), *sorted(known.items())


def _sets(rows: Sequence[Row]) -> dict[Recipe, str]:
    """Recipe -> its set in words: the shortest of its names, and what sets it apart where another has that, too."""
    names: dict[Recipe, set[str]] = defaultdict(set)
    for row in rows:
        names[_recipe(row)].add(f"{row.params} {row.variant}".strip())
    short = {recipe: min(given, key=lambda name: (len(name), name)) for recipe, given in names.items()}
    same: dict[tuple[str, str], list[Recipe]] = defaultdict(list)
    for recipe, name in short.items():
        same[recipe[0][1], name].append(recipe)
    found = {}
    for (_, name), recipes in same.items():
        keys = {key for recipe in recipes for key, value in recipe if any(dict(r).get(key) != value for r in recipes)}
        for recipe in recipes:
            given = dict(recipe)
            said = ", ".join(f"{key.rpartition('.')[2]}={given[key]}" for key in sorted(keys) if key in given)
            found[recipe] = f"{name} [{said}]" if said else name
    return found
