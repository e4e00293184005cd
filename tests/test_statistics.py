"""Summaries, paired contrasts and verdicts against hand calculations, enumeration, scipy and simulation."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vae_sweep.base.errors import UserError
from vae_sweep.comparison.contrasts import Contrast
from vae_sweep.comparison.sentences import answer, brief
from vae_sweep.comparison.statistics import (
    contrast,
    declare,
    group,
    holm,
    least_p,
    pairs_needed,
    sign_flip_p,
    stratified_bootstrap,
    stratified_interval,
)
from vae_sweep.metrics.catalogue import Metric

LOSS = Metric("test/loss", "test loss", "nats/image", "lower", 2, margin=0.5, primary=True)
KD = Metric("test/kd", "KD", "", "lower", 3, margin=0.05, relative=True, primary=True)
PSNR = Metric("test/psnr", "PSNR", "dB", "higher", 1, margin=0.5)
KL = Metric("test/kl", "test kl", "nats/image", "", 2)
CLEAR = ((6.0, 6.2, 5.8), (3.3, 3.1, 3.5), (7.2, 7.0, 7.4))  # sd 0.2 in each set
FLIPPED = [[-d for d in differences] for differences in CLEAR]


def pairs_of(sets: Sequence[Sequence[float]], level: float = 75.0) -> dict[str, dict[int, tuple[float, float]]]:
    """Pairs with the given differences a - b, b being at ``level``; sets p1, p2, ..."""
    return {f"p{i}": {seed: (level + d, level) for seed, d in enumerate(ds)} for i, ds in enumerate(sets, start=1)}


def compared(metric: Metric, sets: Sequence[Sequence[float]], level: float = 75.0, dataset: str = "shapes") -> Contrast:
    found = contrast(dataset, metric, "fc", "conv", pairs_of(sets, level))
    assert found is not None
    return found


# One seed for each set: what was published with one run a cell.


def test_worked_example() -> None:
    """Losses 80.7, 78.2, 82.6 and 74.7, 74.9, 75.4: t-test p 0.041, t-interval [0.54, 10.46], sign flips p 0.25."""
    losses = {"p1": {0: (80.7, 74.7)}, "p2": {0: (78.2, 74.9)}, "p3": {0: (82.6, 75.4)}}
    c = contrast("cifar10-jpeg", LOSS, "fc", "conv", losses)
    assert c is not None
    assert [s.values for s in c.sets] == [(6.0,), (3.3,), (7.2,)]
    assert (c.n, c.mean, round(c.sd or 0, 1)) == (3, pytest.approx(5.5), 2.0)
    assert 2 * stats.t.sf(c.mean / (c.sd or 0) * math.sqrt(3), 2) == pytest.approx(0.041, abs=5e-4)
    assert c.p == c.p_least == 0.25
    assert (c.low, c.high, c.b_better_low, c.b_better_high) == (None,) * 4
    assert all(s.sd is s.low is s.high is None for s in c.sets)
    assert c.d_z == pytest.approx(5.5 / math.sqrt(3.99) * (1 - 3 / 7))
    assert c.verdict == "inconclusive"
    assert c.sentence == (
        "On cifar10-jpeg, conv against fc is inconclusive in test loss: fc - conv = +5.50 nats/image, no interval, as "
        "no set has two seeds, 3 pairs (3 sets x 1 seed), p = 0.25, d_z = 1.57, conv better in 3 of 3 pairs; the "
        "smallest attainable p of 3 pairs is 0.25, so neither model can be called better at this number of seeds; "
        "2 seeds of each set can give a verdict (seed=0,1)."
    )
    same = compared(LOSS, [(6.0, 3.3, 7.2)])  # as three seeds of one set
    assert (same.low, same.high) == (pytest.approx(0.54, abs=5e-3), pytest.approx(10.46, abs=5e-3))


# The permutation test.


@pytest.mark.parametrize(
    ("n", "least"), [(1, 1), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125), (8, 2**-7), (10, 2**-9), (15, 2**-14)]
)
def test_least_p_is_reached_by_equal_signs(n: int, least: float) -> None:
    assert least_p(n) == sign_flip_p([1.0 + 0.1 * i for i in range(n)]) == least


def test_least_p_as_printed() -> None:
    assert [float(f"{least_p(n):.1g}") for n in (3, 6, 8, 10, 15)] == [0.2, 0.03, 0.008, 0.002, 6e-5]


@pytest.mark.parametrize("seed", range(40))
def test_p_equals_enumeration(seed: int) -> None:
    """Tenths, so that ties and zeros abound; enumerated in whole numbers."""
    random = np.random.default_rng(seed)
    tenths = random.integers(-9 - seed, 10 + seed, size=random.integers(1, 11))
    sums = [abs(np.dot(signs, tenths)) for signs in itertools.product((-1, 1), repeat=len(tenths))]
    expected = np.mean([s >= abs(tenths.sum()) for s in sums])
    assert sign_flip_p([80 + t / 10 - 80 for t in tenths]) == expected  # with the rounding of a subtraction


@pytest.mark.parametrize("differences", [[0.0], [0.0, 0.0, 0.0], [3.0], [0.1, 0.2, -0.3], [0.3, -0.3]])
def test_no_evidence_is_p_1(differences: list[float]) -> None:
    assert sign_flip_p(differences) == 1.0


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200])
def test_p_does_not_depend_on_the_unit(scale: float) -> None:
    """Sums of 3, 1, -2 are at least 2 in 6 of 8 cases."""
    assert sign_flip_p([3 * scale, 1 * scale, -2 * scale]) == 0.75


def test_differences_below_all_units_are_none() -> None:
    assert sign_flip_p([3e-320, 1e-320]) == 1.0
    assert compared(LOSS, [(3e-320, 1e-320)], level=0.0).p == 1.0


def test_many_pairs_are_flipped_at_random() -> None:
    """22 pairs against the number of all 2^22 flips that reach the sum, counted as one would count coin changes."""
    d = [5, 3, -2, 4, 1, -3, 2, 6, -1, 2, 3, -4, 2, 1, -2, 5, -1, 2, -3, 1, 2, 1]
    ways = {0: 1}
    for x in d:
        ways = {s: ways.get(s - x, 0) + ways.get(s + x, 0) for s in {s + y for s in ways for y in (x, -x)}}
    exact = sum(count for s, count in ways.items() if abs(s) >= sum(d)) / 2**22
    assert 0.01 < exact < 0.2
    assert sign_flip_p(d) == pytest.approx(exact, abs=4 * 2 * math.sqrt(exact / 2 / 99_999))  # twice one tail
    assert sign_flip_p(d) == sign_flip_p(d)
    assert sign_flip_p([1.0] * 40) == least_p(40) == 2e-5


# Means and intervals.


def test_group_is_students() -> None:
    values = {3: 74.1, 0: 75.2, 1: 73.3, 2: 74.9}
    found = group("shapes", "conv", "p1", values)
    ordered = [75.2, 73.3, 74.9, 74.1]
    interval = stats.ttest_1samp(ordered, 0).confidence_interval()
    assert (found.seeds, found.values) == ((0, 1, 2, 3), tuple(ordered))
    assert (found.mean, found.sd) == (pytest.approx(np.mean(ordered)), pytest.approx(np.std(ordered, ddof=1)))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_group_of_one_seed_has_no_spread() -> None:
    found = group("shapes", "conv", "p1", {7: 74.1})
    assert (found.seeds, found.mean, found.sd, found.low, found.high) == ((7,), 74.1, None, None, None)


def test_group_of_equal_values_has_spread_0() -> None:
    found = group("shapes", "conv", "p1", dict.fromkeys(range(3), 0.1))
    assert (found.mean, found.sd, found.low, found.high) == (
        pytest.approx(0.1),
        0.0,
        pytest.approx(0.1),
        pytest.approx(0.1),
    )


def test_group_leaves_out_what_is_not_finite() -> None:
    assert group("shapes", "conv", "p1", {0: 1.0, 1: math.nan, 2: 3.0, 3: math.inf}).seeds == (0, 2)
    with pytest.raises(UserError, match="shapes conv p1: no seed has a finite value"):
        group("shapes", "conv", "p1", {0: math.nan})


def test_intervals_of_sets_are_students() -> None:
    for s, differences in zip(compared(LOSS, CLEAR).sets, CLEAR, strict=True):
        interval = stats.ttest_1samp(differences, 0).confidence_interval()
        assert s.values == differences
        assert s.sd == pytest.approx(0.2)
        assert (s.low, s.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


@pytest.mark.parametrize("sizes", [(3, 3), (5, 2), (2, 7)])
def test_interval_of_two_sets_is_welchs(sizes: tuple[int, int]) -> None:
    """The sum n1 m1 + n2 m2 is the difference of the means of n1 x1 and -n2 x2."""
    random = np.random.default_rng(sizes[0])
    x, y = random.normal(6, 1, sizes[0]), random.normal(1, 4, sizes[1])
    welch = stats.ttest_ind(len(x) * x, -len(y) * y, equal_var=False).confidence_interval()
    found = stratified_interval([x.tolist(), y.tolist()])
    assert found == pytest.approx((welch.low / sum(sizes), welch.high / sum(sizes)))


@pytest.mark.parametrize(
    ("sets", "mean", "variance", "df"),
    [
        ([(1, 3), (5,), (7,)], 4, 2, 1),
        ([(1, 2, 3), (11, 12, 13), (7,)], 7, 1, 4),
        ([(1, 2, 3), (11, 12, 13), (6, 7, 8)], 7, 1, 6),
    ],
)
def test_sets_of_one_seed_take_the_spread_of_the_others(
    sets: list[tuple[float, ...]], mean: float, variance: float, df: int
) -> None:
    """Where all sets have one variance the mean's is variance / n, its degrees of freedom n - sets: by hand."""
    half = stats.t.ppf(0.975, df) * math.sqrt(variance / sum(map(len, sets)))
    assert stratified_interval(sets) == pytest.approx((mean - half, mean + half))


