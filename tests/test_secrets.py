"""A password, or a token, is in no file, no message and no run; the processes of a sweep inherit it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.credentials import get_default_host_creds

from vae_sweep import ui
from vae_sweep.base.errors import UserError
from vae_sweep.sweeps.context import Context
from vae_sweep.tracking.uris import masked, store_uri, with_secret

SECRET = "s3cret"
VARIABLES = [f"MLFLOW_TRACKING_{name}" for name in ("URI", "USERNAME", "PASSWORD", "TOKEN")]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials in the environment, now and after the test."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:s3cret@host/runs", "postgresql://me:***@host/runs"),
        ("postgresql://me:a%40s3cret@host/runs", "postgresql://me:***@host/runs"),
        ("postgresql://me:/a?s3cret@host/runs", "postgresql://me:***@host/runs"),
        (
            "postgresql://me@host/runs?password=s3cret&sslmode=require",
            "postgresql://me@host/runs?password=***&sslmode=require",
        ),
        ("mysql+pymysql://host/runs?passwd=s3cret", "mysql+pymysql://host/runs?passwd=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Ds3cret", "mssql+pyodbc:///?odbc_connect=***"),
        ("sqlite:////a@b:c&d=e/mlflow.db?timeout=9&key=s3cret", "sqlite:////a@b:c&d=e/mlflow.db?timeout=9&key=***"),
    ],
)
def test_a_database_is_opened_with_the_secret_and_shown_without(clean: None, uri: str, shown: str) -> None:
    assert store_uri(uri, Path("/root")) == shown == masked(shown)
    assert with_secret(shown) == uri
    assert os.environ["MLFLOW_TRACKING_URI"] == uri  # for the processes that this one starts
    assert SECRET.encode() not in pickle.dumps(Context("/root", shown, "1"))


def test_the_ui_opens_the_store_with_the_secret_and_no_process_shows_it(
    clean: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one program that we start which is not ours."""
    given = "postgresql://me:s3cret@host/runs"
    print_store = [sys.executable, "-c", "import os; print(os.environ['MLFLOW_BACKEND_STORE_URI'])"]
    shown, start = [], subprocess.Popen

    def popen(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        shown.append(command)
        with (tmp_path / "said").open("w") as file:
            return start(print_store, stdout=file, **settings)

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    ui._serve(store_uri(given, Path("/root")), 5000, tmp_path)
    assert (tmp_path / "said").read_text().strip() == given
    assert SECRET not in str(shown)


@pytest.mark.parametrize(
    ("uri", "credentials"),
    [
        ("https://me:p@s3cret@host:5000/x", ("me", "p@s3cret", None)),
        ("https://me:p%2Fs3cret@host:5000/x", ("me", "p/s3cret", None)),
        ("https://s3cret@host:5000/x", (None, None, "s3cret")),
    ],
)
def test_a_server_is_asked_with_the_credentials_of_its_address(clean: None, uri: str, credentials: tuple) -> None:
    assert store_uri(uri, Path("/root")) == "https://host:5000/x"
    known = get_default_host_creds("https://host:5000/x")
    assert (known.username, known.password, known.token) == credentials
    assert SECRET not in masked(uri)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("postgresql://me:p@s3cret@host/runs", "write a @ in a user or password as %40"),
        ("https://host:5000/?token=s3cret", "a token by MLFLOW_TRACKING_TOKEN"),
        ("https://me:12/s3cret@host:5000", "give a user by MLFLOW_TRACKING_USERNAME"),
        ("https://me:p/s3cret@host:5000", "give a user by MLFLOW_TRACKING_USERNAME"),
        ("me:s3cret@host", "MLflow no longer keeps runs in plain folders"),
    ],
)
def test_an_address_that_cannot_be_read_is_refused_without_showing_the_secret(
    clean: None, uri: str, reason: str
) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        store_uri(uri, Path("/root"))
    assert SECRET not in str(caught.value)


def test_a_process_without_the_secret_says_which_variable_to_set(clean: None, monkeypatch) -> None:
    shown = store_uri("postgresql://me:s3cret@host/runs", Path("/root"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:s3cret@other/runs")
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI where it starts"):
        Context("/root", shown, "1").store()


def test_a_refused_sweep_leaves_no_secret(command, tmp_path: Path) -> None:
    uri = "postgresql://me@127.0.0.1:9/runs?password=s3cret"
    done = command("-m", "model=linear", "params=tiny", "experiment=smoke", f"tracking.uri='{uri}'", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("vae_sweep: tracking.uri=postgresql://me@127.0.0.1:9/runs?password=***: ")
    assert SECRET not in done.stdout + done.stderr
    assert holding(SECRET, tmp_path) == []


SMALL = ("params=tiny", "dataset=shapes", "dataset.n_train=100", "dataset.n_test=50", "training.max_epochs=1")
SMALL += ("metrics.iwae_images=10", "metrics.gmm_components=0", "metrics.ssim_images=0", "metrics.features=none")
SUBMITIT = ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60")


def holding(word: str, *folders: Path) -> list[str]:
    """The files below the folders that hold a word."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return [str(file) for file in files if word.encode() in file.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["user", "token", "query"])
def test_a_secret_is_in_no_file_of_a_sweep_of_several_processes(
    form: str, request: pytest.FixtureRequest, command, tmp_path: Path
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install 'vae-sweep[slurm]'")
    root, own = tmp_path / "project", tmp_path / "configuration"
    root.mkdir()
    if form == "query":
        uri = "sqlite:///mlflow.db?password=s3cret"
    else:
        uri = request.getfixturevalue("server")[0].replace("//", "//me:p@s3cret@" if form == "user" else "//s3cret@")
    given = [f"tracking.uri='{uri}'"]
    if form == "token":  # in a file of the user's, which each process composes again
        (own / "experiment").mkdir(parents=True)
        (own / "experiment" / "ours.yaml").write_text(f"# @package _global_\ntracking: {{uri: '{uri}'}}")
        given = [f"--config-dir={own}", "experiment=ours"]
    done = command("-m", *given, "model=linear", *SMALL, *SUBMITIT, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": FINISHED. " in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert list(root.rglob("*_submitted.pkl"))
    assert list(root.rglob("checkpoint.pt"))
    assert holding(SECRET, root, tmp_path / "server") == []
