"""The launcher decides where a cell runs, not what comes out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from running import BASIC, rows, statuses

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