def test_interval_without_spread() -> None:
    assert stratified_interval([(1.0,), (2.0,)]) is None
    assert stratified_interval([(0.1, 0.1, 0.1), (0.3, 0.3, 0.3)]) == (pytest.approx(0.2), pytest.approx(0.2))


@pytest.mark.parametrize("noise", [(1, 1, 1), (1, 1, 4)])
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage(seeds: int, noise: tuple[int, int, int]) -> None:
    """Of 1,500 simulations, sets with means of their own: within 4 binomial errors of 94 % at least and 97.5 % at most.

    The lower bound is what Satterthwaite's approximation is known to keep where one set is noisier than the others.
    """
    random = np.random.default_rng(seeds)
    draws = random.normal(size=(1500, 3, seeds)) * np.array(noise)[:, None] + np.array([6.0, 3.3, 7.2])[:, None]
    intervals = np.array([stratified_interval(sets) for sets in draws.tolist()])
    covered = np.mean((intervals[:, 0] <= 5.5) & (intervals[:, 1] >= 5.5))
    assert 0.94 - 4 * math.sqrt(0.94 * 0.06 / 1500) < covered < 0.975 + 4 * math.sqrt(0.975 * 0.025 / 1500)


@pytest.mark.parametrize("sets", [[(1.0, 2.0, 4.0)], [(1.0, 2.0, 4.0), (7.0, 7.5, 9.0, 9.5), (3.0,)]])
def test_stratified_bootstrap_equals_scipys(sets: list[tuple[float, ...]]) -> None:
    """scipy.stats.bootstrap resamples each set by itself, too; the deviations are scaled for it by hand."""
    scaled = [np.mean(v) + (np.array(v) - np.mean(v)) * math.sqrt(len(v) / max(len(v) - 1, 1)) for v in sets]
    n = sum(map(len, sets))

    def mean(*parts: np.ndarray, axis: int = -1) -> np.ndarray:
        return sum(part.sum(axis) for part in parts) / n + sum(v[0] for v in sets if len(v) == 1) / n

    several = tuple(part for part in scaled if len(part) > 1)
    theirs = stats.bootstrap(several, mean, n_resamples=10_000, method="percentile", random_state=1)
    low, high = theirs.confidence_interval
    assert stratified_bootstrap(sets) == pytest.approx((low, high), abs=0.03 * (high - low) + 1e-9)
    assert stratified_bootstrap(sets) == stratified_bootstrap(sets)


