"""The results of a comparison as data: a cell's seeds, and paired differences of two models."""

from __future__ import annotations

from dataclasses import dataclass

from vae_sweep.metrics.catalogue import Metric

LEVEL = 0.05  # of tests; intervals are 1 - LEVEL
CLOSED_FORM = "closed_form"  # the baseline of a model that is compared with no other one


@dataclass(frozen=True)
class Group:
    """One model with one hyperparameter set on one dataset: a metric's value for every seed."""

    dataset: str
    model: str
    params: str  # the set, and what else is swept, such as "p2" or "p2 beta=4"
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    sd: float | None  # between seeds (n - 1); None for one seed
    low: float | None  # 95 % t-interval of the mean; None for one seed
    high: float | None


@dataclass(frozen=True)
class SetDifference:
    """Paired differences a - b of one hyperparameter set, one for each seed that both models have."""

    params: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    mean: float
    sd: float | None
    low: float | None  # 95 % t-interval; None for one seed
    high: float | None


@dataclass(frozen=True)
class Contrast:
    """Model ``a`` minus model ``b`` on one metric of one dataset, paired on (params, seed)."""

    dataset: str
    metric: Metric
    a: str
    b: str
    sets: tuple[SetDifference, ...]
    n: int  # pairs
    mean: float  # over all pairs
    sd: float | None  # of the pairs' differences
    low: float | None  # 95 % interval of the mean, from the spread within sets; None where no set has two seeds
    high: float | None
    bootstrap_low: float | None  # 95 % stratified percentile bootstrap of the mean; too narrow with few seeds
    bootstrap_high: float | None
    p: float  # exact two-sided sign-flip permutation test
    p_least: float  # smallest attainable p of so many pairs; zeros among the differences raise it further
    p_holm: float | None  # adjusted over the family; None for a metric that is not primary, or too few pairs
    d_z: float | None  # mean / sd of the differences, Hedges-corrected; None below three pairs and for sd = 0
    b_better: float  # share of pairs in which b is better, or lower where neither is; a tie counts half
    b_better_low: float | None  # 95 % Clopper-Pearson interval; None where no set has two seeds
    b_better_high: float | None
    margin: float  # of equivalence, in the metric's unit
    verdict: str  # of b against a: "better", "worse", "equivalent" or "inconclusive"
    sentence: str  # what it rests on first
    states: tuple[str | None, ...] = ()  # how the training of each run that was compared ended; None is unknown
    planned: bool = True  # one of the two models is the other's baseline, or the common one
    family: int = 1  # primary tests of the dataset: all its pairs of models and primary metrics
    seeds: int | None = None  # of each set, that an inconclusive contrast needs; None where nothing tells how many
