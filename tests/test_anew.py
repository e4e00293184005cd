"""``resume=false`` trains a whole sweep again; where that is interrupted, the same command without it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from running import BASIC, rows
from vae_sweep.base.locks import hold_lock
from vae_sweep.sweeps import execute
from vae_sweep.tracking.store import StoredRun

SWEEP = ("-m", "model=linear", "seed=0,1", "params=tiny", "experiment=smoke", "training.max_epochs=1", BASIC)
SWEEP += ("dataset.n_train=100", "dataset.n_test=30")


def test_a_sweep_that_trains_all_anew_is_continued_without_the_runs_before_it(command: Callable, project: Path) -> None:
    first = command(*SWEEP, cwd=project)
    assert first.returncode == 0, first.stderr
    before = rows(project)
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None

    def runs() -> dict[str, list[str]]:
        found = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        return {
            role: [run.info.run_id for run in found if run.data.tags["vae_sweep.role"] == role]
            for role in ("sweep", "run")
        }

    tags = client.get_run(runs()["run"][0]).data.tags
    held = project / "outputs" / "state" / tags["vae_sweep.sweep_key"] / tags["vae_sweep.run_key"]
    with hold_lock(held, "the first run", "wait"):  # so that it fails before it has a run
        stopped = command(*SWEEP, "resume=false", "fail_fast=true", cwd=project)
    assert stopped.returncode == 1
    said = stopped.stdout + stopped.stderr
    assert "already running" in said
    assert stopped.stderr.splitlines()[-1] == (
        "vae_sweep: without resume=false the same command continues; with it everything is trained again"
    )
    assert stopped.stdout.count("another cell failed and fail_fast=true (linear-tiny-s0: ") == 1
    assert {key: len(ids) for key, ids in runs().items()} == {
        "sweep": 2,
        "run": 2,
    }  # fail_fast: nor did the other start

    done = command(*SWEEP, cwd=project)
    assert done.returncode == 0, done.stderr
    assert {key: len(ids) for key, ids in runs().items()} == {"sweep": 2, "run": 4}
    assert runs()["sweep"][1] in done.stdout
    assert all(run_id[:8] in done.stdout for run_id in runs()["run"][2:])
    assert not any(run_id[:8] in done.stdout for run_id in runs()["run"][:2])
    assert rows(project) == sorted(before * 2) != []  # bit for bit


def test_a_requeued_job_of_a_sweep_that_trains_all_anew_continues_its_own_run(monkeypatch: pytest.MonkeyPatch) -> None:
    finished = StoredRun("a" * 32, "fc-p1", "FINISHED", {}, {"best/val_loss": 80.0}, {})
    monkeypatch.setattr(execute, "_before", lambda job: finished)
    monkeypatch.setattr(execute, "_update", lambda job, before: before.metrics["best/val_loss"])
    said: list[str] = []
    job = SimpleNamespace(
        cfg=SimpleNamespace(resume=False),
        context=SimpleNamespace(parent_id="b" * 32),
        reporter=SimpleNamespace(skips=lambda run_id, metrics: said.append(run_id)),
    )
    assert execute._finished(job) == ("a" * 32, 80.0)  # type: ignore[arg-type]
    assert said == ["a" * 32]
