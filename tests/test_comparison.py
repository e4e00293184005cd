"""The comparison: hand-computed rows in every state, and that each output says the same."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from vae_sweep.comparison.pairing import contrasts_of, with_unique_labels
from vae_sweep.comparison.rows import LinearRow, Row, finite, frame, schedule_label, to_csv, to_json
from vae_sweep.metrics import catalogue
from vae_sweep.report import text


def reference(latent_dim: int, test_loss: float = 76.0) -> LinearRow:
    splits = {f"{s}_{t}": v for s in ("train", "val") for t, v in (("loss", 75.0), ("recon", 52.0), ("kl", 23.0))}
    return LinearRow(
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


def records(rows: list[Row]) -> list[dict[str, Any]]:
    return frame(rows).to_dict("records")


def test_the_table_is_sorted_and_the_equal_closed_forms_are_one_row() -> None:
    found = records(SWEEP)
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
    assert records(SWEEP[::-1]) == found


def test_seeds_are_sorted_as_numbers_and_datasets_keep_their_closed_forms() -> None:
    rows = [run("fc", "p1", 78.0, seed=s, dataset=d) for d in ("b", "a") for s in (10, 9)]
    rows = [replace(r, reference=replace(reference(128), dataset=r.dataset)) for r in rows]
    found = [(r["dataset"], r["seed"]) for r in records(rows)]
    assert found == [(d, s) for d in ("a", "b") for s in (9, 10, None)]


def test_closed_forms_that_differ_stay_apart() -> None:
    rows = [run("fc", "p1", 78.0), run("fc", "p3", 78.0, reference=reference(16, 78.7))]
    assert [(r["latent_dim"], r["test_loss"]) for r in records(rows)[2:]] == [(16, 78.7), (128, 76.0)]


def test_closed_forms_of_several_sizes_show_the_metrics_that_they_share() -> None:
    """Up to 0.1 %, since each is measured with noise of its own."""
    rows = [
        run("fc", p, 78.0, reference=replace(reference(size), metrics={"test/psnr": psnr, "test/ssim": size / 512}))
        for p, size, psnr in (("p1", 128, 18.5), ("p3", 256, 18.502))
    ]
    assert (records(rows)[-1]["test/psnr"], records(rows)[-1]["test/ssim"]) == (18.5, None)


def test_csv_and_json_keep_every_number() -> None:
    """Bit-identical floats, whole numbers as such, empty where a value is unknown."""
    third, tiny = 1 / 3, 5e-324
    rows = [*SWEEP, run("fc", "p2", 0.1 + 0.2, train_loss=tiny, metrics={"test/psnr": third})]
    table = frame(rows)
    found = json.loads(to_json(table))
    assert found == table.to_dict("records")
    assert [list(r) for r in found] == [list(table)] * 9
    read = list(csv.DictReader(io.StringIO(to_csv(table))))
    for name in ("test_loss", "train_loss", "test/psnr", "epochs"):
        assert [float(r[name]) if r[name] else None for r in read] == [r[name] for r in found]
    lines = to_csv(table).splitlines()
    assert lines[0].split(",")[-1] == "test/psnr"  # held-out metrics stand last
    assert lines[1].startswith(
        "id-conv-p1-0,conv-p1,FINISHED,,,cifar10,conv,p1,,0,64,0.001,constant,128,1.0,sum,,,1234567,21,"
    )
    assert {type(r["epochs"]) for r in found} == {int, type(None)}


def test_numbers_that_are_not_finite() -> None:
    rows = [run("fc", "p1", float("nan"), train_loss=float("inf"), wall_time_s=float("nan"))]
    table = frame(rows)
    assert json.loads(to_json(table))[0]["train_loss"] is None
    assert finite(table)["test_loss"][0] is None
    assert "inf" not in to_csv(table)
    assert "| inf (50.00 + 23.00) |" in text.markdown(rows)  # divergence is shown, not hidden
    assert text.remarks(rows) == "Not in this comparison: fc-p1 (FINISHED)."
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


def test_a_table_of_many_closed_forms_keeps_runs() -> None:
    """Each loss has a closed form of its own, as where beta is swept."""
    one = SWEEP[0]
    assert one.reference is not None
    many = [replace(one, beta=b, reference=replace(one.reference, beta=b, test_loss=75 + b)) for b in range(1, 101)]
    short = text.markdown(many, max_chars=8000)
    assert len(short) <= 8000
    kinds = [line.startswith("| *") or "*linear" in line for line in short.splitlines() if line.startswith("| ")][1:]
    assert kinds.count(False) > 5
    assert kinds.count(True) > 5
    whole = text.markdown(many).count("\n| ") - 1
    assert f"... and {whole - len(kinds)} more rows: see comparison.csv" in short
    assert short == short.rstrip() + "\n"
    assert text.caption(many) in short


def test_text_is_aligned_and_fits_a_terminal() -> None:
    lines = text.text(SWEEP).splitlines()
    assert max(map(len, lines)) <= 160
    head, rule, first = lines[2:5]
    assert len(head) <= len(rule)
    assert first.split()[:6] == ["p1", "conv", "64", "0.001", "128", "1,234,567"]
    assert first.index("74.00 (50.50+23.50)") + 19 == head.index("Test (recon + kl)") + 17
    assert any(line.startswith("conv-p2 FAILED: ValueError: a | b second line") for line in lines)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_a_table_is_as_wide_as_the_terminal(width: int) -> None:
    """Identity and results stay longest; what is left out is named; paragraphs are wrapped."""
    long = run("a_model_with_a_name_of_some_length", "p3", 70.25, run_id="f" * 32)
    lines = text.text([*SWEEP, long], width=width).splitlines()
    assert max(map(len, lines)) <= width
    head = lines[2].split()
    assert [name for name in ("Set", "Model", "vs", "Epochs", "Wall", "Run") if name not in head] == []
    assert ("(recon" in head) == (width == 160)
    assert ("Val" in head) == (width > 80)
    said = " ".join(lines)
    assert ("Left out at this width: Images/s, " in said) == (width < 160 or "Images/s" not in head)
    assert said.count("One seed per cell") == 1
    best = [line for line in lines[4:12] if "*" in line]
    assert [line.split()[0] for line in best] == ["p1", "p3"]
    assert "70.25*" in best[1].replace(" (46.75+23.50)", "")
    bold = text.text([*SWEEP, long], width=width, bold=True).splitlines()
    assert [line for line in bold if "\x1b" in line] == [f"\x1b[1m{line}\x1b[0m" for line in best]


def test_the_best_run_is_marked_within_its_set_and_seed_and_not_without_another() -> None:
    rows = [run(model, "p1", loss + s, seed=s) for model, loss in (("fc", 78.0), ("conv", 75.0)) for s in (0, 1)]
    lines = text.text([*rows, run("fc", "p2", 60.0)]).splitlines()
    marked = [line.split()[:3] for line in lines[4:9] if "*" in line]
    assert marked == [["p1", "conv", "0"], ["p1", "conv", "1"]]
    assert "* = the lowest test loss of its set and seed." in lines
    assert "*" not in text.text([rows[0]]).replace("beta * kl", "")
    others = [replace(row, digest=f"{i}") for i, row in enumerate(rows)]  # losses of other images do not compare
    assert "*" not in text.text(others).replace("beta * kl", "")


def test_remarks_name_what_is_missing_and_how_models_stand_to_the_closed_form() -> None:
    assert text.remarks(SWEEP) == (
        "Test loss minus that of the closed-form linear VAE: conv -2.00 to -1.50 (2 runs), fc +1.25 to +2.00 (2 runs). "
        "Not in this comparison: conv-p2 (FAILED), fc-p2 (PENDING), linear-p2 (RUNNING)."
    )
    alone = [run("linear", "p1", 76.5), run("mine", "p1", 70.0, reference=None)]
    assert text.remarks(alone) == "Test loss minus that of the closed-form linear VAE: linear +0.50 (1 run)."


def test_the_caption_counts_seeds() -> None:
    rows = [run("fc", "p1", 78.0 + s, seed=s) for s in range(3)] + [run("conv", "p1", 75.0, seed=s) for s in (0, 1)]
    assert "2 to 3 seeds per cell." in text.caption(rows)


def test_nothing_at_all() -> None:
    assert records([]) == []
    assert json.loads(to_json(frame([]))) == []
    assert to_csv(frame([])).startswith("run_id,name,status")
    assert text.remarks([]) == ""
    assert "| Set | Model |" in text.markdown([], max_chars=10)
    text.text([])


def test_a_schedule_is_a_column_where_there_is_one() -> None:
    plain = [run(m, "p1", 75.0) for m in ("fc", "conv")]
    assert "Schedule" not in text.markdown(plain)
    mixed = [*plain, *(replace(row, schedule="one_cycle over 8 epochs") for row in plain)]
    assert "| one_cycle over 8 epochs |" in text.markdown(mixed)


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
    loss = [metric for metric, _ in catalogue.described(["test/loss"])]
    short, long = ({"configuration": {"training.max_epochs": epochs}} for epochs in ("5", "9"))
    fc, conv = (run(model, "p1", 80.0, metrics={"test/loss": 80.0}, **short) for model in ("fc", "conv"))
    other = replace(conv, name="conv-p1-9", seed=1, **long)
    assert [c.n for c in contrasts_of(with_unique_labels([fc, conv, other]), loss)] == [1]
    assert contrasts_of(with_unique_labels([fc, replace(other, seed=0)]), loss) == []
    assert "One seed per cell" in text.caption([fc, conv, other])


def test_rows_need_neither_torch_nor_mlflow_and_pandas_only_for_their_table() -> None:
    code = "import sys\nfrom vae_sweep.comparison import evidence, identity, pairing, rows\n"
    code += "assert not {'torch', 'mlflow', 'omegaconf', 'pandas'} & set(sys.modules)\nrows.frame([])\n"
    code += "assert not {'torch', 'mlflow', 'omegaconf'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