def test_coverage_of_the_bootstrap() -> None:
    """3 sets x 5 seeds, 600 simulations: the documented 92 %, 4 binomial errors wide; not the 95 % of its name."""
    draws = np.random.default_rng(3).normal(size=(600, 3, 5)) + np.array([6.0, 3.3, 7.2])[:, None]
    intervals = np.array([stratified_bootstrap(sets) for sets in draws.tolist()])
    covered = np.mean((intervals[:, 0] <= 5.5) & (intervals[:, 1] >= 5.5))
    assert abs(covered - 0.92) < 4 * math.sqrt(0.92 * 0.08 / 600)
    assert stratified_bootstrap([(1.0,), (2.0,)]) is None


def test_d_z_by_hand() -> None:
    """Sum of squares 3 * 0.08 within the sets, 3 * 7.98 between them, 8 degrees of freedom."""
    c = compared(LOSS, CLEAR)
    assert c.sd == pytest.approx(math.sqrt(24.18 / 8))
    assert c.d_z == pytest.approx(5.5 / math.sqrt(24.18 / 8) * (1 - 3 / 31))


@pytest.mark.parametrize("sets", [[(1.0,)], [(1.0, 3.0)], [(6.0, 6.0, 6.0)]])
def test_d_z_needs_three_pairs_and_a_spread(sets: list[tuple[float, ...]]) -> None:
    assert compared(LOSS, sets).d_z is None


