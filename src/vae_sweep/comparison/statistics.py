"""What several seeds allow one to say: summaries of cells, paired contrasts of two models, a verdict.

Pure: numbers in, numbers and sentences out; knows neither MLflow nor torch. The hyperparameter sets are fixed levels,
not a sample of all sets: what is said holds for these sets, and only the seeds are random. Every seed counts; none is
chosen for its result.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import numpy as np
import scipy  # its stats, which take half a second, when they are first used

from vae_sweep.base.errors import UserError
from vae_sweep.comparison.contrasts import LEVEL, Contrast, Group, SetDifference
from vae_sweep.comparison.sentences import MANY, sentence
from vae_sweep.metrics.catalogue import Metric

EXACT = 16  # pairs up to which all 2^n flips of signs are enumerated
RESAMPLES = 10_000  # of the bootstrap
FLIPS = 99_999  # random ones beyond; their smallest attainable p, 2e-5, continues that of 16 pairs, 3e-5
DIGITS = 12  # significant ones that values are taken to have; what is beyond is rounding, not a difference


def group(dataset: str, model: str, params: str, values: Mapping[int, float]) -> Group:
    """Return the summary of one cell with Student's interval; ``values`` maps seed to value.

    Values that are not finite are left out; raises UserError where none is left.
    """
    finite = {seed: float(value) for seed, value in sorted(values.items()) if math.isfinite(value)}
    if not finite:
        raise UserError(
            f"{dataset} {model} {params}: no seed has a finite value, and a summary needs one; run it again."
        )
    return Group(dataset, model, params, tuple(finite), tuple(finite.values()), *_summary(list(finite.values())))


def contrast(
    dataset: str,
    metric: Metric,
    a: str,
    b: str,
    pairs: Mapping[str, Mapping[int, tuple[float, float]]],
    states: Sequence[str | None] = (),
) -> Contrast | None:
    """Return what ``pairs[params][seed] = (value of a, value of b)`` say about a - b; None where there is no pair.

    Pairs with a value that is not finite are left out. ``states``: how the trainings that are compared ended
    (see :mod:`.convergence`); None is unknown. d_z carries the factor 1 - 3 / (4 (n - 1) - 1) (Hedges 1981),
    which is 0 for two pairs. The interval of P(b better) is Clopper & Pearson's (1934), valid also where that
    probability differs between sets (Hoeffding 1956): 9 of 9 gives [0.66, 1], where a bootstrap gives [1, 1], which
    at 3 sets x 3 seeds covers a true 0.9 in 57 of 100 cases.
    """
    kept = {
        params: {seed: pair for seed, pair in sorted(seeds.items()) if math.isfinite(pair[0] - pair[1])}
        for params, seeds in pairs.items()
    }
    kept = {params: seeds for params, seeds in kept.items() if seeds}
    both = np.array([pair for seeds in kept.values() for pair in seeds.values()], dtype=np.float64)  # (n, 2)
    n = len(both)
    if not n:
        return None
    # 80.7 - 74.7 and 81.2 - 75.2 must be one number, or equal pairs would neither tie nor have a spread of 0.
    decimals = DIGITS - 1 - _exponent(np.abs(both).max())
    sets = []
    for params, seeds in kept.items():
        d = [float(np.round(x - y, decimals)) for x, y in seeds.values()]
        sets.append(SetDifference(params, tuple(seeds), tuple(d), *_summary(d)))
    differences = [d for s in sets for d in s.values]
    mean, sd, _, _ = _summary(differences)
    strata = [s.values for s in sets]
    low, high = stratified_interval(strata) or (None, None)
    bootstrap_low, bootstrap_high = stratified_bootstrap(strata) or (None, None)
    sign = -1 if metric.better == "higher" else 1
    halves = sum(2 * (sign * d > 0) + (d == 0) for d in differences)  # wins of b in halves, for ties
    known = low is not None
    return _judged(
        Contrast(
            *(dataset, metric, a, b, tuple(sets), n, mean, sd, low, high, bootstrap_low, bootstrap_high),
            p=sign_flip_p(differences),
            p_least=least_p(n),
            p_holm=None,
            d_z=(1 - 3 / (4 * (n - 1) - 1)) * mean / sd if sd and n > 2 else None,
            b_better=halves / (2 * n),
            b_better_low=float(scipy.stats.binomtest(halves // 2, n).proportion_ci().low) if known else None,
            b_better_high=float(scipy.stats.binomtest(-(-halves // 2), n).proportion_ci().high) if known else None,
            margin=metric.margin * (abs(float(both.mean())) if metric.relative else 1.0),
            verdict="",
            sentence="",
            states=tuple(states),
        )
    )


def declare(contrasts: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """Return the contrasts in their order, p_holm, verdict and sentence of the primary metrics' filled in.

    The family over which p is adjusted is all pairs of models of one dataset in all primary metrics. A test that cannot
    reach the level with its number of pairs takes no part in it (Tarone 1990): it can reject nothing.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for i, c in enumerate(contrasts):
        if c.metric.primary:
            families[c.dataset].append(i)
    judged = list(contrasts)
    for family in families.values():
        able = [i for i in family if contrasts[i].p_least <= LEVEL]
        adjusted = dict(zip(able, holm([contrasts[i].p for i in able]), strict=True))
        least = dict(zip(able, holm([contrasts[i].p_least for i in able]), strict=True))
        for i in family:
            found = replace(contrasts[i], p_holm=adjusted.get(i), family=len(family))
            judged[i] = _judged(found, least.get(i))
    return tuple(judged)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted step-down (Holm 1979), in their order: at most 1, and in the order of size."""
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = reached
    return adjusted


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of the mean under flips of the signs (Fisher 1935): exact up to 16 pairs, then random.

    Under the hypothesis that a and b are exchangeable within a pair. Sums that differ by rounding only are ties.
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) == 1 or not d.any():
        return 1.0
    # Whole numbers add up without rounding, so that 0.1 + 0.2 - 0.3 is no evidence against 0.
    whole = np.rint(d / 10.0 ** (_exponent(np.abs(d).max()) - DIGITS + 1))
    found = scipy.stats.permutation_test(
        (whole,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=2 ** len(d) if len(d) <= EXACT else FLIPS,  # scipy enumerates from 2^n on
        batch=4096,
        random_state=np.random.default_rng(0),
    )
    return float(found.pvalue)


def least_p(n: int) -> float:
    """Return the smallest attainable ``sign_flip_p`` of n pairs: 2 / 2^n, that of equal signs (1 for one pair)."""
    return 2.0 / (2**n if n <= EXACT else FLIPS + 1)


def pairs_needed(tests: int) -> int | None:
    """Return the fewest pairs whose ``least_p`` times so many tests is at most the level; None where none suffice."""
    return next((n for n in range(1, EXACT + 2) if tests * least_p(n) <= LEVEL), None)


def seeds_needed(c: Contrast) -> int | None:
    """Return how many seeds of each set would probably decide an inconclusive contrast; None where nothing tells.

    Where the interval excludes 0, or the noise is unknown, those with which the sign-flip test reaches the level after
    the adjustment. Else those with which a mean difference of any size is decided, if the variance within sets stays
    what it was: either the interval at the level divided by the family excludes 0, or that of equivalence lies within
    the margin, since the sum of their half widths is no more than it. At most 1,000.
    """
    sets, pairs = len(c.sets), pairs_needed(c.family)
    if pairs is None:
        return None
    fewest = math.ceil(pairs / sets)
    if c.low is None or c.high is None:
        return max(2, fewest)
    if c.low > 0 or c.high < 0 or not c.margin:
        return fewest if fewest * sets > c.n else None
    variance = sum((len(s.values) - 1) * (s.sd or 0.0) ** 2 for s in c.sets) / (c.n - sets)

    def decides(seeds: int) -> bool:
        df, error = sets * (seeds - 1), math.sqrt(variance / (sets * seeds))
        tails = LEVEL / c.family / 2, equivalence_level(c.family) / 2
        return float(sum(scipy.stats.t.isf(tail, df) for tail in tails)) * error <= c.margin

    return max(fewest, c.n // sets + 1, bisect_left(range(MANY), True, lo=2, key=decides))


def equivalence_level(family: int) -> float:
    """Return 1 less the confidence of the interval that decides equivalence: 0.05, or less for more than two tests.

    Equivalence is two one-sided tests (Schuirmann 1987), here each at the level divided by the family (Bonferroni).
    """
    return min(LEVEL, 2 * LEVEL / family)


def stratified_interval(sets: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over all values, the sets being fixed; None where none has two values.

    With another ``level``, the interval of confidence 1 - level.

    Student's t on the variances within sets, with Satterthwaite's (1946) degrees of freedom, as for a stratified mean
    (Cochran 1977, section 5.4); a set of one value is given the pooled variance of the others. The percentile
    bootstrap within sets is too narrow here, as it takes the spread of few values for the truth (Hesterberg 2015): it
    covers 83 % at 3 sets x 3 seeds and 89 % at 3 x 5 under normal noise; this covers 97 % and 96 %, and 94 % at both
    where one set's noise is four times the others'. Strong skew costs both: 93 % and 92 % under exponential noise.
    """
    several = [values for values in sets if len(values) > 1]
    if not several:
        return None
    mean, n = fmean(v for values in sets for v in values), sum(map(len, sets))
    freedom = np.array([len(values) - 1 for values in several])
    borrowed = (len(sets) - len(several)) * freedom / freedom.sum()  # what sets of one value take from each other set
    terms = (freedom + 1 + borrowed) / n**2 * np.array([stdev(values) ** 2 for values in several])
    if not terms.any():
        return mean, mean
    df = terms.sum() ** 2 / (terms**2 / freedom).sum()
    half = float(scipy.stats.t.ppf(1 - level / 2, df) * np.sqrt(terms.sum()))
    return mean - half, mean + half


