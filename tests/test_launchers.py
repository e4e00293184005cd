"""The launcher decides where a cell runs, not what comes out."""

from __future__ import annotations

import importlib.util
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from running import BASIC, rows, statuses
from vae_sweep.tracking.names import OUTPUTS

pytestmark = pytest.mark.slow

GRID = ["-m", "model=linear,fc", "params=tiny", "experiment=smoke"]
LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"],
    "ray": ["hydra/launcher=ray_local", "hydra.launcher.ray.init.num_cpus=2"],
}


@pytest.fixture(scope="session")
def basic(command, made_once) -> Path:
    def fill(root: Path) -> None:
        done = command(*GRID, BASIC, cwd=root)
        assert done.returncode == 0, done.stderr

    return made_once("basic", fill)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_gives_the_same_numbers(
    launcher: str, basic: Path, command, real_command, project: Path
) -> None:
    if importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
        pytest.skip(f"pip install 'vae-sweep[{'ray' if launcher == 'ray' else 'slurm'}]'")
    done = real_command(*GRID, *LAUNCHERS[launcher], cwd=project, RAY_USAGE_STATS_ENABLED="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(project) == {
        "linear-tiny": "FINISHED",
        "fc-tiny": "FINISHED",
        "shapes: model=linear,fc": "FINISHED",
    }
    assert rows(project) == rows(basic)
    assert len(rows(basic)) > 60
    if launcher == "submitit":  # another launcher finds what this one left
        done = command(*GRID, BASIC, cwd=project)
        assert done.stdout.count("is already finished") == 2
        assert done.returncode == 0


def test_joblib_starts_the_run_with_the_most_arithmetic_first_and_gives_each_its_own_folder(
    command, project: Path
) -> None:
    axes = ("model=linear,fc", "params=tiny", "training.max_epochs=1,2")
    done = command("-m", *axes, "experiment=smoke", "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(project / "mlflow.db") as store:
        tag = "SELECT name, value FROM runs r JOIN tags t ON r.run_uuid = t.run_uuid AND key = ? ORDER BY start_time"
        folders = [(name, Path(folder).name[0]) for name, folder in store.execute(tag, (OUTPUTS,))][1:]  # not the sweep
    assert folders == [
        ("fc-tiny-max_epochs=2", "3"),
        ("fc-tiny-max_epochs=1", "2"),
        ("linear-tiny-max_epochs=2", "1"),
        ("linear-tiny-max_epochs=1", "0"),
    ]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no closed terminals")
def test_a_closed_terminal_does_not_end_joblibs_resource_tracker() -> None:
    code = """
import os, signal, time
from joblib.externals.loky.backend.resource_tracker import _resource_tracker as tracker
from vae_sweep.sweeps.launchers import patch_launcher

patch_launcher("a.JoblibLauncher", None)
os.kill(tracker._pid, signal.SIGHUP)
time.sleep(0.5)
print(os.waitpid(tracker._pid, os.WNOHANG))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == "(0, 0)\n", done.stderr  # it has not ended