def test_rounding_is_no_spread() -> None:
    """80.7 - 74.7 and 81.2 - 75.2 differ in the last bits."""
    found = contrast("shapes", LOSS, "fc", "conv", {"p1": {0: (80.7, 74.7), 1: (81.2, 75.2), 2: (80.1, 74.1)}})
    assert found is not None
    assert (found.sd, found.low, found.high, found.d_z) == (0.0, 6.0, 6.0, None)


@pytest.mark.parametrize(("metric", "share"), [(LOSS, 2.5 / 4), (PSNR, 1.5 / 4), (KL, 2.5 / 4)])
def test_share_of_pairs_counts_ties_half(metric: Metric, share: float) -> None:
    """Differences +1, +2, 0, -1; without a direction the share is of a > b."""
    assert compared(metric, [(1.0, 2.0), (0.0, -1.0)]).b_better == share


def test_interval_of_the_share_by_hand() -> None:
    """Clopper & Pearson: 9 of 9 from 0.025^(1/9); 0 of 9 to 1 - that."""
    best, worst = compared(LOSS, CLEAR), compared(PSNR, CLEAR)
    assert (best.b_better, best.b_better_low, best.b_better_high) == (1, pytest.approx(0.025 ** (1 / 9)), 1)
    assert (worst.b_better, worst.b_better_low, worst.b_better_high) == (0, 0, pytest.approx(1 - 0.025 ** (1 / 9)))


def test_interval_of_the_share_takes_a_tie_either_way() -> None:
    """Two wins and a tie of three: from that of 2 of 3 to that of 3 of 3."""
    c = compared(LOSS, [(1.0, 2.0, 0.0)])
    assert c.b_better_low == pytest.approx(stats.beta.ppf(0.025, 2, 2))
    assert c.b_better_high == 1


@pytest.mark.parametrize("chances", [(0.9, 0.9, 0.9), (0.5, 0.5, 0.5), (0.99, 0.9, 0.6), (1.0, 0.9, 0.8)])
def test_interval_of_the_share_covers(chances: tuple[float, float, float]) -> None:
    """Its exact coverage at 3 sets x 3 seeds that differ in P(b better), summed over all numbers of wins."""
    likelihood = np.ones(1)  # of 0, 1, ... wins
    for p in np.repeat(chances, 3):
        likelihood = np.convolve(likelihood, (1 - p, p))
    coverage = 0.0
    for wins, p in enumerate(likelihood):
        signs = [1.0] * wins + [-1.0] * (9 - wins)
        found = compared(LOSS, [signs[:3], signs[3:6], signs[6:]])
        assert found.b_better_low is not None
        assert found.b_better_high is not None
        coverage += p * (found.b_better_low <= np.mean(chances) <= found.b_better_high)
    assert coverage >= 0.95


# Which pairs count.


def test_one_pair() -> None:
    c = compared(LOSS, [(1.0,)])
    assert (c.n, c.mean, c.p, c.p_least, c.b_better, c.verdict) == (1, 1.0, 1.0, 1.0, 1.0, "inconclusive")
    assert c.sd is c.low is c.high is c.d_z is c.b_better_low is c.b_better_high is None
    assert (
        "1 pair (1 set x 1 seed), p = 1, conv better in 1 of 1 pair; the smallest attainable p of 1 pair is 1"
        in c.sentence
    )


@pytest.mark.parametrize("nothing", [{}, {"p1": {}}, {"p1": {0: (math.nan, 1.0), 1: (math.inf, math.inf)}}])
def test_no_pair(nothing: Mapping[str, Mapping[int, tuple[float, float]]]) -> None:
    assert contrast("shapes", LOSS, "fc", "conv", nothing) is None


