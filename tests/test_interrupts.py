"""Whatever ends a sweep from outside: every run is closed, no process stays behind, the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from running import ENDLESS

GRID = ["-m", "model=fc,linear", "params=tiny", "experiment=smoke"]


def stored(root: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def session(leader: int) -> set[int]:
    """The living processes of a session; the command was started in one of its own."""
    alive = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, sid = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(sid) == leader and state != "Z":
            alive.add(int(stat.parent.name))
    return alive


def wait_until_gone(leader: int, but: frozenset[int] = frozenset()) -> set[int]:
    until = time.monotonic() + 20
    while time.monotonic() < until and session(leader) - but:
        time.sleep(0.2)
    return session(leader) - but


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(
    ("launcher", "number", "whole_group"),
    [
        ("basic", signal.SIGINT, False),
        ("joblib", signal.SIGINT, False),
        ("joblib", signal.SIGINT, True),
        ("joblib", signal.SIGTERM, False),
        ("joblib", signal.SIGTERM, True),
        ("joblib", signal.SIGHUP, True),
    ],
)
def test_an_interrupted_sweep_closes_everything(
    launcher: str, number: int, whole_group: bool, start, tmp_path: Path
) -> None:
    launch = [f"hydra/launcher={launcher}", *(["hydra.launcher.n_jobs=2"] if launcher == "joblib" else [])]
    process = start(*GRID, *launch, *ENDLESS, cwd=tmp_path, until="epoch 3:")
    (os.killpg if whole_group else os.kill)(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    before, line, _ = output.partition("\nvae_sweep: interrupted; the same command continues\n")
    assert line
    assert "Traceback" not in before
    assert wait_until_gone(process.pid) == set()
    runs = stored(tmp_path)
    assert {run.info.status for run in runs} == {"KILLED"}, output
    (parent,) = [run for run in runs if run.data.tags["vae_sweep.role"] == "sweep"]
    assert "KILLED" in parent.data.tags["mlflow.note.content"]
    # What had trained for an epoch may go on from here; between two renames there is only the epoch before.
    assert {path.name for path in tmp_path.glob("outputs/state/*/*/state*.pt")} & {"state.pt", "state.previous.pt"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_with_the_process_that_made_them(start, command, tmp_path: Path) -> None:
    process = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=tmp_path, until="epoch 3:")
    process.kill()  # -9, the first process alone
    assert wait_until_gone(process.pid) == set()
    again = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=tmp_path, until="epoch 5:")
    again.send_signal(signal.SIGTERM)
    again.communicate(timeout=60)
    runs = stored(tmp_path)
    assert len(runs) == 3  # the same sweep, the same runs
    assert {run.info.status for run in runs} == {"KILLED"}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_worker_is_said_in_one_line(start, tmp_path: Path) -> None:
    """As the kernel does where memory runs out."""
    process = start(*GRID, "hydra.launcher.n_jobs=2", *ENDLESS, cwd=tmp_path, until="epoch 3:")
    (owner, *_) = tmp_path.glob("outputs/state/*/*/owner.json")
    os.kill(int(owner.read_text().partition('"pid": ')[2].rstrip("}")), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    before, line, _ = output.partition("\nvae_sweep: a worker process was killed from outside, usually because memory")
    assert line
    assert "Traceback" not in before
    assert wait_until_gone(process.pid) == set()
    statuses = {run.data.tags["vae_sweep.role"]: run.info.status for run in stored(tmp_path)}
    assert statuses == {"sweep": "FAILED", "run": "KILLED"}
