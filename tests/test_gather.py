"""Rows of several sweeps: what is paired with what, and what is never paired."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vae_sweep import catalogue
from vae_sweep.comparison import ReferenceRow, Row
from vae_sweep.gather import _named, _without_repeats, contrasts_of, controls_of, groups_of

LOSS = [metric for metric, _ in catalogue.described(["test/loss"])]
LINE = ReferenceRow("d", 128, 1.0, "sum", 36, *[76.0] * 9)


def row(model: str, params: str, seed: int, loss: float, **other: object) -> Row:
    made = Row(
        run_id=f"{model}{params}{seed}", name=f"{model}-{params}-s{seed}", status="FINISHED", dataset="d", digest="1a",
        model=model, params=params, seed=seed, batch_size=64, lr=1e-3, latent_dim=128, beta=1.0, reduction="sum",
        reference=LINE, metrics={"test/loss": loss},
    )  # fmt: skip
    return replace(made, **other)  # type: ignore[arg-type]


GRID = [
    row(model, params, seed, 80.0 + 5 * (model == "fc") + params_at + seed)
    for model in ("fc", "conv")
    for params, params_at in (("p1", 0.0), ("p2", 2.0))
    for seed in (0, 1, 2)
]


def test_pairs_are_of_one_set_and_one_seed() -> None:
    """fc - conv is 5 in every pair, though seeds and sets differ by as much among themselves."""
    (found,) = contrasts_of(GRID, LOSS)
    assert (found.a, found.b, found.n) == ("fc", "conv", 6)
    assert [s.values for s in found.sets] == [(5.0, 5.0, 5.0), (5.0, 5.0, 5.0)]
    assert found.p == found.p_holm == 2 / 2**6
    groups = {(g.model, g.params): (g.mean, g.seeds) for g in groups_of(GRID, LOSS[0])}
    assert groups["fc", "p2"] == (88.0, (0, 1, 2))


def test_a_seed_that_one_model_lacks_is_in_no_pair() -> None:
    (found,) = contrasts_of([r for r in GRID if r.name != "conv-p1-s1"], LOSS)
    assert [(s.params, s.seeds) for s in found.sets] == [("p1", (0, 2)), ("p2", (0, 1, 2))]


def test_equal_names_of_different_images_are_not_paired() -> None:
    mixed = [replace(r, digest="2b") if r.model == "conv" else r for r in GRID]
    named = [r for r, _ in _named([(r, None) for r in mixed])]
    assert {r.dataset for r in named} == {"d [1a]", "d [2b]"}
    assert contrasts_of(named, LOSS) == []


def test_different_losses_are_not_averaged() -> None:
    """beta 1 and 4 stand apart; an averaged error has no margin in nats."""
    strong = [replace(r, name=f"{r.name}-b4", beta=4.0, metrics={"test/loss": 100.0}) for r in GRID]
    named = [r for r, _ in _named([(r, None) for r in GRID + strong])]
    found = contrasts_of(named, LOSS)
    assert [(c.dataset, c.mean, c.n) for c in found] == [("d, beta 1, sum", 5.0, 6), ("d, beta 4, sum", 0.0, 6)]
    averaged = [replace(r, reduction="mean", metrics={"test/loss": 0.06}) for r in GRID]
    (one,) = contrasts_of(averaged, LOSS)
    assert (one.margin, one.verdict) == (0.0, "inconclusive")


def test_equal_labels_of_different_recipes_are_not_paired() -> None:
    other = [replace(r, lr=1e-2) if r.model == "conv" and r.params == "p1" else r for r in GRID]
    (found,) = contrasts_of(other, LOSS)
    assert [s.params for s in found.sets] == ["p2"]
    labels = {g.params for g in groups_of(other, LOSS[0])}
    assert labels == {"p2", *(f"p1 [batch 64, lr {lr}, latent 128, beta 1, sum]" for lr in ("0.001", "0.01"))}


def test_of_a_repeated_cell_the_first_finished_run_counts() -> None:
    """Never the better one."""
    worse = replace(GRID[0], metrics={"test/loss": 99.0})
    failed = replace(GRID[0], status="FAILED")
    for given, kept in (([worse, GRID[0]], worse), ([GRID[0], worse], GRID[0]), ([failed, worse], worse)):
        found, notes = _without_repeats([(r, None) for r in given])
        assert [r for r, _ in found] == [kept]
        assert notes == ["1 cells are in several of these sweeps; the first finished run counts."]


def test_rows_of_equal_names_are_told_apart() -> None:
    again = replace(GRID[0], dataset="d (pixels permuted)", digest="2b")
    named = [r.name for r, _ in _named([(GRID[0], None), (again, None)])]
    assert named == ["fc-p1-s0 on d", "fc-p1-s0 on d (pixels permuted)"]


def test_the_permuted_pictures_are_set_beside_the_given_ones() -> None:
    """Over the sets that both have: p2 alone."""
    permuted = [
        replace(r, name=f"{r.name}-p", dataset="d (pixels permuted)", digest="2b", metrics={"test/loss": 90.0 + r.seed})
        for r in GRID
        if r.params == "p2" and r.seed is not None
    ]
    (said,) = controls_of(contrasts_of(GRID + permuted, LOSS))
    assert said == (
        "Control on d, p2: fc - conv in test loss is +5.00 nats/image on the pictures as they are and +0.00 nats/image "
        "with their pixels in one fixed random order."
    )
    assert controls_of(contrasts_of(GRID, LOSS)) == []


@pytest.mark.parametrize("models", [["linear", "fc"], ["fc"], []])
def test_without_two_architectures_there_is_no_contrast(models: list[str]) -> None:
    rows = [replace(r, model="linear") if r.model == "conv" else r for r in GRID]
    assert contrasts_of([r for r in rows if r.model in models], LOSS) == []
