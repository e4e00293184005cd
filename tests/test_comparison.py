"""The comparison: hand-computed rows in every state, and that each output says the same."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from vae_sweep.comparison import rows as comparison
from vae_sweep.comparison.rows import ReferenceRow, Row, schedule_label
from vae_sweep.report import summary, text


def reference(latent_dim: int, test_loss: float = 76.0) -> ReferenceRow:
    splits = {f"{s}_{t}": v for s in ("train", "val") for t, v in (("loss", 75.0), ("recon", 52.0), ("kl", 23.0))}
    return ReferenceRow(
        "cifar10", latent_dim, 1.0, "sum", 36, **splits, test_loss=test_loss, test_recon=53.0, test_kl=23.0
    )


def run(model: str, params: str, test_loss: float | None, seed: int = 0, **changes: Any) -> Row:
    latent = {"p1": 128, "p2": 128, "p3": 256}[params]
    row = Row(
        run_id=f"id-{model}-{params}-{seed}",
        name=f"{model}-{params}",
        status="FINISHED",
        dataset="cifar10",
        model=model,
        params=params,
        seed=seed,
        batch_size=64,
        lr=1e-3,
        schedule="constant",
        latent_dim=latent,
        beta=1.0,
        reduction="sum",
        n_parameters=1_234_567,
        epochs=21,
        best_epoch=16,
        train_loss=73.0,
        train_recon=50.0,
        train_kl=23.0,
        val_loss=74.25,
        test_loss=test_loss,
        test_recon=None if test_loss is None else test_loss - 23.5,
        test_kl=None if test_loss is None else 23.5,
        wall_time_s=724.4,
        images_per_s=1400.3,
        reference=reference(latent),
    )
    return replace(row, **changes)


SWEEP = [
    run("fc", "p1", 78.0),
    run("conv", "p1", 74.0),
    run("conv", "p3", 74.5),
    run("fc", "p3", 77.25),
    run("conv", "p2", None, status="FAILED", reason="ValueError: a | b\n  second line " + "x" * 100),
    Row(None, "fc-p2", "PENDING", dataset="cifar10", model="fc", params="p2"),
    run("linear", "p2", None, status="RUNNING", epochs=3, wall_time_s=42.0),
]


def test_records_are_sorted_and_the_equal_references_merged() -> None:
    found = comparison.records(SWEEP)
    assert [r["name"] for r in found] == [
        "conv-p1",
        "fc-p1",
        "conv-p2",
        "fc-p2",
        "linear-p2",
        "conv-p3",
        "fc-p3",
        "linear (closed form)",
    ]
    assert found[0]["distance_to_linear"] == pytest.approx(-2.0)
    assert found[1]["distance_to_linear"] == pytest.approx(2.0)
    assert found[2]["distance_to_linear"] is None
    assert found[-1]["latent_dim"] == "128, 256"
    assert found[-1]["active_latents"] == 36
    assert found[-1]["status"] == "REFERENCE"
    assert comparison.records(SWEEP[::-1]) == found


def test_references_that_differ_stay_apart() -> None:
    rows = [run("fc", "p1", 78.0), run("fc", "p3", 78.0, reference=reference(16, 78.7))]
    assert [(r["latent_dim"], r["test_loss"]) for r in comparison.records(rows)[2:]] == [(16, 78.7), (128, 76.0)]


def test_every_output_has_the_same_columns() -> None:
    found = comparison.records(SWEEP)
    columns = comparison.column_dict(SWEEP)
    assert [list(r) for r in found] == [list(columns)] * len(found)
    assert {len(values) for values in columns.values()} == {8}
    assert all(isinstance(v, str | int | float | None) for values in columns.values() for v in values)
    assert json.loads(comparison.json_text(SWEEP)) == found
    parsed = list(csv.DictReader(io.StringIO(comparison.csv(SWEEP))))
    assert [r["test_loss"] for r in parsed] == ["74.0", "78.0", "", "", "", "74.5", "77.25", "76.0"]


def test_numbers_that_are_not_finite() -> None:
    rows = [run("fc", "p1", float("nan"), train_loss=float("inf"), wall_time_s=float("nan"))]
    assert json.loads(comparison.json_text(rows))[0]["train_loss"] is None
    assert comparison.column_dict(rows)["test_loss"][0] is None
    assert "| inf (50.00 + 23.00) |" in text.markdown(rows)  # divergence is shown, not hidden
    assert "No run has a test loss yet" in summary.summary(rows)
    text.text(rows)


def test_markdown_rows() -> None:
    lines = text.markdown(SWEEP, title="Sweep").splitlines()
    cells = [line for line in lines if line.startswith("|")]
    assert lines[0] == "### Sweep"
    assert cells[0] == (
        "| Set | Model | Batch | LR | Latent | Parameters | Epochs | Best | Train loss (recon + kl) | Val loss | "
        "Test loss (recon + kl) | vs linear | Wall time | Images/s | Status | Run |"
    )
    assert cells[2] == (
        "| p1 | conv | 64 | 0.001 | 128 | 1,234,567 | 21 | 16 | 73.00 (50.00 + 23.00) | 74.25 | "
        "74.00 (50.50 + 23.50) | -2.00 | 12m04s | 1,400 | FINISHED | id-conv- |"
    )
    assert "FAILED: ValueError: a \\| b second line xxx" in cells[4]
    assert cells[4].count("x") <= 80
    assert cells[5] == "| p2 | fc |  |  |  |  |  |  |  |  |  |  |  |  | PENDING |  |"
    assert "| 42s | 1,400 | RUNNING |" in cells[6]
    assert cells[-1] == (
        "|  | *linear (closed form)* |  |  | *128, 256* |  |  |  | *75.00 (52.00 + 23.00)* | *75.00* | "
        "*76.00 (53.00 + 23.00)* |  |  |  |  |  |"
    )
    said = text.caption(SWEEP)
    for word in ("nats/image", "lower is better", "sum, beta 1", "One seed per cell", "cifar10", "Epochs ="):
        assert word in said


def test_a_finished_sweep_has_no_status_column() -> None:
    assert "Status" not in text.markdown(SWEEP[:4])
    assert "Seed" not in text.markdown(SWEEP[:4])
    assert "| Seed |" in text.markdown([run("fc", "p1", 78.0, seed=s) for s in (0, 1)])
    other = run("fc", "p1", 78.0, dataset="celeba", reduction="mean", beta=2.0)
    wide = text.markdown([*SWEEP, other])
    assert "| Data | Set |" in wide
    assert "| Beta | Reduction |" in wide
    assert "Compare losses only within" in wide


def test_a_long_table_is_cut_and_says_so() -> None:
    rows = [replace(SWEEP[4], name=f"fc-p1-s{i}", seed=i) for i in range(20)]
    assert len(text.markdown(rows)) < 8000
    many = [replace(rows[0], seed=i) for i in range(100)]
    short = text.markdown(many, max_chars=8000)
    assert len(short) <= 8000
    shown = sum(line.startswith("| p2") for line in short.splitlines())
    assert f"... and {100 - shown} more rows: see comparison.csv" in short
    assert "linear (closed form)" in short
    assert len(text.markdown(many)) > 8000


def test_text_is_aligned_and_fits_a_terminal() -> None:
    lines = text.text(SWEEP).splitlines()
    assert max(map(len, lines)) <= 160
    head, rule, first = lines[2:5]
    assert len(head) <= len(rule)
    assert first.split()[:6] == ["p1", "conv", "64", "0.001", "128", "1,234,567"]
    assert first.index("74.00 (50.50+23.50)") + 19 == head.index("Test (recon + kl)") + 17
    assert any(line.startswith("conv-p2 FAILED: ValueError: a | b second line") for line in lines)


def test_summary_of_one_seed_and_missing_cells() -> None:
    assert summary.summary(SWEEP) == (
        "Test loss of fc minus conv, nats/image (positive: conv is better): p1 +4.00, p3 +2.75. "
        "One seed per cell: noise between seeds was not measured, so nothing can be said about it. "
        "Against the closed-form linear VAE, in test loss: conv is better in 2 of 2 runs (-2.00 to -1.50); "
        "fc is worse in 2 of 2 runs (+1.25 to +2.00). "
        "Not in this comparison: conv-p2 (FAILED), fc-p2 (PENDING), linear-p2 (RUNNING)."
    )


def test_summary_pairs_seeds() -> None:
    rows = [run("fc", "p1", 78.0 + s, seed=s) for s in range(3)] + [run("conv", "p1", 75.0, seed=s) for s in (0, 1)]
    said = summary.summary(rows)
    assert "p1 +3.50 (mean of 2 seeds, sd 0.71)" in said  # 3 and 4; seed 2 has no partner
    assert "2 to 3 seeds per cell." in said


def test_summary_compares_only_equal_settings() -> None:
    said = summary.summary([run("fc", "p1", 78.0), run("conv", "p1", 74.0, lr=5e-4)])
    assert "fc and conv share no finished cell" in said
    rows = [run(m, "p1", 75.0, lr=lr) for m in ("fc", "conv") for lr in (1e-3, 1e-4)]
    assert "p1 [batch 64, lr 0.0001, constant, latent 128, beta 1.0, sum] +0.00" in summary.summary(rows)


def test_models_that_are_not_fc_and_conv() -> None:
    said = summary.summary([run("linear", "p1", 76.5), run("mine", "p1", 70.0, reference=None)])
    assert "linear is worse in 1 of 1 runs (+0.50)" in said
    assert "minus" not in said


def test_nothing_at_all() -> None:
    assert comparison.records([]) == []
    assert json.loads(comparison.json_text([])) == []
    assert "nothing can be compared" in summary.summary([])
    text.markdown([], max_chars=10)
    text.text([])


def test_a_schedule_is_a_column_where_there_is_one() -> None:
    plain = [run(m, "p1", 75.0) for m in ("fc", "conv")]
    assert "Schedule" not in text.markdown(plain)
    mixed = [*plain, *(replace(row, schedule="one_cycle over 8 epochs") for row in plain)]
    assert "| one_cycle over 8 epochs |" in text.markdown(mixed)
    assert "p1 [batch 64, lr 0.001, one_cycle over 8 epochs, latent 128" in summary.summary(mixed)


@pytest.mark.parametrize(
    ("schedule", "epochs", "mirror", "label"),
    [
        ("constant", None, False, "constant"),
        ("constant", None, True, "constant, mirrored"),
        ("one_cycle", 8, False, "one_cycle over 8 epochs"),
        ("one_cycle", "40", True, "one_cycle over 40 epochs, mirrored"),
    ],
)
def test_a_label_tells_all_of_a_schedule(schedule: str, epochs: int | str | None, mirror: bool, label: str) -> None:
    assert schedule_label(schedule, epochs, mirror) == label


def test_runs_that_differ_in_a_setting_without_a_column_are_no_pair() -> None:
    """Of two lengths of training, say: neither their difference nor two seeds."""
    short, long = ({"configuration": {"training.max_epochs": epochs}} for epochs in ("5", "9"))
    same = [run("fc", "p1", 80.0, **short), run("conv", "p1", 70.0, **short)]
    other = [run("fc", "p1", 80.0, **short), run("conv", "p1", 70.0, **long)]
    assert "+10.00" in summary.summary(same)
    assert "share no finished cell" in summary.summary(other)
    assert "One seed per cell" in summary.summary([*same, run("conv", "p1", 71.0, seed=1, **long)])
