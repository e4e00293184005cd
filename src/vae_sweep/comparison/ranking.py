"""Three models or more at once: mean ranks, the Friedman test, and which differences of ranks may be chance. Pure.

Demšar 2006, "Statistical comparisons of classifiers over multiple data sets": the blocks here are the hyperparameter
sets and seeds that every model has finished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its stats, which take half a second, when they are first used

from vae_sweep.comparison.contrasts import LEVEL, Group
from vae_sweep.metrics.catalogue import Metric


@dataclass(frozen=True)
class Ranking:
    """The models of one dataset by their mean rank in one metric; 1 is the best."""

    dataset: str
    metric: Metric
    models: tuple[str, ...]  # the best first
    ranks: tuple[float, ...]  # mean over blocks; ties share theirs
    n: int  # blocks: pairs of set and seed
    p: float  # of the Friedman test that all models are alike
    critical_difference: float  # of two mean ranks, Nemenyi's, at 95 % over all pairs of models together
    alike: tuple[tuple[str, ...], ...]  # largest groups whose ranks lie within it


def ranking(dataset: str, metric: Metric, groups: Sequence[Group]) -> Ranking | None:
    """Return the ranking of the models; None for fewer than three, than two common blocks, or without a direction.

    ``groups``: one for each model and set of the dataset.
    """
    values: dict[str, dict[tuple[str, int], float]] = {}
    for group in groups:
        of = values.setdefault(group.model, {})
        of |= {(group.params, seed): v for seed, v in zip(group.seeds, group.values, strict=True) if math.isfinite(v)}
    blocks = sorted(set.intersection(*map(set, values.values()))) if values else []
    if len(values) < 3 or len(blocks) < 2 or metric.better not in ("lower", "higher"):
        return None
    sign = 1 if metric.better == "lower" else -1
    table = np.array([[sign * of[block] for of in values.values()] for block in blocks])  # (n, k)
    mean = scipy.stats.rankdata(table, axis=1).mean(axis=0)
    order = np.argsort(mean, kind="stable")
    models, ranks = [list(values)[i] for i in order], [float(mean[i]) for i in order]
    with np.errstate(invalid="ignore"):  # where every block is a tie
        p = float(scipy.stats.friedmanchisquare(*table.T).pvalue)
    difference = critical_difference(len(models), len(blocks))
    alike = _alike(dict(zip(models, ranks, strict=True)), difference)
    p = p if math.isfinite(p) else 1.0
    return Ranking(dataset, metric, tuple(models), tuple(ranks), len(blocks), p, difference, alike)


def critical_difference(models: int, blocks: int) -> float:
    """Return by how much two mean ranks must differ at least: q sqrt(k (k + 1) / (6 n)) (Nemenyi 1963; Demšar 2006)."""
    q = float(scipy.stats.studentized_range.ppf(1 - LEVEL, models, math.inf)) / math.sqrt(2)
    return q * math.sqrt(models * (models + 1) / (6 * blocks))


def _alike(ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """The largest groups, of two models or more, whose ranks (ascending) lie within ``difference``."""
    names = list(ranks)
    found: list[tuple[str, ...]] = []
    for i, name in enumerate(names):
        group = tuple(other for other in names[i:] if ranks[other] - ranks[name] <= difference)
        if len(group) > 1 and not (found and set(group) <= set(found[-1])):
            found.append(group)
    return tuple(found)
