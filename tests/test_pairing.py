"""Rows of several sweeps: what is paired with what, and what is never paired."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from vae_sweep.comparison.identity import SPLITS
from vae_sweep.comparison.pairing import (
    compared,
    contrasts_of,
    controls_of,
    groups_of,
    with_comparable_splits,
    with_unique_labels,
    without_repeats,
)
from vae_sweep.comparison.rows import LinearRow, Row
from vae_sweep.comparison.sentences import no_contrast
from vae_sweep.metrics import catalogue

LOSS = [metric for metric, _ in catalogue.described(["test/loss"])]
LINEAR = LinearRow("d", 128, 1.0, "sum", 36, *[76.0] * 9)


# As conf/model/*.yaml say.
BASELINES = {"conv": "conv", "fc": "conv", "conv_res": "conv", "fc_skip": "fc", "fc_res": "fc", "linear": "closed_form"}


def row(model: str, params: str, seed: int, loss: float, **other: object) -> Row:
    made = Row(
        run_id=f"{model}{params}{seed}", name=f"{model}-{params}-s{seed}", status="FINISHED", dataset="d", digest="1a",
        model=model, params=params, seed=seed, batch_size=64, lr=1e-3, latent_dim=128, beta=1.0, reduction="sum",
        reference=LINEAR, metrics={"test/loss": loss}, baseline=BASELINES.get(model, ""),
    )  # fmt: skip
    known = replace(made, key=f"{model}{params}{seed}", **other)  # type: ignore[arg-type]
    settings = {"model.name": known.model, "seed": seed, "params.name": params, "params.lr": known.lr, "digest": "1a"}
    return replace(known, configuration={key: str(value) for key, value in settings.items()})


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
    named = with_unique_labels(mixed)
    assert {r.dataset for r in named} == {"d [1a]", "d [2b]"}
    assert contrasts_of(named, LOSS) == []


def test_runs_that_did_not_record_their_splits_are_paired_with_those_of_the_same_images() -> None:
    def told(splits: dict[str, str]) -> list[Row]:
        known = [replace(r, configuration=r.configuration | {SPLITS: splits.get(r.model, "a1")}) for r in GRID]
        return [r if r.model in splits else g for r, g in zip(known, GRID, strict=True)]

    for splits, n in (({"fc": "a1"}, 6), ({"fc": "a1", "conv": "a1"}, 6), ({"fc": "a1", "conv": "b2"}, 0)):
        found = contrasts_of(with_unique_labels(with_comparable_splits(told(splits))), LOSS)
        assert sum(contrast.n for contrast in found) == n


def test_where_nothing_is_compared_the_reason_is_said() -> None:
    conv, linear, other = row("conv", "p1", 0, 80.0), row("linear", "p1", 0, 76.0), row("fc", "p2", 0, 85.0)
    said = {
        "No run has finished yet: there is nothing to compare.": [replace(conv, status="FAILED")],
        "Only linear has finished runs: a comparison needs two models.": [linear],
        "A comparison needs two models beside linear, whose baseline is the closed form.": [conv, linear],
        "No two models have finished runs with the same data, set and seed: there is nothing to compare.": [
            conv,
            other,
        ],
    }
    for sentence, rows in said.items():
        assert contrasts_of(rows, LOSS) == []
        assert no_contrast(rows) == sentence


def test_different_losses_are_not_averaged() -> None:
    """beta 1 and 4 stand apart; an averaged error has no margin in nats."""
    strong = [
        replace(r, name=f"{r.name}-b4", beta=4.0, metrics={"test/loss": 100.0}, variant="beta=4",
                configuration={**r.configuration, "objective.beta": "4.0"})
        for r in GRID
    ]  # fmt: skip
    named = with_unique_labels(GRID + strong)
    found = contrasts_of(named, LOSS)
    assert [(c.dataset, c.mean, c.n) for c in found] == [("d, beta 1, sum", 5.0, 6), ("d, beta 4, sum", 0.0, 6)]
    averaged = [replace(r, reduction="mean", metrics={"test/loss": 0.06}) for r in GRID]
    (one,) = contrasts_of(averaged, LOSS)
    assert (one.margin, one.verdict) == (0.0, "inconclusive")


def test_equal_labels_of_different_hyperparameters_are_not_paired() -> None:
    """What sets them apart stands in their names, whatever key it is."""
    longer = {"training.max_epochs": "9"}
    other = [
        replace(r, configuration={**r.configuration, **longer}) if r.model == "conv" and r.params == "p1" else r
        for r in GRID
    ]
    named = with_unique_labels(other)
    (found,) = contrasts_of(named, LOSS)
    assert [s.params for s in found.sets] == ["p2"]
    assert {g.params for g in groups_of(named, LOSS[0])} == {"p2", "p1", "p1 [max_epochs=9]"}


def test_hyperparameters_of_two_names_are_one_set() -> None:
    """beta=1 swept, and beta = 1 by default: the same numbers twice are no second sample."""
    swept = [replace(r, variant="beta=1", name=f"{r.name}-beta=1") for r in GRID]
    found, notes = without_repeats([*swept, *GRID])
    assert len(found) == len(GRID)
    assert notes == ["12 cells are in several of these sweeps; the first finished run counts."]
    fc, conv = ([r for r in part if r.model == model] for part, model in ((swept, "fc"), (GRID, "conv")))
    (contrast,) = contrasts_of(with_unique_labels([*fc, *conv]), LOSS)
    assert (contrast.n, [s.params for s in contrast.sets]) == (6, ["p1", "p2"])


def test_of_a_repeated_cell_the_first_finished_run_counts() -> None:
    """Never the better one."""
    worse = replace(GRID[0], metrics={"test/loss": 99.0})
    failed = replace(GRID[0], status="FAILED")
    for given, kept in (([worse, GRID[0]], worse), ([GRID[0], worse], GRID[0]), ([failed, worse], worse)):
        found, notes = without_repeats(given)
        assert found == [kept]
        assert notes == ["1 cells are in several of these sweeps; the first finished run counts."]


def test_a_cell_that_another_sweep_has_finished_is_not_waited_for() -> None:
    pending = replace(GRID[0], status="PENDING", configuration={}, metrics={}, digest=None)
    assert without_repeats([pending, GRID[0]])[0] == [GRID[0]]
    assert without_repeats([pending, GRID[1]])[0] == [pending, GRID[1]]


def test_another_architecture_of_the_same_name_is_no_repeat() -> None:
    wider = replace(GRID[0], configuration={**GRID[0].configuration, "model.hidden_dims": "[1024]"})
    assert len(without_repeats([GRID[0], wider])[0]) == 2


def test_several_architectures_of_one_name_are_several_models() -> None:
    """As of ``model.hidden_dims=[512,256],[1024]``: none overwrites another, and each is paired by itself."""
    narrow, wide = (
        [
            replace(r, variant=f"hidden_dims={typed}", metrics={"test/loss": r.metrics["test/loss"] - less},
                    configuration={**r.configuration, "model.hidden_dims": widths})
            for r in GRID if r.model == "fc"
        ]
        for widths, typed, less in (("[512, 256]", "[512,256]", 0.0), ("[1024]", "[1024]", 2.0))
    )  # fmt: skip
    named = with_unique_labels([*narrow, *wide, *(r for r in GRID if r.model == "conv")])
    found = contrasts_of(named, LOSS)
    assert [(c.a, c.b, c.n, c.mean) for c in found] == [
        ("fc [hidden_dims=[512, 256]]", "conv", 6, 5.0),
        ("fc [hidden_dims=[1024]]", "conv", 6, 3.0),
        ("fc [hidden_dims=[512, 256]]", "fc [hidden_dims=[1024]]", 6, 2.0),
    ]
    assert {group.params for group in groups_of(named, LOSS[0])} == {"p1", "p2"}
    both = [replace(r, configuration={**r.configuration, "model.channels": c}) for r in GRID[6:] for c in ("8", "16")]
    assert {r.baseline for r in with_unique_labels(both)} == {"conv [channels=8]", "conv [channels=16]"}


def test_a_model_of_ones_own_is_paired_whatever_its_code() -> None:
    own = [
        replace(r, model="mine", baseline="", configuration={**r.configuration, "my_vae.py": "1f"}) for r in GRID[:6]
    ]
    (found,) = contrasts_of(with_unique_labels([*own, *GRID[6:]]), LOSS)
    assert (found.a, found.b, found.n) == ("mine", "conv", 6)


@pytest.mark.parametrize(
    ("models", "pairs"),
    [
        (["fc", "conv"], ["fc - conv"]),
        (["mine", "conv"], ["mine - conv"]),  # names no baseline
        (["conv", "fc_skip"], ["fc_skip - conv"]),  # its own baseline is missing
        (
            ["fc", "conv", "linear", "fc_skip", "fc_res"],
            ["fc - conv", "fc_skip - conv", "fc_res - conv", "fc - fc_skip", "fc - fc_res"],
        ),
        (["fc", "fc_skip", "fc_res"], ["fc_skip - fc", "fc_res - fc"]),  # without conv the first
        (["fc_skip", "fc"], ["fc - fc_skip"]),  # once
        (["conv", "conv_res", "fc_res"], ["conv_res - conv", "fc_res - conv"]),
        (["mine", "yours"], ["yours - mine"]),
        (["linear"], []),
        ([], []),
    ],
)
def test_every_model_is_compared_with_the_common_baseline_and_with_its_own(models: list[str], pairs: list[str]) -> None:
    """First; after these come all other pairs, each once, but for models that are compared with no other one."""
    found = compared(row(model, "p1", 0, 80.0) for model in models)
    assert [f"{a} - {b}" for (a, b), planned in found.items() if planned] == pairs
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sorted(map(sorted, found)) == sorted(map(sorted, combinations([m for m in models if m != "linear"], 2)))


def test_an_own_model_can_be_the_baseline() -> None:
    """Of others by its name, and of all by its own."""
    base, other = row("base", "p1", 0, 80.0), replace(row("other", "p1", 0, 80.0), baseline="base")
    assert list(compared([GRID[9], base, other])) == [("base", "conv"), ("other", "conv"), ("base", "other")]
    found = compared([replace(base, baseline="base"), other, GRID[0]])
    assert found == {("other", "base"): True, ("fc", "base"): True, ("other", "fc"): False}


def test_a_baseline_is_every_architecture_of_its_name() -> None:
    found = compared(
        replace(row(model, "p1", 0, 80.0), baseline=baseline)
        for model, baseline in (("conv", "conv"), ("fc [width=1]", "conv"), ("fc [width=2]", "conv"), ("fc_skip", "fc"))
    )
    assert found["fc [width=1]", "fc_skip"]
    assert found["fc [width=2]", "fc_skip"]
    assert not found["fc [width=1]", "fc [width=2]"]


def test_other_pairs_have_the_primary_metrics_alone() -> None:
    several = [metric for metric, _ in catalogue.described(["test/loss", "test/kl"])]
    rows = [replace(r, metrics={**r.metrics, "test/kl": 20.0}) for r in GRID]
    rows += [replace(r, model="fc_skip", baseline="") for r in rows if r.model == "fc"]
    found = {(c.a, c.b, c.metric.key) for c in contrasts_of(rows, several)}
    assert {pair for pair in found if pair[2] == "test/kl"} == {
        ("fc", "conv", "test/kl"),
        ("fc_skip", "conv", "test/kl"),
    }
    assert ("fc", "fc_skip", "test/loss") in found


def test_variants_of_fc_are_compared_with_it_too() -> None:
    skip = [
        replace(r, model="fc_skip", baseline="fc", name=r.name.replace("fc", "fc_skip"))
        for r in GRID
        if r.model == "fc"
    ]
    found = contrasts_of([*GRID, *skip], LOSS)
    assert [(c.a, c.b, c.mean) for c in found] == [
        ("fc", "conv", 5.0),
        ("fc_skip", "conv", 5.0),
        ("fc", "fc_skip", 0.0),
    ]


def test_rows_of_equal_names_get_different_ones() -> None:
    again = replace(GRID[0], dataset="d (pixels permuted)", digest="2b")
    named = [r.name for r in with_unique_labels([GRID[0], again])]
    assert named == ["fc-p1-s0 on d", "fc-p1-s0 on d (pixels permuted)"]


def test_the_permuted_images_are_compared_with_the_given_ones() -> None:
    """Over the sets that both have: p2 alone."""
    permuted = [
        replace(r, name=f"{r.name}-p", dataset="d (pixels permuted)", digest="2b", metrics={"test/loss": 90.0 + r.seed})
        for r in GRID
        if r.params == "p2" and r.seed is not None
    ]
    (said,) = controls_of(contrasts_of(GRID + permuted, LOSS))
    assert said == (
        "Control on d (p2; 3 pairs): fc - conv in test loss is +5.00 nats/image on the images as they are and +0.00 "
        "nats/image with their pixels in one fixed random order."
    )
    assert controls_of(contrasts_of(GRID, LOSS)) == []
    elsewhere = [r for r in GRID if r.params == "p1"]  # no set in common
    assert controls_of(contrasts_of(elsewhere + permuted, LOSS)) == []


@pytest.mark.parametrize("models", [["linear", "fc"], ["fc"], []])
def test_without_two_architectures_there_is_no_contrast(models: list[str]) -> None:
    rows = [replace(r, model="linear", baseline="closed_form") if r.model == "conv" else r for r in GRID]
    assert contrasts_of([r for r in rows if r.model in models], LOSS) == []