def stratified_bootstrap(sets: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of the mean over all values, resampled within sets; None without spread.

    10,000 resamples, the same ones each time. Deviations from a set's mean are scaled by sqrt(n / (n - 1)), since those
    of n values from their own mean are too small (Davison & Hinkley 1997, section 2.3). Still it covers 90 % at 3 sets
    x 3 seeds and 92 % at 3 x 5 under normal noise, so it is shown and :func:`stratified_interval` decides.
    """
    if all(len(values) < 2 for values in sets):
        return None
    source, total, n = np.random.default_rng(0), np.zeros(RESAMPLES), sum(map(len, sets))
    for values in map(np.asarray, sets):
        size, mean = len(values), values.mean()
        scaled = mean + (values - mean) * np.sqrt(size / (size - 1) if size > 1 else 1.0)
        total += scaled[source.integers(0, size, (RESAMPLES, size))].sum(1)
    low, high = np.quantile(total / n, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _summary(values: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Mean, sd and Student's interval."""
    mean = fmean(values)
    if len(values) == 1:
        return mean, None, None, None
    return mean, stdev(values), *(stratified_interval([values]) or (None, None))


def _exponent(value: float) -> int:
    """Of ten, in scientific notation; kept to where its powers are numbers."""
    return max(-290, math.floor(math.log10(value))) if value else 0


def _judged(c: Contrast, least: float | None = None) -> Contrast:
    """The contrast with its verdict and sentence; ``least`` is the smallest that the p that counts can be."""
    p = c.p if c.p_holm is None else c.p_holm
    verdict = "inconclusive"
    wide = stratified_interval([s.values for s in c.sets], equivalence_level(c.family))
    if wide is not None and c.low is not None and c.high is not None:
        if -c.margin < wide[0] and wide[1] < c.margin:
            verdict = "equivalent"
        elif c.metric.better and p <= LEVEL and (c.low > 0 or c.high < 0):
            verdict = "better" if (c.low > 0) == (c.metric.better == "lower") else "worse"
    c = replace(c, verdict=verdict, seeds=seeds_needed(c) if verdict == "inconclusive" and c.metric.better else None)
    return replace(c, sentence=sentence(c, p, c.p_least if least is None else least))
