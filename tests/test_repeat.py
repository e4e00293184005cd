"""The same command after a finished sweep: what is not needed is neither done nor left behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf

from running import BASIC, clean_environment, statuses
from vae_sweep.sweeps.setup import finished_anywhere
from vae_sweep.tracking.store import Store
from vae_sweep.tracking.unchanged import digest_of_runs

SWEEP = ("-m", "model=linear,fc", "params=tiny", "experiment=smoke", BASIC)


@pytest.fixture
def finished(command: Callable, made_once: Callable, empty_database: Path, tmp_path: Path) -> Path:
    """A copy of a finished sweep."""

    def fill(folder: Path) -> None:
        shutil.copy(empty_database, folder)
        assert command(*SWEEP, cwd=folder).returncode == 0

    return shutil.copytree(made_once("repeat", fill), tmp_path / "finished")


def files(root: Path) -> dict[str, int]:
    """All files but the locks, with their times."""
    found = {str(path.relative_to(root)): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    return {name: time for name, time in found.items() if "lock" not in name and "db-" not in name}


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "outputs").iterdir())


def test_a_repeat_says_the_same_and_does_only_what_is_missing(
    finished: Path, command: Callable, real_command: Callable
) -> None:
    done = command(*SWEEP, "progress=plain", cwd=finished)  # the end that is kept names paths, which have changed
    assert done.stdout.count("finished: already finished, as run") == 2, done.stdout + done.stderr
    before = files(finished)
    assert [name[-5:] for name in folders(finished)] == ["sweep", "state"]  # the first repeat started no job either
    again = real_command(*SWEEP, "progress=plain", cwd=finished, PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0
    table = done.stdout[done.stdout.index("Comparison\n") :]
    assert again.stdout == f"All 2 cells are already finished; resume=false trains them again.\n\n{table}"
    assert files(finished) == before
    imported = set(re.findall(r"\| +(\w+)$", again.stderr, re.MULTILINE))
    assert "pandas" in imported
    assert not imported & {"torch", "mlflow", "matplotlib"}
    unread, written = os.pipe()
    os.close(unread)  # as `| head` does when it has seen enough
    closed = subprocess.run(
        [sys.executable, "-m", "vae_sweep", *SWEEP, "progress=plain"],
        cwd=finished, env=clean_environment(), stdout=written, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(written)
    assert (closed.returncode, closed.stderr) == (0, "")

    (report,) = finished.glob("mlruns/*/artifacts/report.html")
    report.unlink()
    names = folders(finished)
    assert command(*SWEEP, cwd=finished).stdout.count("is already finished, as run") == 2
    assert report.is_file()
    assert folders(finished) == names

    client = MlflowClient(tracking_uri=f"sqlite:///{finished / 'mlflow.db'}")
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs(["1"])}
    client.delete_run(runs["fc-tiny"])
    done = command(*SWEEP, cwd=finished)
    assert "epoch 2" in done.stdout
    assert done.stdout.count("is already finished, as run") == 1
    assert set(statuses(finished).values()) == {"FINISHED"}


def test_other_metrics_are_measured(finished: Path, command: Callable) -> None:
    for _ in range(2):  # the second time, nothing is left to do
        done = command(*SWEEP, "metrics.iwae_samples=3", cwd=finished)
        assert done.returncode == 0
        measured = done.stdout.count(" measured in ")
        assert measured == (0 if _ else 2)


def test_what_this_machine_has_finished_is_known_before_another_sweep_starts(finished: Path) -> None:
    """Its display counts those runs as done, and not as hours that are left."""
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    runs = MlflowClient(tracking_uri=uri).search_runs(["1"], "tags.`vae_sweep.role` = 'run'")
    store = Store.open(uri, finished, "vae_sweep-smoke")
    assert store.experiment_id == "1"
    keys = {run.data.tags["vae_sweep.run_key"] for run in runs}
    assert len(keys) == 2
    assert finished_anywhere(OmegaConf.create({"training": {"device": "auto"}}), store) == keys
    assert store.finished_keys("cpu: another processor") == set()


def test_every_word_about_a_run_counts(finished: Path) -> None:
    uri = f"sqlite:///{finished / 'mlflow.db'}"
    client = MlflowClient(tracking_uri=uri)
    runs = {run.info.run_name: run.info.run_id for run in client.search_runs(["1"])}
    first = digest_of_runs(uri, [runs["fc-tiny"]])
    client.set_tag(runs["linear-tiny"], "of", "another")
    assert digest_of_runs(uri, [runs["fc-tiny"]]) == first is not None
    client.log_metric(runs["fc-tiny"], "best/val_loss", 1.0)
    assert digest_of_runs(uri, [runs["fc-tiny"]]) != first
    assert digest_of_runs("http://127.0.0.1:1", [runs["fc-tiny"]]) is None
    assert digest_of_runs(f"sqlite:///{finished / 'other.db'}", [runs["fc-tiny"]]) is None
