"""How a training ended: histories with known answers, real ones, and the real command's log, tags, table and report."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from running import BASIC
from vae_sweep.comparison.convergence import BOUNDED, COLLAPSED, CONVERGED, FALLING, FAR, Facts, Limits, caveat, judge
from vae_sweep.comparison.pairing import contrasts_of, controls_of, of_loss
from vae_sweep.comparison.rows import Row
from vae_sweep.metrics import losses
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import run_figures, text
from vae_sweep.report import sweep_figures as report_figures
from vae_sweep.training.stopping import EarlyStopping

DEFAULT = Limits(max_epochs=100, patience=5, min_delta=0.5)
SHAPES = Facts(mean_image=85.93, linear=28.84, linear_active=14, active=2)
# Validation losses of real runs. conv p2 on shapes, which training.patience=20 brings to 28.1:
PLATEAU = [80.85, 64.23, 62.20, 60.46, 58.47, 57.23, 56.68, 56.72, 56.09, 57.03, 56.54, 55.76, 55.84, 56.35]
# fc p1 on 20,000 JPEG CIFAR-10 pictures, its last 12 epochs; the linear VAE has 76.5, the mean image 188:
CIFAR = [88.43, 88.20, 88.55, 87.18, 87.14, 86.29, 86.10, 85.08, 84.91, 85.17, 85.71, 84.84, 84.87]
# fc_res with params=fast on 5,000 of them: validation, training.
FAST = [116.26, 489.94, 12140.82, 1235.22, 1045.32, 1022.65, 1015.62, 1014.65]
FAST_TRAIN = [151.69, 119.69, 74485.70, 20575.02, 1093.05, 1027.85, 1013.96, 1010.19]
RECOVERED = [125.14, 162.70, 352.86, 128.73, 104.93, 99.44, 96.95, 96.42]  # the same of another seed


UNKNOWN = Facts()


def ended(val: list[float], limits: Limits = DEFAULT, facts: Facts = UNKNOWN, train: list[float] | None = None) -> str:
    return judge(val, [loss - 1 for loss in val] if train is None else train, limits, facts).state


# The rules, on histories with a known answer.


@pytest.mark.parametrize("seed", range(30))
def test_max_epochs_is_what_early_stopping_did_not_do(seed: int) -> None:
    """Noise around a falling curve: max_epochs before the epoch in which EarlyStopping itself ends it, or there."""
    random = np.random.default_rng(seed)
    scale, warmup = random.choice([1.0, 20.0]), random.choice([0.0, 40.5])
    stopping, val = EarlyStopping(3, 2.0 * scale, warmup), []
    while not stopping.should_stop(len(val)):
        val.append(scale * (60 + 30 * math.exp(-len(val) / random.uniform(1, 20)) + random.normal(0, 1)))
        stopping.update(len(val), val[-1])
    for n in range(1, len(val) + 1):
        limits = Limits(n, patience=3, min_delta=2.0, scale=scale, warmup=warmup)
        assert limits.bounded(val[:n]) == (n < len(val))
        assert not replace(limits, max_epochs=n + 1).bounded(val[:n])


def test_a_curve_that_has_levelled_off_converged() -> None:
    val = [30 + 60 * math.exp(-epoch) for epoch in range(15)]
    assert ended(val, facts=Facts(90.0, 29.0, 10, 12)) == CONVERGED
    assert (
        judge(val, val, DEFAULT, UNKNOWN).sentence == "converged: early stopping ended it after epoch 15, best epoch 15"
    )


def test_training_that_its_bound_ended_says_which_key_to_raise() -> None:
    found = judge([90.0, 70.0], [99.0, 80.0], replace(DEFAULT, max_epochs=2), UNKNOWN)
    assert found.state == BOUNDED
    assert found.sentence.endswith("training.max_epochs=2 ended it, not early stopping; raise training.max_epochs")


@pytest.mark.parametrize(
    ("val", "limits", "rate"),
    [
        ([100 - 3.0 * epoch for epoch in range(6)], Limits(100, 5, 20.0), "3"),  # a coarse min_delta
        ([100.0, 90.0, 82.0, 83.0], Limits(100, 1, 0.5), "5.9"),  # too little patience for one bad epoch: by hand
        ([100.0, 85.0], Limits(100, 1, 20.0), "15"),
        ([100 - 3.0 * epoch + epoch % 2 for epoch in range(12)], Limits(100, 11, 100.0), "2.98"),  # noise on top
    ],
)
def test_early_stopping_that_came_too_soon(val: list[float], limits: Limits, rate: str) -> None:
    found = judge(val, val, limits, UNKNOWN)
    assert found.state == FALLING
    assert f"still fell by {rate} per epoch" in found.sentence
    assert "raise training.patience or lower training.min_delta" in found.sentence


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_trend(seed: int) -> None:
    """A level with noise of 2 %, as early stopping of the default settings ends it."""
    val = [60.0, 40.0, *(30 + np.random.default_rng(seed).normal(0, 0.6, 60)).tolist()]
    stopping = EarlyStopping(5, 0.5)
    n = next(e for e, loss in enumerate(val, 1) if (stopping.update(e, loss), stopping.should_stop(e))[1])
    assert ended(val[:n]) == CONVERGED


def test_a_fall_that_early_stopping_is_told_to_miss_is_none() -> None:
    """0.09 nats an epoch are less than min_delta in five epochs, as its user declared; and in their unit for a mean."""
    val = [60.0, *(40 - 0.09 * epoch for epoch in range(6))]
    assert ended(val) == CONVERGED
    assert ended([loss / 3072 for loss in val], replace(DEFAULT, scale=1 / 3072)) == CONVERGED
    coarse = [60.0, *(40 - 0.3 * epoch for epoch in range(6))]
    assert ended(coarse, replace(DEFAULT, min_delta=9)) == FALLING
    assert ended([loss / 3072 for loss in coarse], Limits(100, 5, 9.0, scale=1 / 3072)) == FALLING


def test_a_log_density_has_no_zero_of_its_own() -> None:
    """The same curve, moved and stretched as a loss with its constant is: 3,600 nats from mean image to closed form."""
    facts, val = Facts(188.0, 76.0, 36, 30), [110.0, 85.0, 78.0, 76.5, 76.4, 76.4, 76.4, 76.4]
    moved = Facts(70.0, -3530.0, 36, 30, density=True)
    noisy = [-3530 + 3600 * (loss - 76) / 112 + (-1) ** i for i, loss in enumerate(val)]
    limits = replace(DEFAULT, scale=100.0)
    assert ended(val, facts=facts) == ended(noisy, limits, moved) == CONVERGED
    lost = [*val, *[95.0] * 4]
    far = [-3530 + 3600 * (loss - 76) / 112 for loss in lost]
    assert ended(lost, facts=facts).startswith("diverged")
    assert ended(far, limits, moved).startswith("diverged")
    # much better than the closed form, or than one that uses no latent or knows only its training images
    for linear in (60.0, 1e6):
        assert not ended([-10.0 * 2**i for i in range(8)], limits, Facts(70.0, linear, 1, 30, density=True)).startswith(
            "diverged"
        )


def test_no_active_latent_is_collapse() -> None:
    val = [120.0, 91.0, 90.1, 90.0, 90.0, 90.0, 90.0, 90.0]
    found = judge(val, val, DEFAULT, Facts(90.0, 90.0, 0, 0))
    assert found.state == COLLAPSED
    assert ended([0.1, 0.1], facts=Facts(1e-9, 1e-9, 0, 0, alike=True)) == "nothing to learn"
    assert (
        "as the closed-form linear VAE predicts; give a smaller objective.beta or objective.variance" in found.sentence
    )
    assert ended(val, facts=Facts(90.0, 30.0, 14, 0)) == COLLAPSED
    assert ended(val[:2], replace(DEFAULT, max_epochs=2), Facts(90.0, 90.0, 0, 0)) == COLLAPSED  # will never be another
    assert ended(val[:2], replace(DEFAULT, max_epochs=2), Facts(90.0, 30.0, 14, 0)) == BOUNDED  # not trained yet


def test_a_divergence_is_told_from_overfitting_by_the_training_loss() -> None:
    val = [120.0, 90.0, 80.0, 92.0, 95.0, 99.0, 103.0, 104.0]
    assert ended(val, train=[150.0, 100.0, 85.0, 120.0, 110.0, 105.0, 104.0, 103.0]) == "diverged after epoch 3"
    assert ended(val, train=[150.0, 100.0, 85.0, 70.0, 60.0, 50.0, 40.0, 30.0]) == CONVERGED


def test_a_schedule_that_ended_as_it_was_meant_to_converged() -> None:
    cycle = Limits(100, 5, 0.5, cycle=8)
    val = [90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 35.0, 32.0]
    assert ended(val, cycle, Facts(90.0, 30.0, 14, 12)) == CONVERGED
    assert judge(val, val, cycle, UNKNOWN).sentence == "converged: completed its schedule of 8 epochs, best epoch 8"
    assert ended(val[:2], replace(cycle, max_epochs=2)) == BOUNDED
    cut = judge(val[:2], val[:2], replace(cycle, max_epochs=2), UNKNOWN).sentence
    assert "training.max_epochs=2 shortened the one-cycle schedule of 8 epochs; raise training.max_epochs" in cut


# Real runs.


def test_a_plateau_far_above_the_closed_form_is_no_convergence() -> None:
    found = judge(PLATEAU, PLATEAU, DEFAULT, SHAPES)
    assert found.state == FAR
    assert found.sentence.endswith("is 55.76, the closed-form linear VAE's 28.84; raise training.patience")


def test_a_model_that_is_a_little_worse_than_the_closed_form_converged() -> None:
    assert ended(CIFAR, facts=Facts(188.0, 76.5, 36, 30)) == CONVERGED


def test_a_learning_rate_of_another_model_diverges() -> None:
    cycle = Limits(100, 5, 0.5, cycle=8)
    found = judge(FAST, FAST_TRAIN, cycle, Facts(188.0, 76.5, 36, 20))
    assert found.sentence == (
        "diverged after epoch 1: the validation loss rose from 116.3 to 1.214e+04 in epoch 3 and ended at 1015, best "
        "epoch 1 of 8; lower the peak learning rate, params.lr"
    )
    assert judge(FAST, FAST_TRAIN, cycle, UNKNOWN).state == "diverged after epoch 1"
    assert judge(RECOVERED, RECOVERED, cycle, Facts(188.0, 76.5, 36, 20)).state == "diverged after epoch 1"


# What is said of many runs.


def row(model: str, seed: int, state: str | None, **more: object) -> Row:
    known = Row(
        f"{model}{seed}", f"{model}-p1-s{seed}", "FINISHED", dataset="shapes", model=model, params="p1", seed=seed,
        beta=1.0, reduction="sum", training_state=state, metrics={"test/loss": 80.0 + seed + 5 * (model == "fc")},
    )  # fmt: skip
    return replace(known, **more)  # type: ignore[arg-type]


LOSS = Metric("test/loss", "test loss", "nats/image", "lower", 2, 0.5, primary=True)
CUT = [row(model, seed, BOUNDED) for model in ("fc", "conv") for seed in range(3)]


def test_a_verdict_says_first_what_it_rests_on() -> None:
    (found,) = contrasts_of(CUT, [LOSS])
    assert found.sentence.startswith("Not converged: 6 of 6 runs (6 reached max_epochs). On shapes, ")
    mixed = [replace(CUT[0], training_state="diverged after epoch 2"), row("fc", 1, CONVERGED), *CUT[2:]]
    (found,) = contrasts_of(mixed, [LOSS])
    assert found.sentence.startswith("Not converged: 5 of 6 runs (4 reached max_epochs, 1 diverged). On shapes, ")


def test_a_run_in_no_pair_and_a_state_that_is_not_known_say_nothing() -> None:
    good = [replace(r, training_state=CONVERGED) for r in CUT]
    alone = row("fc", 9, COLLAPSED)
    (found,) = contrasts_of([*good, alone], [LOSS])
    assert found.sentence.startswith("On shapes, ")
    (found,) = contrasts_of([replace(r, training_state=None) for r in CUT], [LOSS])
    assert found.sentence.startswith("On shapes, ")
    assert caveat([None, CONVERGED]) == caveat([]) == ""
    assert caveat(["of a later version"], remedies=True).startswith("Not converged: 1 of 1 runs (1 of a later version")


def test_a_control_says_first_what_it_rests_on() -> None:
    permuted = [replace(r, dataset="shapes (pixels permuted)", training_state=CONVERGED) for r in CUT]
    (said,) = controls_of(contrasts_of([*CUT, *permuted], [LOSS]))
    assert said.startswith("Not converged: 6 of 12 runs (6 reached max_epochs). Control on shapes")


def test_the_table_has_a_column_where_a_run_did_not_converge() -> None:
    good = [replace(r, training_state=CONVERGED) for r in CUT]
    assert "Training" not in text.markdown(good)
    mixed = [replace(CUT[0], training_state="diverged after epoch 2"), *good[1:]]
    assert "| Training |" in text.markdown(mixed)
    assert "| diverged after epoch 2 |" in text.markdown(mixed)
    assert "Not converged: 1 of 6 runs (1 diverged: lower the peak learning rate, params.lr)." in text.markdown(mixed)
    assert "\nfc-p1-s0: diverged after epoch 2.\n" in text.text(mixed)


# Losses in words.


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((93.15, 90.85, 4.60, 0.5, "sum"), "93.15 = 90.85 + 0.5 * 4.60 nats/image"),
        ((76.127, 52.85, 23.277, 1.0, "sum"), "76.13 = 52.85 + 23.28 nats/image"),
        ((95.52, 90.85, 0.0467, 100.0, "sum"), "95.52 = 90.85 + 100 * 0.0467 nats/image"),
        ((0.0712, 0.065, 0.0062, 1.0, "mean"), "0.0712 = 0.0650 + 0.0062"),
    ],
)
def test_a_loss_is_written_as_its_terms_add_up(values: tuple[float, float, float, float, str], said: str) -> None:
    assert losses.equation(*values) == said
    equation = said.removesuffix(" nats/image")
    left, right = equation.split(" = ")
    product = [math.prod(map(float, term.split(" * "))) for term in right.split(" + ")]
    assert sum(product) == pytest.approx(float(left), abs=0.0101)


def test_an_averaged_error_has_no_unit_in_any_figure() -> None:
    """KL keeps its nats."""
    history = [
        {"epoch": e, "images_seen": 9 * e, **{f"val/{t}": 1 / e for t in ("loss", "recon", "kl")}} for e in (1, 2)
    ]
    x = np.array([1.0, 2.0])
    curve = {"fc-p1": (x, 1 / x)}
    drawn = [
        run_figures.learning_curves(history, "run", unit=""),
        report_figures.validation_bands(curve, {"fc-p1": ("fc", "p1")}, unit=""),
        report_figures.rate_distortion({("fc", "p1"): [(0.01, 0.06)]}, loss=(1.0, "")),
    ]
    labels = [text for figure in drawn for axis in figure.axes for text in (axis.get_xlabel(), axis.get_ylabel())]
    assert [text for text in labels if "nats" in text] == ["nats/image", "kl (nats/image)"]  # panel and axis of the KL
    assert any(label.startswith("validation loss\n(lower") for label in labels)


def test_a_metric_of_two_kinds_of_loss_names_both() -> None:
    mixed = [CUT[0], replace(CUT[1], reduction="mean")]
    assert of_loss(LOSS, mixed).unit == "nats/image, or averaged error"
    assert of_loss(LOSS, CUT).unit == "nats/image"
    assert of_loss(LOSS, mixed[1:]).unit == "averaged error, not nats"
    averaged = [replace(r, reduction="mean", training_state=None) for r in CUT]
    assert "nats" not in text.remarks(averaged)
    assert "nats" not in text.caption(averaged).replace("not nats", "")


# The real command.

QUICK = ("metrics.iwae_samples=0", "metrics.features=none", "metrics.gmm_components=0", "metrics.ssim_images=0", BASIC)


def tags(root: Path, key: str) -> dict[str, str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        query = "SELECT name, value FROM runs JOIN tags USING (run_uuid) WHERE key = ?"
        return dict(connection.execute(query, (key,)).fetchall())


def sentences(root: Path) -> list[str]:
    (path,) = root.glob("mlruns/**/statistics.json")
    return [c["sentence"] for c in json.loads(path.read_text())["contrasts"] if c["metric"]["primary"]]


def test_a_verdict_on_unfinished_training_says_so_everywhere(swept: tuple[Path, str]) -> None:
    root, output = swept
    assert set(tags(root, "vae_sweep.training_state").values()) == {BOUNDED}
    assert all("raise training.max_epochs" in why for why in tags(root, "vae_sweep.training_state.why").values())
    assert output.count("reached max_epochs: training.max_epochs=2 ended it, not early stopping; raise training") == 4
    caution = "Not converged: 4 of 4 runs (4 reached max_epochs)."
    assert [s.startswith(f"{caution} On shapes, ") for s in sentences(root)] == [True]
    assert f"\n{caution} On shapes, conv against fc is inconclusive in test loss: fc - conv = " in output
    for name in ("report.html", "comparison.md", "comparison.csv", "comparison.json"):
        (path,) = root.glob(f"mlruns/**/{name}")
        assert "reached max_epochs" in path.read_text(encoding="utf-8")
    page = next(iter(root.glob("mlruns/**/report.html"))).read_text(encoding="utf-8")
    assert page.index(caution[:-2]) < page.index("conv against fc: ")
    assert "reached max" in next(iter(root.glob("mlruns/**/comparison.tex"))).read_text()


def test_no_line_of_the_log_is_a_false_equation(swept: tuple[Path, str]) -> None:
    """Nor a cell of the table: at beta 0.5 half of the KL counts."""
    root, output = swept
    (path,) = root.glob("mlruns/**/comparison.md")
    found = []
    for shown in (output, path.read_text()):
        found += re.findall(r"(\d+\.\d+) (?:=|\() ?(\d+\.\d+) \+ (?:([0-9.]+) \* )?(\d+\.\d+)", shown)
    assert len(found) >= 4 * 2 * 2 + 4 + 4 + 4 * 2  # epochs, linear, finished, cells
    for loss, recon, beta, kl in found:
        assert float(recon) + float(beta or 1) * float(kl) == pytest.approx(float(loss), abs=0.0101)


def test_an_averaged_error_is_in_no_nats_and_collapses(collapsed: tuple[Path, str]) -> None:
    root, output = collapsed
    assert set(tags(root, "vae_sweep.training_state").values()) == {COLLAPSED}
    said = [line for line in output.splitlines() if "nats" in line]
    assert [line for line in said if "not nats" not in line] == []
    assert "Not converged: 2 of 2 runs (2 collapsed). On shapes, conv against fc is inconclusive in test" in output


@pytest.mark.slow
def test_a_run_that_diverged_says_so_in_table_and_report(command, project: Path) -> None:
    done = command(
        *(
            "-m",
            "model=fc_res,fc",
            "params=fast",
            "experiment=smoke",
            "training.max_epochs=8",
            "params.batch_size=16",
        ),
        *("params.lr=0.02", *QUICK),
        cwd=project,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state = tags(project, "vae_sweep.training_state")["fc_res-fast"]
    assert state.startswith("diverged after epoch ")
    assert f"fc_res-fast: {state}." in done.stdout
    for name in ("report.html", "comparison.md"):
        (path,) = project.glob(f"mlruns/**/{name}")
        text = path.read_text(encoding="utf-8")
        assert state in text
        assert "lower the peak learning rate, params.lr" in text
