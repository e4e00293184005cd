"""The launcher decides where a cell runs, not what comes out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from running import rows, statuses

GRID = ["-m", "model=linear,fc", "params=tiny", "experiment=smoke"]
LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"],
    "ray": ["hydra/launcher=ray_local", "hydra.launcher.ray.init.num_cpus=2"],
}


@pytest.fixture(scope="module")
def basic(command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("basic")
    done = command(*GRID, "hydra/launcher=basic", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_gives_the_same_numbers(launcher: str, basic: Path, command, tmp_path: Path) -> None:
    if importlib.util.find_spec(f"hydra_plugins.hydra_{launcher}_launcher") is None:
        pytest.skip(f"pip install 'vae-sweep[{'ray' if launcher == 'ray' else 'slurm'}]'")
    done = command(*GRID, *LAUNCHERS[launcher], cwd=tmp_path, RAY_USAGE_STATS_ENABLED="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == {
        "linear-tiny": "FINISHED",
        "fc-tiny": "FINISHED",
        "shapes: model=linear,fc": "FINISHED",
    }
    assert rows(tmp_path) == rows(basic)
    assert len(rows(basic)) > 60
    if launcher == "submitit":  # another launcher finds what this one left
        done = command(*GRID, "hydra/launcher=basic", cwd=tmp_path)
        assert done.stdout.count("is finished already") == 2
        assert done.returncode == 0
