"""Ranks of three models or more against the tables and the example of Demšar 2006."""

from __future__ import annotations

import math

import pytest
from scipy.stats import friedmanchisquare

import evidence_examples as examples
from vae_sweep.comparison.contrasts import Group
from vae_sweep.comparison.ranking import _alike, critical_difference, ranking
from vae_sweep.comparison.sentences import ranked
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import sweep_figures

LOSS = Metric("test/loss", "test loss", "nats/image", "lower", 2, 0.5, primary=True)


def group(model: str, params: str, values: tuple[float, ...]) -> Group:
    return Group("data", model, params, tuple(range(len(values))), values, *examples.summary(values))


GROUPS = [
    *(group("fc", "p1", (9.0, 8.0, 9.1)), group("fc", "p2", (7.0, 9.5, 9.9))),
    *(group("conv", "p1", (5.0, 6.0, 5.1)), group("conv", "p2", (6.0, 5.0, 5.2))),
    *(group("conv_res", "p1", (4.0, 6.5, 4.1)), group("conv_res", "p2", (6.0, 4.0, 4.2))),
]


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_the_critical_difference_has_the_published_quantiles(k: int, q: float) -> None:
    """Demšar 2006, table 5 (a)."""
    assert critical_difference(k, 20) == pytest.approx(q * math.sqrt(k * (k + 1) / 120), abs=1e-3)


def test_the_example_of_the_paper() -> None:
    """Section 3.2.2: four algorithms on 14 data sets have a critical difference of 1.25; no two differ."""
    difference = critical_difference(4, 14)
    assert difference == pytest.approx(1.25, abs=0.005)
    ranks = {"C4.5+m+cf": 1.964, "C4.5+m": 2.0, "C4.5+cf": 2.893, "C4.5": 3.143}
    assert _alike(ranks, difference) == (("C4.5+m+cf", "C4.5+m", "C4.5+cf", "C4.5"),)
    assert _alike(ranks, 1.16) == (("C4.5+m+cf", "C4.5+m", "C4.5+cf"), ("C4.5+m", "C4.5+cf", "C4.5"))
    assert _alike(ranks, 0.01) == ()


def test_models_are_ranked_within_sets_and_seeds() -> None:
    found = ranking("data", LOSS, GROUPS)
    assert found is not None
    assert found.models == ("conv_res", "conv", "fc")
    assert found.ranks == pytest.approx(((1 + 2 + 1 + 1.5 + 1 + 1) / 6, (2 + 1 + 2 + 1.5 + 2 + 2) / 6, 3))
    columns = [(9.0, 8.0, 9.1, 7.0, 9.5, 9.9), (5.0, 6.0, 5.1, 6.0, 5.0, 5.2), (4.0, 6.5, 4.1, 6.0, 4.0, 4.2)]
    assert (found.n, found.p) == (6, pytest.approx(friedmanchisquare(*columns).pvalue))
    assert found.critical_difference == pytest.approx(2.343 * math.sqrt(12 / 36), abs=1e-3)
    assert found.alike == (("conv_res", "conv"), ("conv", "fc"))
    said = ranked(found)
    assert "over 6 blocks of one set and seed, 1 is the best: conv_res 1.25, conv 1.75, fc 3.00" in said
    assert "fc 3.00. Friedman test: p = 0." in said
    assert said.endswith("(Nemenyi, 95 % over all pairs of models): conv_res and conv; conv and fc.")
    higher = ranking("data", Metric("test/psnr", "PSNR", "dB", "higher", 2, 0.0), GROUPS)
    assert higher is not None
    assert higher.models[0] == "fc"


def test_what_cannot_be_ranked_is_not() -> None:
    assert ranking("data", LOSS, GROUPS[:4]) is None  # two models
    assert ranking("data", LOSS, [*GROUPS[:4], group("linear", "p9", (1.0, 2.0))]) is None  # no common block
    assert ranking("data", Metric("x", "x", "", "", 2, 0.0), GROUPS) is None
    broken = [*GROUPS[:5], group("conv_res", "p2", (math.nan, 4.0, 4.2))]
    found = ranking("data", LOSS, broken)
    assert found is not None
    assert found.n == 5
    ties = ranking("data", LOSS, [group(model, "p1", (5.0, 5.0)) for model in ("a", "b", "c")])
    assert ties is not None
    assert (ties.p, ties.ranks) == (1.0, (2.0, 2.0, 2.0))


def test_the_diagram_shows_ranks_and_what_may_be_chance() -> None:
    found = ranking("data", LOSS, GROUPS)
    assert found is not None
    (axis,) = sweep_figures.ranks(found).axes
    points = {(float(x), float(y)) for line in axis.get_lines() for x, y in line.get_xydata()}
    assert {(1.25, 0.0), (1.75, 1.0), (3.0, 2.0)} <= points
    bars = [bar.get_segments()[0][:, 0].tolist() for bar in axis.collections]
    assert bars == [[1.25, 1.75], [1.75, 3.0]]
