"""A tracking server that goes away in the middle of a run and comes back: no metric is lost, none counts twice."""

from __future__ import annotations

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
from mlflow import MlflowClient

from running import clean_environment


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


def test_training_goes_on_while_the_server_is_away(server, start, tmp_path: Path) -> None:
    address, start_server, stop_server = server
    grid = ["-m", "model=fc", "params=tiny", "experiment=smoke", "hydra/launcher=basic"]
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
        if "training goes on, the metrics are kept on disk and sent later" in line:
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


def test_a_server_that_stays_away_ends_the_sweep_in_lines_and_the_command_completes_it(
    server, start, command, tmp_path: Path
) -> None:
    address, start_server, stop_server = server
    grid = ["-m", "model=fc", "params=tiny", "experiment=smoke", "hydra/launcher=basic", "tracking.patience=0"]
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
