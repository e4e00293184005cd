"""Interrupted work is continued to the last bit, finished work is not repeated, nothing is trained twice at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import OmegaConf

from running import BASIC, ENDLESS, rows
from vae_sweep import models
from vae_sweep.base.errors import RunFailed, UserError
from vae_sweep.base.locks import hold_lock, is_held
from vae_sweep.sweeps import lifecycle, remeasure
from vae_sweep.sweeps.context import Context
from vae_sweep.sweeps.lifecycle import _close_torn_down
from vae_sweep.sweeps.repeat import Ending
from vae_sweep.tracking.store import Store, StoredRun
from vae_sweep.tracking.uris import sqlite_uri
from vae_sweep.training import loop, randomness, state
from vae_sweep.training.evaluation import Averages
from vae_sweep.training.objective import Objective

NODES = [
    {"_target_": "vae_sweep.models.fc.FCVAE", "name": "fc", "hidden_dims": [16]},
    {"_target_": "vae_sweep.models.conv.ConvVAE", "name": "conv", "channels": [4, 8]},
]


def images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fit(node: dict, folder: Path, stop_after: int | None = None, **options) -> tuple[list, dict[str, torch.Tensor]]:
    """Train from whatever state is in ``folder``; return what the epochs showed and the weights at the end."""
    randomness.seed_weights(0)
    model = models.create(node, (3, 8, 8), 4)
    settings = {"batch_size": 16, "lr": 0.02, "seed": 0, "max_epochs": 9, "patience": 3, "min_delta": 0.01} | options
    saved = state.load(folder)
    shown = []
    for metrics in loop.fit(
        model, images(100, 0), images(40, 1), loop.TrainSettings(**settings), snapshot=saved and saved["fit"]
    ):
        shown.append((metrics.epoch, metrics.step, metrics.train, metrics.val, metrics.improved))
        state.save(folder, {"fit": metrics.snapshot()})
        if metrics.epoch == stop_after:
            break
    return shown, {key: value.clone() for key, value in model.state_dict().items()}


OPTIONS: list[dict] = [
    *({}, {"schedule": "one_cycle"}, {"mirror": True}),
    {"objective": Objective(variance="learned"), "warmup": 2.5, "clip_grad_norm": 500.0, "min_delta": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("node", NODES, ids=["fc", "conv"])
def test_training_interrupted_after_every_epoch_equals_uninterrupted_training(
    node: dict, options: dict, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, weights = fit(node, tmp_path / "whole", **options)
    assert len(whole) >= 4
    parts = []
    for epoch in range(1, len(whole) + 1):
        shown, _ = fit(node, tmp_path / "parts", stop_after=epoch, **options)
        parts += shown
    rest, final = fit(node, tmp_path / "parts", **options)  # nothing is left to train
    assert rest == []
    assert parts == whole
    assert all(torch.equal(final[key], weights[key]) for key in weights)


def test_a_damaged_state_is_replaced_by_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2, 3):
        state.save(tmp_path, {"epoch": epoch})
    assert state.load(tmp_path) == {"format": state.FORMAT, "epoch": 3}
    newest = tmp_path / "state.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    assert state.load(tmp_path) == {"format": state.FORMAT, "epoch": 2}
    assert "cannot be read" in caplog.text
    newest.unlink()  # killed between the two renames
    assert state.load(tmp_path) == {"format": state.FORMAT, "epoch": 2}
    state.clear(tmp_path)
    assert state.load(tmp_path) is None


def test_a_pickled_state_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"format": state.FORMAT, "bomb": Bomb()}, tmp_path / "state.pt")
    assert state.load(tmp_path) is None
    assert not (tmp_path / "executed").exists()


def test_a_lock_ends_with_its_holder(tmp_path: Path) -> None:
    hold = (
        "import sys, time; from pathlib import Path; from vae_sweep.base.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(60)"
    )
    line = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, encoding="utf-8") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert is_held(tmp_path)
        with pytest.raises(UserError, match=rf"^it is already running.* {holder.pid} on "), hold_lock(tmp_path, "it"):
            pass
        holder.kill()  # -9: nothing of its own runs any more
    assert not is_held(tmp_path)
    with hold_lock(tmp_path, "it"):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)


GRID = ["-m", "model=linear,fc", "params=tiny", "experiment=smoke", "training.max_epochs=5"]


def stored(root: Path) -> dict[str, list[Run]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    found: dict[str, list[Run]] = {}
    for run in client.search_runs([experiment.experiment_id]):
        found.setdefault(run.info.run_name, []).append(run)
    return found


LAUNCHERS = [BASIC, pytest.param("hydra/launcher=joblib", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_sweep_is_continued_by_the_same_command(launcher: str, command, start, new_project) -> None:
    broken, whole = new_project("broken"), new_project("whole")
    process = start(*GRID, launcher, cwd=broken, until="epoch 2:")
    os.killpg(process.pid, signal.SIGKILL)  # parent and workers at once: nobody says good-bye
    process.wait()
    assert {run.info.status for runs in stored(broken).values() for run in runs} >= {"RUNNING"}
    done = command(*GRID, launcher, cwd=broken)
    assert done.returncode == 0, done.stdout + done.stderr
    assert command(*GRID, BASIC, cwd=whole).returncode == 0
    assert {name: len(runs) for name, runs in stored(broken).items()} == {
        "shapes: model=linear,fc": 1,
        "linear-tiny": 1,
        "fc-tiny": 1,
    }
    assert {run.info.status for runs in stored(broken).values() for run in runs} == {"FINISHED"}
    assert rows(broken) == rows(whole) != []

    again = command(*GRID, launcher, cwd=broken)  # a third time: all is done
    assert again.returncode == 0
    assert again.stdout.count("is already finished, as run") == 2
    assert "epoch 1:" not in again.stdout
    assert rows(broken) == rows(whole)
    for name in ("linear-tiny", "fc-tiny"):
        assert stored(broken)[name][0].info.run_id[:8] in again.stdout  # still in the table

    afresh = command(*GRID, BASIC, "resume=false", cwd=broken)
    assert afresh.returncode == 0
    assert {name: len(runs) for name, runs in stored(broken).items()}["fc-tiny"] == 2


@pytest.mark.slow
def test_the_same_sweep_twice_at_once_is_refused(command, start, project: Path) -> None:
    first = start(*GRID, BASIC, *ENDLESS, cwd=project, until="epoch 2:")
    second = command(*GRID, BASIC, *ENDLESS, cwd=project)
    assert second.returncode == 1
    assert re.search(rf"this sweep is already running.* {first.pid} on ", second.stderr), second.stderr
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert first.returncode == 130
    assert {run.info.status for runs in stored(project).values() for run in runs} == {"KILLED"}


def test_a_lost_run_does_not_get_the_reason_of_another(project: Path) -> None:
    """Hydra hands on the first failure alone."""
    store = Store.open(sqlite_uri(project / "mlflow.db"), project, "test")
    parent = store.start_run("mine", {}).run_id
    ids = [store.start_run(name, {"vae_sweep.run_key": name}, parent).run_id for name in ("fc-p1", "conv-p1")]
    context = Context(str(project), store.uri, store.experiment_id, parent_id=parent, sweep_key="k")
    _close_torn_down(context, store, "fc-p1: the training loss became nan")
    said = [store.get(run_id).tags["vae_sweep.error"] for run_id in ids]
    assert said == ["its worker ended: fc-p1: the training loss became nan", "its worker ended: it left no result"]
    assert {store.get(run_id).status for run_id in ids} == {"KILLED"}


def test_a_sweep_whose_table_nobody_reads_is_finished(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of `python -m vae_sweep -m ... | head`."""
    store = Store.open(sqlite_uri(project / "mlflow.db"), project, "test")
    parent = store.start_run("mine", {}).run_id
    store.record(store.start_run("fc-p1", {"vae_sweep.run_key": "fc-p1"}, parent).run_id).finish("FINISHED")
    nowhere: list[bool] = []

    def closed(self: Ending, uri: str, root: Path) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(Ending, "show", closed)
    monkeypatch.setattr(lifecycle, "nobody_reads", lambda: nowhere.append(True))
    context = Context(str(project), store.uri, store.experiment_id, parent_id=parent, sweep_key="k")
    assert [row.status for row in lifecycle.close_sweep(context, None)] == ["FINISHED"]
    assert store.get(parent).status == "FINISHED"
    assert nowhere == [True]
    lifecycle.close_sweep(context, RunFailed("fc-p2: not started"))  # of a sweeper whose cells are not known ahead
    assert store.get(parent).status == "FAILED"