def test_pairs_that_are_missing_or_not_finite() -> None:
    """Seeds out of order, a diverged run, a set that lost all pairs, sets of unequal size."""
    nan = math.nan
    pairs = {"p1": {2: (5.0, 1.0), 0: (3.0, 1.0)}, "p2": {0: (nan, 1.0), 4: (2.0, 1.0)}, "p3": {1: (1.0, math.inf)}}
    c = contrast("shapes", LOSS, "fc", "conv", pairs)
    assert c is not None
    assert [(s.params, s.seeds, s.values) for s in c.sets] == [("p1", (0, 2), (2.0, 4.0)), ("p2", (4,), (1.0,))]
    assert (c.n, c.mean) == (3, pytest.approx(7 / 3))
    half = stats.t.ppf(0.975, 1) * math.sqrt(2 / 3)  # variance 2 of one set, taken for both
    assert (c.low, c.high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))
    assert "3 pairs (2 sets with 2 and 1 seeds)" in c.sentence


# Verdicts.

SAME = ((0.1, -0.1, 0.0), (0.05, 0.0, -0.05), (0.1, 0.0, -0.1))
NOISY = ((6.0, -9.0, 2.0), (-3.0, 8.0, 1.0), (4.0, -5.0, -2.0))


@pytest.mark.parametrize(
    ("metric", "sets", "verdict"),
    [
        (LOSS, CLEAR, "better"),
        (PSNR, CLEAR, "worse"),
        (LOSS, FLIPPED, "worse"),
        (PSNR, FLIPPED, "better"),
        (LOSS, SAME, "equivalent"),
        (PSNR, SAME, "equivalent"),
        (LOSS, NOISY, "inconclusive"),
        (PSNR, NOISY, "inconclusive"),
        (KL, CLEAR, "inconclusive"),
        (replace(KL, margin=6.0), CLEAR, "equivalent"),
        (replace(LOSS, margin=0.0), SAME, "inconclusive"),
        (replace(LOSS, margin=6.0), CLEAR, "equivalent"),  # surely lower, and yet too little to matter
    ],
)
def test_verdict(metric: Metric, sets: Sequence[Sequence[float]], verdict: str) -> None:
    assert compared(metric, sets).verdict == verdict


def test_a_verdict_needs_test_and_interval() -> None:
    """Five equal signs give p 0.0625 at least; in six, one large value makes the interval include 0 at p 0.03."""
    five = compared(LOSS, [(6.0, 6.1, 6.2, 6.3, 6.4)])
    assert (five.low or 0) > 5
    assert (five.p, five.verdict) == (0.0625, "inconclusive")
    six = compared(LOSS, [(0.6, 0.7, 0.8, 0.9, 1.0, 30.0)])
    assert (six.p, six.verdict) == (0.03125, "inconclusive")
    assert (
        "conv better in 6 of 6 pairs; the interval includes 0; with this spread it takes 1,000 or more" in six.sentence
    )


def test_swapped_models() -> None:
    one = compared(LOSS, CLEAR)
    swapped = {p: {s: (y, x) for s, (x, y) in seeds.items()} for p, seeds in pairs_of(CLEAR).items()}
    other = contrast("shapes", LOSS, "conv", "fc", swapped)
    assert other is not None
    assert (one.low, one.high) == (-(other.high or 0), -(other.low or 0))
    assert (one.mean, one.p, one.b_better, other.verdict) == (-other.mean, other.p, 1 - other.b_better, "worse")


@pytest.mark.parametrize(("level", "verdict"), [(79.9, "equivalent"), (39.9, "better")])
def test_relative_margin(level: float, verdict: str) -> None:
    """5 % of the mean of 80.1 and 79.9 is 4, of 40.1 and 39.9 is 2: a difference of 3 matters beside one of them."""
    assert compared(KD, [(0.2, 0.2, 0.2)] * 3, level).margin == pytest.approx(0.05 * (level + 0.1))
    assert compared(KD, [(2.9, 3.0, 3.1)] * 3, level).verdict == verdict


def test_relative_margin_of_negative_values() -> None:
    assert compared(KD, [(0.2, 0.2)], -10.1).margin == pytest.approx(0.05 * 10)


# Several metrics.


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),
        ([0.9, 0.6, 0.6], [1.0, 1.0, 1.0]),
    ],
)
def test_holm_by_hand(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted)


