"""A project folder may be called anything: what is kept lies in it, and every address that is printed finds it."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from running import BASIC, statuses
from vae_sweep.sweeps.launchers import joblib_temp_folder
from vae_sweep.tracking.relocate import relocate
from vae_sweep.tracking.store import Store
from vae_sweep.tracking.uris import check_answers, sqlite_path, store_uri, ui_command

NAMES = (
    "two words",
    "Übung",
    "日本",
    "what?",
    "no #1",
    "100%",
    "p%20q",
    "it's",
    "tab\there",
    "a&b=c@d:e;f+g",
    '"x"',
    "[~]",
)
TWO = ("-m", "model=linear", "params=tiny", "seed=0,1", "experiment=smoke", "training.max_epochs=1", BASIC)
FEW = ("dataset.n_train=100", "dataset.n_test=50", "metrics.iwae_images=10")


@pytest.mark.parametrize("name", NAMES)
def test_a_store_in_any_folder(name: str, empty_database: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_database, root / "mlflow.db")
    uri = store_uri(None, root)
    assert sqlite_path(uri) == root / "mlflow.db"
    assert store_uri(uri, tmp_path / "elsewhere") == uri
    check_answers(uri)
    record = Store.open(uri, root, "any").start_run("run", {})
    record.log_text("kept", "folder/a.txt")
    assert (root / "mlruns" / record.run_id / "artifacts" / "folder" / "a.txt").read_text() == "kept"
    assert shlex.split(ui_command(uri, root))[:3] == ["cd", str(root), "&&"]
    assert shlex.split(ui_command(uri, tmp_path))[-2:] == ["ui", f"uri={uri}"]
    assert {path.name for path in tmp_path.iterdir()} == {name}
    moved = tmp_path / f"moved {name}"
    root.rename(moved)
    assert relocate(moved / "mlflow.db") == 1
    with Store.existing(None, moved, "missing").artifact(record.run_id, "folder/a.txt") as path:
        assert path is not None
        assert path.read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {moved.name}


def test_a_moved_store_of_any_name_finds_its_artifacts(empty_database: Path, tmp_path: Path) -> None:
    root, moved = tmp_path / "here", tmp_path / "there"
    root.mkdir()
    shutil.copy(empty_database, root / "runs.db")
    record = Store.open(store_uri("sqlite:///runs.db", root), root, "any").start_run("run", {})
    record.log_text("kept", "a.txt")
    root.rename(moved)
    with Store.existing("sqlite:///runs.db", moved, "missing").artifact(record.run_id, "a.txt") as path:
        assert path is not None
        assert path.read_text() == "kept"
    assert not root.exists()


@pytest.mark.parametrize(
    "name",
    [
        "Übung 日本 it's",
        pytest.param("a?b #1", marks=pytest.mark.slow),
        pytest.param("100% p%20q\ttab", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_in_any_folder(name: str, command, new_project, tmp_path: Path) -> None:
    root = new_project(name)
    done = command(*TWO, *FEW, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert statuses(root) == {
        "linear-tiny-s0": "FINISHED",
        "linear-tiny-s1": "FINISHED",
        "shapes: seed=0,1": "FINISHED",
    }
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert len(list(root.glob("mlruns/*/artifacts/checkpoint.pt"))) == 2
    assert len(list(root.glob("mlruns/*/artifacts/report.html"))) == 1
    shown = done.stdout.rstrip().splitlines()[-1]
    assert shlex.split(shown)[:3] == ["cd", str(root), "&&"]
    client = MlflowClient(tracking_uri=store_uri(f"sqlite:///{'mlflow.db'}", root))
    (experiment,) = client.search_experiments(filter_string="name = 'vae_sweep-smoke'")
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 3
    for run in found:
        assert client.list_artifacts(run.info.run_id)


def test_joblib_gets_a_folder_that_it_can_name(tmp_path: Path) -> None:
    assert joblib_temp_folder(tmp_path / "plain") == str(tmp_path / "plain")
    for odd in ("Übung", "line\nbreak", "x" * 400):
        assert joblib_temp_folder(tmp_path / odd).isascii()
        assert odd not in joblib_temp_folder(tmp_path / odd)


def test_a_folder_that_is_no_utf_8_is_refused_in_one_line(command, tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xdcbung"))
    root.mkdir()
    done = command(*TWO, *FEW, cwd=root)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "\\xdcbung: the folder name is not valid UTF-8; rename it" in done.stderr