@pytest.mark.parametrize("what", ["measure_and_record", "draw"])
def test_what_is_measured_or_drawn_again_counts_when_all_is_done(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the settings of before would stand beside numbers of both."""
    cfg = OmegaConf.create({"evaluation": {"noise_draws": 1, "n_samples": 5}})
    tags = {"vae_sweep.metrics": "k", "vae_sweep.features": "inception", "config.evaluation.n_samples": "3"}
    stored = StoredRun("a", "fc-p1", "FINISHED", {}, {"test/loss": 80.0}, dict(tags))
    record = SimpleNamespace(set_tags=tags.update)
    run = SimpleNamespace(
        cfg=cfg, root=Path(), record=record, objective=None, images=lambda split: None, name="fc-p1",
        context=SimpleNamespace(features="none"), store=SimpleNamespace(history=lambda *_: []),
    )  # fmt: skip

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remeasure, "_is_measured", lambda *_: False)
    monkeypatch.setattr(remeasure, "_trained", lambda run: None)
    monkeypatch.setattr(remeasure, "evaluate", lambda *_, **__: Averages(80.0, 60.0, 20.0))
    monkeypatch.setattr(remeasure, what, interrupted)
    again = {"measure_and_record": remeasure.remeasure, "draw": remeasure.redraw}[what]
    with pytest.raises(KeyboardInterrupt):
        again(run, stored)  # type: ignore[arg-type]
    left = {"measure_and_record": ["config.evaluation.n_samples"], "draw": ["vae_sweep.metrics", "vae_sweep.features"]}
    assert [key for key, value in tags.items() if value] == left[what]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_fail_fast_stops_the_other_cells(launcher: str, command, project: Path) -> None:
    grid = ["-m", "model=fc", "params=tiny", "params.lr=1e9,1e-3", "experiment=smoke", "fail_fast=true", launcher]
    done = command(*grid, *ENDLESS, cwd=project)
    assert done.returncode == 1
    statuses = {name: runs[0].info.status for name, runs in stored(project).items()}
    assert statuses.pop("shapes: params.lr=1000000000.0,0.001") == "FAILED"
    assert statuses.pop("fc-tiny-lr=1000000000.0") == "FAILED"
    assert set(statuses.values()) <= {"KILLED"}  # the other was stopped, or had not started