def test_declared_family() -> None:
    """Two primary metrics of one dataset are adjusted together; another dataset and a third metric are left alone."""
    loss, kd, psnr = compared(LOSS, CLEAR), compared(KD, NOISY, 1.0), compared(PSNR, CLEAR)
    elsewhere = compared(LOSS, CLEAR, dataset="permuted")
    found = declare([psnr, loss, elsewhere, kd])
    assert [c.metric.key for c in found] == [PSNR.key, LOSS.key, LOSS.key, KD.key]
    assert [c.p_holm for c in found] == [None, 2 * 2**-8, 2**-8, kd.p]
    assert kd.p > 0.05
    assert [c.verdict for c in found] == ["worse", "better", "better", "inconclusive"]
    assert found[0] == psnr
    assert declare(found) == found


def test_the_family_is_all_pairs_of_models_that_can_reject_anything() -> None:
    """Three pairs of models, one of them with three seeds of one set: p 0.25 at least, so it takes no part."""
    clear, few = compared(LOSS, CLEAR), compared(LOSS, [(6.0, 6.1, 6.2)])
    found = declare([clear, replace(clear, a="fc_skip"), replace(few, a="fc_skip", b="fc")])
    assert [c.p_holm for c in found] == [2 * 2**-8, 2 * 2**-8, None]
    assert [c.family for c in found] == [3] * 3
    assert [c.verdict for c in found] == ["better", "better", "inconclusive"]
    assert found[2].sentence.count("Holm") == 0
    assert found[2].seeds == 7  # 3 * 2 / 2^7 = 0.047
    many = declare([replace(clear, a=str(i)) for i in range(13)])  # 13 * 2 / 2^9 = 0.0508
    assert {(c.p_holm, c.verdict, c.seeds) for c in many} == {(13 * 2**-8, "inconclusive", 4)}


def test_equivalence_is_adjusted_for_more_than_two_tests() -> None:
    """Half widths are near t(6) * 0.09 / 3: t is 2.447 at 0.025, 2.969 at 0.0125, 3.863 at 0.05 / 12."""
    close = compared(replace(LOSS, margin=0.1), SAME)
    verdicts = {n: declare([replace(close, a=str(i)) for i in range(n)])[0].verdict for n in (1, 2, 4, 12)}
    assert verdicts == {1: "equivalent", 2: "equivalent", 4: "equivalent", 12: "inconclusive"}
    last = declare([replace(close, a=str(i)) for i in range(12)])[0]
    assert "for equivalence an interval that is adjusted for 12 tests counts" in last.sentence


# How many seeds.


@pytest.mark.parametrize(("margin", "seeds"), [(2.0, 7), (1.0, 18), (0.5, 64)])
def test_seeds_are_those_of_an_interval_half_as_wide_as_the_margin_on_either_side(margin: float, seeds: int) -> None:
    """By hand for sd 1: t(6) = 2.447 of 7, t(17) = 2.110 of 18, t(63) = 1.998 of 64 seeds."""
    c = compared(replace(LOSS, margin=margin), [(-1.0, 0.0, 1.0)])
    assert (c.verdict, c.seeds) == ("inconclusive", seeds)


def test_so_many_seeds_decide_about_every_second_time_at_worst() -> None:
    """Three sets of sd 1: whatever the true difference is, most sweeps of that many seeds are decided."""
    c = compared(replace(LOSS, margin=0.7), [(-1.0, 0.0, 1.0), (-1.0, 1.0, 0.0), (0.0, 1.0, -1.0)])
    assert c.seeds is not None
    random = np.random.default_rng(0)
    for true, least in ((0.0, 0.95), (0.35, 0.45), (0.7, 0.95)):
        drawn = random.normal(true, 1.0, (20_000, 3, c.seeds))
        half = stats.t.ppf(0.975, 3 * (c.seeds - 1)) * np.sqrt(drawn.var(2, ddof=1).mean(1) / (3 * c.seeds))
        mean = np.abs(drawn.mean((1, 2)))
        assert float(((mean > half) | (mean + half < 0.7)).mean()) > least


def test_an_inconclusive_contrast_never_needs_fewer_seeds_than_it_has() -> None:
    random, asked = np.random.default_rng(0), 0
    for sets, seeds in ((1, 10), (2, 4), (3, 3), (3, 6)):
        for _ in range(20):
            c = compared(LOSS, (random.normal(0.25, 0.45, (sets, seeds)) * [[1.0], [2.0], [0.5]][:sets]).tolist())
            if c.verdict == "inconclusive" and c.seeds is not None:
                asked += 1
                assert c.seeds * sets > c.n
    assert asked > 40


def test_many_tests_end() -> None:
    """Beyond 2,500 not even 99,999 flips can reach the level."""
    assert [pairs_needed(n) for n in (1, 2, 12, 2500, 2501)] == [6, 7, 9, 17, None]


