"""A tracking server that goes away, or falls silent, and comes back: no metric is lost, none counts twice."""

from __future__ import annotations

import contextlib
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from running import BASIC, ENDLESS

pytestmark = pytest.mark.slow


def test_training_goes_on_while_the_server_is_away(server, start, tmp_path: Path) -> None:
    address, start_server, stop_server = server
    grid = ["-m", "model=fc", "params=tiny", "experiment=smoke", BASIC]
    epochs = 60
    process = start(
        *(*grid, f"training.max_epochs={epochs}", f"training.patience={epochs}"),
        cwd=tmp_path,
        until="epoch 3:",
        MLFLOW_TRACKING_URI=address,
        MLFLOW_HTTP_REQUEST_MAX_RETRIES="1",
    )
    stop_server()
    for line in process.stdout:
        if "training goes on" in line:
            break
    start_server()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert len(runs) == 2
    run = runs["fc-tiny"]
    for key in ("train/loss", "val/kl", "images_seen"):
        history = client.get_metric_history(run.info.run_id, key)
        assert [point.step for point in history] == list(range(1, epochs + 1))
        times = [point.timestamp for point in history]
        assert times == sorted(times)  # when they were measured, not when they arrived
        assert len(set(times)) > epochs // 2
    assert "checkpoint.pt" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


def test_a_server_that_stays_away_ends_the_sweep_and_the_same_command_completes_it(
    server, start, command, tmp_path: Path
) -> None:
    address, start_server, stop_server = server
    grid = ["-m", "model=fc", "params=tiny", "experiment=smoke", BASIC, "tracking.retry_seconds=0"]
    own = {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    grid += ["training.max_epochs=60", "training.patience=60"]
    process = start(*grid, cwd=tmp_path, until="epoch 3:", **own)
    stop_server()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in output
    assert "vae_sweep: the sweep could not be closed: the tracking store http://127.0.0.1" in output
    assert output.rstrip().endswith("the same command completes it")
    refused = command(*grid, cwd=tmp_path, **own)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"vae_sweep: tracking.uri={address}: no MLflow server answers there")
    start_server()
    done = command(*grid, cwd=tmp_path, **own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "fc-tiny continues after epoch 60" in done.stdout  # all was trained: only the results were missing
    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "FINISHED"]
    (run,) = [run for run in runs if run.info.run_name == "fc-tiny"]
    history = client.get_metric_history(run.info.run_id, "val/loss")
    assert [point.step for point in history] == list(range(1, 61))


class Line(socketserver.ThreadingTCPServer):
    """Passes connections on to a server, until it is silenced: then it takes them in, and nothing comes back."""

    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64

    def __init__(self, port: int) -> None:
        self.to, self.silent = port, threading.Event()
        super().__init__(("127.0.0.1", 0), Passing)


class Passing(socketserver.BaseRequestHandler):
    server: Line

    def handle(self) -> None:
        with socket.create_connection(("127.0.0.1", self.server.to)) as far:
            back = threading.Thread(target=self.copy, args=(far, self.request), daemon=True)
            back.start()
            self.copy(self.request, far)
            back.join()

    def copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.server.silent.is_set():
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def line(server) -> Iterator[Line]:
    """A line to the server of the test."""
    with Line(int(server[0].rpartition(":")[2])) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def address(line: Line) -> dict[str, str]:
    return {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{line.server_address[1]}"}


def test_no_epoch_waits_for_a_server_that_never_answers(server, line: Line, start, tmp_path: Path) -> None:
    epochs = 100
    process = start(
        *("model=fc", "params=tiny", "experiment=smoke", "dataset.n_train=100"),
        *(f"training.max_epochs={epochs}", f"training.patience={epochs}"),
        cwd=tmp_path,
        until="epoch 3:",
        **address(line),
    )
    line.silent.set()
    lines = [time.monotonic()]
    for text in process.stdout:
        lines.append(time.monotonic())
        if " epoch 80:" in text:
            break
    line.silent.clear()
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert max(after - before for before, after in pairwise(lines)) < 20  # one request alone is given up after 30
    client = MlflowClient(tracking_uri=server[0])
    (experiment,) = client.search_experiments(filter_string="name = 'vae_sweep-smoke'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for key in ("train/loss", "val/kl"):
        history = client.get_metric_history(run.info.run_id, key)
        assert [point.step for point in history] == list(range(1, epochs + 1))
        assert [point.timestamp for point in history] == sorted(point.timestamp for point in history)


def test_an_interrupt_does_not_wait_for_a_server_that_never_answers(line: Line, start, tmp_path: Path) -> None:
    process = start(
        *("-m", "model=fc", "params=tiny", "experiment=smoke", BASIC, *ENDLESS),
        cwd=tmp_path,
        until="epoch 3:",
        **address(line),
    )
    line.silent.set()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=90)  # MLflow alone would take two minutes for each request
    assert process.returncode == 130
    assert "Traceback" not in output
    assert output.rstrip().endswith("vae_sweep: interrupted; the same command continues")
