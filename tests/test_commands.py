"""The small commands: ``vae-sweep doctor``, ``vae-sweep ui``, and the words that name a command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib import import_module
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mlflow import MlflowClient

import bad_files as bad
import vae_sweep
from running import clean_environment, heeded_signals
from vae_sweep import UserError, doctor, ui
from vae_sweep.cli import COMMANDS
from vae_sweep.tracking.names import ROLE
from vae_sweep.tracking.pages import pages
from vae_sweep.tracking.record import RunRecord
from vae_sweep.tracking.store import Store


def test_every_command_is_a_module_with_a_main() -> None:
    assert all(callable(import_module(f"vae_sweep.{name}").main) for name in COMMANDS)


def test_a_first_word_names_the_command(command, tmp_path: Path) -> None:
    for name in COMMANDS:
        typed = [name, "--help"]
        done, alone = command(*typed, cwd=tmp_path), command("--help", cwd=tmp_path, module=f"vae_sweep.{name}")
        assert (done.returncode, done.stdout) == (0, alone.stdout)
        assert done.stdout.startswith(f"usage: python -m vae_sweep.{name}")
    done = command("sweep", "model=fc,conv", "params=nope", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("vae_sweep: params=nope: no such choice; available: best, ")


def test_an_export_prints_its_files_and_how_far_they_are_from_the_model(command, tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="pip install 'vae-sweep[export]'")
    bad.saved()(tmp_path)
    done = command("run=checkpoint.pt", "format=safetensors", cwd=tmp_path, module="vae_sweep.export")
    assert done.returncode == 0, done.stderr
    *files, checked = done.stdout.splitlines()
    assert [Path(file).name for file in files if Path(file).is_file()] == ["model.safetensors", "README.md"]
    assert checked == "checked: the largest difference from the trained model is 0 (of weights)"


def test_the_doctor_names_what_is_there_and_what_is_missing(
    swept: tuple[Path, str], command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = dict(doctor.findings(None, swept[0]))
    printed = command(cwd=swept[0], module="vae_sweep.doctor").stdout.splitlines()
    assert [line[:16].rstrip() for line in printed] == list(found)
    assert vae_sweep.__version__ in found["vae_sweep"]
    assert "torch 2" in found["packages"]
    assert re.search(r"sqlite:.*mlflow\.db; its last sweep: shapes: model=fc,conv seed=0,1", found["store"])
    assert "float32" in found["device"]
    assert "GB free" in found["disk"]
    (tmp_path / "data" / "celeba" / "img_align_celeba").mkdir(parents=True)  # without images
    (tmp_path / "data" / "downloads").mkdir()
    (tmp_path / "data" / "downloads" / "cifar-10-python.tar.gz").touch()
    monkeypatch.setattr(doctor, "EXTRAS", {"moon": (("no-such-package",), "travel")})
    found = dict(doctor.findings(None, tmp_path))
    assert found["extra moon"] == "not installed; pip install 'vae-sweep[moon]' (travel)"
    assert found["store"].startswith("none yet; the first sweep makes it (sqlite:")
    assert found["data"].endswith(", cifar10")


def test_the_pages_of_a_sweep_are_those_of_its_runs(swept: tuple[Path, str]) -> None:
    store = Store.existing(f"sqlite:///{swept[0] / 'mlflow.db'}", swept[0], "")
    sweep = store.newest({"vae_sweep.role": "sweep"})
    assert sweep is not None
    found = pages("http://h:1/", sweep, store.children(sweep.run_id))
    client = MlflowClient(tracking_uri=store.uri)
    runs = urlsplit(found["its runs"].replace("/#", ""))
    assert runs.path == f"/experiments/{sweep.experiment_id}/runs"
    query = parse_qs(runs.query)
    assert query["workflowType"] == ["machine_learning"]
    searched = client.search_runs([sweep.experiment_id], query["searchFilter"][0])
    compared = parse_qs(urlsplit(found["runs compared"].replace("/#", "")).query)
    assert json.loads(compared["experiments"][0]) == [sweep.experiment_id]
    assert sorted(json.loads(compared["runs"][0])) == sorted(run.info.run_id for run in searched)
    assert len(searched) == 4
    seen = parse_qs(urlsplit(found["its images over epochs"].replace("/#", "")).query)
    tags = client.get_experiment(sweep.experiment_id).tags
    text = tags[f"mlflow.sharedViewState.{seen['viewStateShareKey'][0]}"]
    assert len(text) <= 5000  # the longest tag of an experiment
    view = json.loads(text)
    assert view["searchFilter"] == query["searchFilter"][0]
    charts = {chart["type"]: chart for chart in view["compareRunCharts"]}
    stored = RunRecord(client, searched[0].info.run_id).images()  # type: ignore[arg-type]
    assert sorted(charts["IMAGE"]["imageKeys"]) == sorted({key for key, _ in stored})
    assert set(charts["PARALLEL"]["selectedParams"]) <= searched[0].data.params.keys()
    assert {charts["LINE"]["metricKey"], charts["BAR"]["metricKey"]} <= searched[0].data.metrics.keys()
    assert {chart["metricSectionId"] for chart in charts.values()} == {s["uuid"] for s in view["compareRunSections"]}


def test_runs_without_a_sweep_have_a_page(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(ui, "_serve", lambda *arguments: None)
    monkeypatch.setattr(ui, "_check_free", lambda port: None)
    with pytest.raises(UserError, match="holds no sweep"):
        ui.show(ui.Options(), project)
    store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "vae_sweep")
    store.start_run("fc-p1", {ROLE: "run"}).finish("FINISHED")
    ui.show(ui.Options(), project)
    expected = f"http://127.0.0.1:5000/#/experiments/{store.experiment_id}/runs?workflowType=machine_learning"
    assert expected in capsys.readouterr().out


def test_a_port_that_is_taken_is_named(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"^port={port}: .* such as port={port + 1}$"):
            ui.show(ui.Options(port=port), swept[0])
    with pytest.raises(UserError, match=r"^port=0: must be a whole number from 1 to 65535"):
        ui.show(ui.Options(port=0), swept[0])


def test_a_ui_that_does_not_heed_its_signal_is_ended_with_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is starting."""
    monkeypatch.setattr(ui, "GRACE", 0.5)
    deaf = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork(); print(1, flush=True)"
    line = [sys.executable, "-c", f"{deaf}; time.sleep(60)"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True) as server:
        assert server.stdout is not None
        assert [server.stdout.readline(), server.stdout.readline()] == [b"1\n", b"1\n"]  # the child, too
        ui._end(server)
        assert server.stdout.read() == b""  # nobody holds the other end any more
    assert server.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_ui_answers_until_it_is_interrupted_and_leaves_no_process(
    swept: tuple[Path, str], number: signal.Signals
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "vae_sweep", "ui", f"port={port}"]
    with (
        heeded_signals(),
        subprocess.Popen(
            line,
            cwd=swept[0],
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        ) as process,
    ):
        try:
            until = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                        assert answer.status == 200
                    break
                except (urllib.error.URLError, OSError):
                    assert time.monotonic() < until
                    time.sleep(0.3)
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/#/compare-runs?runs=" in said
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