def test_without_spread_or_margin_nothing_tells_how_many_seeds() -> None:
    assert compared(replace(LOSS, margin=0.0), NOISY).seeds is None
    assert compared(replace(LOSS, margin=0.0), [(1.0, -1.0, 0.5)]).seeds == 6  # fewer cannot give p <= 0.05
    assert compared(LOSS, CLEAR).seeds is None  # it is decided
    assert compared(KL, NOISY).seeds is None  # no question of better or worse


def test_correction_can_take_a_verdict_back() -> None:
    """Six pairs give 0.031 at least: below 0.05 for one metric, 0.062 and so above it for two.

    d_z by hand: 6.05 / sqrt(0.175 / 5) * (1 - 3 / 19).
    """
    six = [(6.0, 6.1, 6.2), (5.8, 5.9, 6.3)]
    alone = declare([compared(LOSS, six)])
    both = declare([compared(LOSS, six), compared(KD, six)])
    assert (alone[0].p_holm, alone[0].verdict) == (0.03125, "better")
    assert [(c.p_holm, c.verdict) for c in both] == [(0.0625, "inconclusive")] * 2
    assert both[0].sentence.endswith(
        "p = 0.031 (Holm 0.062), d_z = 27.23, conv better in 6 of 6 pairs; the smallest attainable Holm-adjusted p of "
        "6 pairs is 0.062, so neither model can be called better at this number of seeds; 4 seeds of each set can "
        "give a verdict (seed=0,1,2,3)."
    )
    _, unclear = declare([compared(LOSS, six), compared(KD, [(6.0, -5.0, 1.0), (2.0, -3.0, -1.0)])])
    assert unclear.p > 0.5
    assert "the smallest attainable Holm-adjusted p of 6 pairs is 0.062, so" in unclear.sentence


# Sentences. The interval of CLEAR by hand: 5.5 -+ 2.447 * 0.2 / 3.


def test_sentence_of_a_better_model() -> None:
    c, _ = declare([compared(LOSS, CLEAR, dataset="cifar10-jpeg"), compared(KD, CLEAR, dataset="cifar10-jpeg")])
    assert c.sentence == (
        "On cifar10-jpeg, conv is better than fc in test loss: fc - conv = +5.50 nats/image, 95 % interval [5.34, "
        "5.66], 9 pairs (3 sets x 3 seeds), p = 0.0039 (Holm 0.0078; smallest attainable p 0.0039), d_z "
        "= 2.86, conv better in 9 of 9 pairs."
    )
    assert brief(c) == (
        "On cifar10-jpeg, conv is better than fc in test loss: fc - conv = +5.50 nats/image, 95 % interval [5.34, "
        "5.66], 9 pairs, Holm-adjusted p = 0.0078."
    )


def test_sentence_of_a_descriptive_metric() -> None:
    assert compared(PSNR, CLEAR).sentence == (
        "On shapes, conv is worse than fc in PSNR: fc - conv = +5.5 dB, 95 % interval [5.3, 5.7], 9 pairs (3 sets x 3 "
        "seeds), p = 0.0039 (smallest attainable p 0.0039), d_z = 2.86, conv better in 0 of 9 pairs; "
        "descriptive, as p is not corrected for the number of metrics."
    )


def test_sentence_of_equivalence_and_of_signs_that_differ() -> None:
    """Variance 0.01 in each set: 0.0 -+ 2.447 * 0.1 / 3; all flips reach a sum of 0."""
    sets = ((0.1, 0.2, 0.3), (-0.1, -0.2, -0.3), (-0.1, 0.0, 0.1))
    assert compared(LOSS, sets).sentence == (
        "On shapes, conv and fc are equivalent in test loss within the stated margin of 0.5 nats/image: fc - conv = "
        "+0.00 nats/image, 95 % interval [-0.08, 0.08], 9 pairs (3 sets x 3 seeds), p = 1 (smallest attainable p "
        "0.0039), d_z = 0.00, conv better in 4.5 of 9 pairs; the sign differs between the sets (p1 +0.20, p2 "
        "-0.20, p3 +0.00)."
    )


