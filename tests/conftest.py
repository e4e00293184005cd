from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from running import clean_environment

torch.set_num_threads(1)


@contextlib.contextmanager
def heeded_signals() -> Iterator[None]:
    """What starts inside heeds Ctrl-C and a closed terminal, also where pytest is a background job or under nohup."""
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


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
def command():
    """Run the real command line in a folder; returns the finished process with its output as text."""

    def run(*arguments: str, cwd: Path, module: str = "vae_sweep", **environment: str):
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


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
        with (folder / "log").open("a") as log:
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
                assert process.poll() is None, (folder / "log").read_text()
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
