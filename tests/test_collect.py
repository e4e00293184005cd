"""Rows from the store: what a run's parameters, tags and plan say of it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vae_sweep.comparison.pairing import without_repeats
from vae_sweep.comparison.rows import Cell
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import collect
from vae_sweep.report.collect import rows_of
from vae_sweep.tracking.store import StoredRun

PARAMS = {
    "dataset.name": "shapes", "dataset.permute_pixels": "True", "dataset.digest": "1a", "model.name": "fc_skip",
    "params.name": "p1", "params.batch_size": "64", "params.lr": "0.001", "params.latent_dim": "128",
    "params.schedule": "one_cycle", "params.epochs": "8", "params.mirror": "False", "objective.beta": "0.5",
    "objective.reduction": "sum", "seed": "3", "n_parameters": "7", "paths.root": "/a",
}  # fmt: skip
TAGS = {"vae_sweep.run_key": "k", "vae_sweep.settings": "s", "mlflow.parentRunId": "sweep"}
RUN = StoredRun("1" * 32, "fc_skip-p1", "FINISHED", PARAMS, {"epochs": 8.0, "test/loss": 80.0, "test/psnr": 20.0}, TAGS)
CELL = Cell(
    *("fc_skip-p1", "beta=0.5", "shapes (pixels permuted)", "fc_skip", "p1", 3, 64, 0.001),
    *("one_cycle over 8 epochs", 128, 0.5, "sum"),
    key="k",
    settings="s",
)


def test_the_time_of_a_sweep_and_a_missing_primary_metric_are_found() -> None:
    sweep = replace(RUN, run_id="f" * 32, started=1764120000.0)
    own = replace(RUN, tags=TAGS | {"mlflow.parentRunId": "f" * 32}, started=sweep.started, ended=1764120051.0)
    other = replace(RUN, ended=1764999999.0)  # trained by another sweep
    assert collect._when(sweep, [own, other]) == "Sweep ffffffff: 2025-11-26 01:20 UTC."
    later = [replace(own, ended=1764120000.0 + 9000), replace(own, ended=1764120000.0 + 86400)]
    assert collect._when(sweep, later[:1]).endswith("2025-11-26 01:20 to 03:50 UTC.")
    assert collect._when(sweep, later).endswith("2025-11-26 01:20 to 2025-11-27 01:20 UTC.")
    assert collect._when(sweep, [other]) == "Sweep ffffffff: 2025-11-26 01:20 UTC."
    loss, distance = (
        Metric("test/loss", "", "", "lower", 2, primary=True),
        Metric("test/kd_x_5k", "", "", "", primary=True),
    )
    skipped = replace(RUN, tags=TAGS | {collect.WHY: "skipped: install vae-sweep[fd]"})
    assert collect._missing([loss], [skipped, skipped]) == "install vae-sweep[fd]"
    assert collect._missing([loss, distance], [skipped]) == ""
    assert collect._missing([loss], [replace(skipped, status="FAILED")]) == ""


def test_a_damaged_picture_of_a_run_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a loss of power leaves it: empty, or cut."""
    np.save(tmp_path / "whole", np.ones(4))
    whole = (tmp_path / "whole.npy").read_bytes()
    files = {"1": whole, "2": b"", "3": whole[:90], "4": whole[:-3]}
    for run, content in files.items():
        (tmp_path / run).write_bytes(content)
    store = SimpleNamespace(artifact=lambda run, name: nullcontext(tmp_path / run))
    rows = [replace(rows_of([RUN], [], "")[0], run_id=run, name=f"fc-{run}") for run in files]
    found = collect.arrays_of(store, rows, "samples.npy")  # type: ignore[arg-type]
    assert {name: array.tolist() for name, array in found.items()} == {"fc-1": [1.0] * 4}
    assert caplog.text.count("samples.npy of fc-") == 3


def test_a_row_holds_what_its_run_was_asked_for_and_what_became_of_it() -> None:
    (row,) = rows_of([RUN], [], "sweep")
    assert (row.dataset, row.schedule) == (CELL.dataset, CELL.schedule)
    assert (row.seed, row.lr, row.beta, row.epochs, row.n_parameters) == (3, 0.001, 0.5, 8, 7)
    assert (row.test_loss, row.metrics) == (80.0, {"test/loss": 80.0, "test/psnr": 20.0})
    assert row.reference is row.trained_in is None
    assert "paths.root" not in row.configuration


def test_a_cell_and_its_run_are_one_row_and_a_cell_without_one_is_pending() -> None:
    waiting = replace(CELL, name="fc-p1", key="other", settings="t")
    rows = rows_of([RUN], [CELL, waiting], "sweep")
    assert [(r.name, r.status, r.variant) for r in rows] == [
        ("fc_skip-p1", "FINISHED", "beta=0.5"),
        ("fc-p1", "PENDING", "beta=0.5"),
    ]
    edited = replace(CELL, key="new code")
    assert [r.status for r in rows_of([RUN], [edited], "sweep")] == ["PENDING"]  # the old run is another one
    assert [r.trained_in for r in rows_of([RUN], [CELL], "elsewhere")] == ["sweep sweep"]


def test_cells_that_failed_before_they_had_a_configuration_are_rows_of_their_own() -> None:
    made_of = {"vae_sweep.made_of": '{"the images": "1a", "my_vae.py": "2b"}'}
    tags = TAGS | made_of
    failed = [
        replace(RUN, run_id=c * 32, name=c, params={}, tags=tags | {"vae_sweep.run_key": c}, status="FAILED")
        for c in ("a", "b")
    ]
    cells = [replace(CELL, name=c, key=c) for c in ("a", "b")]
    assert len(without_repeats(rows_of(failed, cells, "sweep"))[0]) == 2


def test_of_a_metric_measured_several_times_the_names_of_the_last_count() -> None:
    run = replace(RUN, tags={**TAGS, "vae_sweep.metrics.names": "ssim"}, metrics={**RUN.metrics, "test/ssim": 0.5})
    assert rows_of([run], [], "sweep")[0].metrics == {"test/loss": 80.0, "test/ssim": 0.5}


@pytest.mark.parametrize(
    ("params", "cell", "baseline"),
    [
        ({}, None, "fc"),  # a run of version 0.1, which did not say
        ({"model.name": "mine"}, None, ""),
        ({"model.baseline": "None"}, None, ""),
        ({"model.baseline": "conv"}, None, "conv"),
        ({"model.baseline": "conv"}, "fc_res", "fc_res"),  # the YAML was edited since
        ({"model.baseline": "conv"}, "", ""),
    ],
)
def test_the_baseline_is_the_plans_or_else_the_runs(params: dict, cell: str | None, baseline: str) -> None:
    run = replace(RUN, params=PARAMS | params)
    (row,) = rows_of([run], [replace(CELL, baseline=cell)], "sweep")
    assert row.baseline == baseline