def test_a_verdict_in_brief() -> None:
    noisy = compared(LOSS, NOISY)
    assert brief(noisy).startswith(
        "On shapes, conv against fc is inconclusive in test loss: fc - conv = +0.22 nats/image, "
    )
    assert f"9 pairs, p = {noisy.p:.2g}." in brief(noisy)
    assert brief(compared(LOSS, ((0.1,), (-0.1,)))) == (
        "On shapes, conv against fc is inconclusive in test loss: fc - conv = +0.00 nats/image, 2 pairs, p = 1. "
        "2 pairs cannot give a p below 0.5. 3 seeds of each set can give a verdict (seed=0,1,2)."
    )


def test_signs_that_differ_only_beyond_the_digits_are_not_told() -> None:
    assert "sign differs" not in compared(LOSS, [(6.0, 6.1), (-0.001, -0.002)]).sentence


def test_sentence_without_direction() -> None:
    assert compared(KL, FLIPPED).sentence == (
        "On shapes, in test kl fc - conv = -5.50 nats/image, 95 % interval [-5.66, -5.34], 9 pairs (3 sets x 3 seeds), "
        "p = 0.0039 (smallest attainable p 0.0039), d_z = -2.86, conv lower in 0 of 9 pairs; descriptive, "
        "as p is not corrected for the number of metrics."
    )


def test_sentence_says_what_a_verdict_lacks() -> None:
    noisy = compared(LOSS, NOISY)
    assert noisy.p > 0.05
    assert noisy.sentence.startswith("On shapes, conv against fc is inconclusive in test loss: fc - conv = +0.22 nats")
    assert noisy.sentence.endswith(
        "; p is above 0.05 and the interval includes 0; with this spread it takes about 768 seeds of each set to "
        "decide; the sign differs between the sets (p1 -0.33, p2 +2.00, "
        "p3 -1.00)."
    )
    single = compared(LOSS, [(6.0 + i / 10,) for i in range(6)])
    assert (single.p, single.verdict) == (0.03125, "inconclusive")
    assert single.sentence.endswith(
        "; without two seeds in any set the noise between seeds is unknown; 2 seeds of each set can give "
        "a verdict (seed=0,1)."
    )


# The answer in plain words.


def test_the_answer_names_who_is_better_by_how_much_and_where() -> None:
    c = compared(LOSS, CLEAR)
    said = "conv reconstructs and compresses better than fc: test loss lower by 5.50 nats/image (95 % interval "
    assert answer(c, level=80.5) == f"{said}{c.low:.2f} to {c.high:.2f}, 9 pairs of 3 sets), 6.8 % of fc's."
    turned = compared(LOSS, FLIPPED)
    said = "fc reconstructs and compresses better than conv: test loss lower by 5.50 nats/image (95 % interval "
    assert answer(turned, level=69.5) == f"{said}{c.low:.2f} to {c.high:.2f}, 9 pairs of 3 sets), 7.3 % of conv's."
    assert "p =" not in answer(c)
    assert answer(c).endswith("9 pairs of 3 sets).")  # a share of what is unknown is not said


def test_the_answer_says_what_is_open_and_what_differs_between_sets() -> None:
    mixed = compared(LOSS, ((6.0, 6.2, 5.8), (-3.3, -3.1, -3.5)))
    said = answer(mixed, level=76.0)
    assert said.startswith("It is open which of conv and fc reconstructs and compresses better: for conv, test loss")
    assert said.endswith("of fc's, but not in every set.")
    alone = answer(compared(LOSS, ((3.0,), (2.0,), (4.0,))))
    assert alone.endswith("for conv, test loss lower by 3.00 nats/image (3 pairs of 3 sets).")
    assert "interval" not in alone
    below = compared(LOSS, ((1.0, -3.0, 2.5),))
    assert f"95 % interval −{abs(below.low or 0):.2f} to {below.high:.2f}" in answer(below)


def test_the_answer_of_equivalent_models_and_of_samples() -> None:
    equal = compared(LOSS, ((0.01, -0.01, 0.02), (0.0, 0.01, -0.02)))
    assert answer(equal).startswith(
        "conv and fc reconstruct and compress equally well, as the difference is under 0.5 nats/image: for conv, test "
        "loss lower by 0.00 nats/image"
    )
    nearer = compared(KD, ((0.5, 0.52, 0.48), (0.3, 0.31, 0.29), (0.7, 0.69, 0.71)), level=1.0)
    assert answer(nearer).startswith("conv draws samples closer to real images than fc: KD lower by 0.500 (95 %")
    higher = replace(compared(PSNR, CLEAR), verdict="worse")
    assert answer(higher).startswith("fc draws samples closer to real images than conv: PSNR higher by 5.5 dB")
