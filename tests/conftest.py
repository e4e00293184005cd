from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from mlflow import MlflowClient
from threadpoolctl import threadpool_limits

from running import BASIC, Preloaded, clean_environment, heeded_signals, run_process

torch.set_num_threads(1)
threadpool_limits(1)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start():
    """Start the real command line in a folder, in a session of its own, and read on until a line holds a text."""
    processes = []

    def run(*arguments: str, cwd: Path, until: str, **environment: str) -> subprocess.Popen:
        with heeded_signals():
            process = subprocess.Popen(
                [sys.executable, "-m", "vae_sweep", *arguments],
                cwd=cwd,
                env=clean_environment() | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        processes.append(process)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if until in line:
                return process
        raise AssertionError(f"no line with {until!r}:\n{''.join(seen)}")

    yield run
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="session")
def real_command() -> Command:
    """Run the command line in a folder, in a process of its own; returns the finished process with its output."""
    return run_process


@pytest.fixture(scope="session")
def command() -> Iterator[Command]:
    """Like ``real_command``, but without its seconds of imports: in a fork of a process that has done them."""
    if sys.platform != "linux":  # elsewhere a fork of so many libraries is not safe
        yield run_process
        return
    preloaded = Preloaded()
    yield preloaded.run
    preloaded.close()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Return a folder that one of pytest's processes has filled for all of them; whoever writes into it copies it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent

    def get(name: str, fill: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def empty_database(made_once: Callable) -> Path:
    """A database with MLflow's tables, which take seconds to make."""

    def fill(folder: Path) -> None:
        MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").search_experiments()

    return made_once("empty database", fill) / "mlflow.db"


@pytest.fixture
def new_project(tmp_path: Path, empty_database: Path) -> Callable[[str], Path]:
    """Make a folder to run the command in, with an empty store."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def project(new_project: Callable[[str], Path]) -> Path:
    """One folder to run the command in, with an empty store."""
    return new_project("project")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Address, start and stop of a server of one's own."""
    folder = tmp_path / "server"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, running = f"http://127.0.0.1:{port}", []

    def start() -> None:
        line = f"-m mlflow server --backend-store-uri sqlite:///mlflow.db --artifacts-destination {folder}/artifacts"
        with (folder / "log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *line.split(), "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
                cwd=folder,
                env=clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running.append(process)
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                return
            except OSError:
                assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
                assert time.monotonic() < until
                time.sleep(0.2)

    def stop() -> None:
        while running:
            process = running.pop()
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    start()
    yield address, start, stop
    stop()


@pytest.fixture(scope="session")
def swept(command: Command, made_once: Callable, empty_database: Path) -> tuple[Path, str]:
    """fc and conv, two seeds, at beta 0.5, ended by max_epochs: the project folder, to read, and what was said."""
    sweep = ("-m", "model=fc,conv", "params=tiny", "seed=0,1", "experiment=smoke", "objective.beta=0.5", BASIC)
    return _finished("swept", sweep, command, made_once, empty_database)


@pytest.fixture(scope="session")
def collapsed(command: Command, made_once: Callable, empty_database: Path) -> tuple[Path, str]:
    """fc and conv trained on an averaged error until they stop by themselves: the project folder, and what was said."""
    settings = ("objective.reduction=mean", "training.max_epochs=60", "training.min_delta=0.01", "params.lr=3e-3")
    sweep = ("-m", "model=fc,conv", "params=tiny", "experiment=smoke", "training.patience=2", *settings, BASIC)
    return _finished("collapsed", sweep, command, made_once, empty_database)


def _finished(
    name: str, sweep: Sequence[str], command: Command, made_once: Callable, empty_database: Path
) -> tuple[Path, str]:
    def fill(folder: Path) -> None:
        shutil.copy(empty_database, folder)
        done = command(*sweep, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")

    folder = made_once(name, fill)
    return folder, (folder / "output.txt").read_text(encoding="utf-8")
