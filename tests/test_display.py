"""What a command shows while its runs train: a live table, or a few lines, and how long it says it will take."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from rich.console import Console

from running import BASIC, ENDLESS, clean_environment, heeded_signals, rows, statuses
from vae_sweep.base import working
from vae_sweep.base.working import working as long_work
from vae_sweep.comparison.rows import Cell
from vae_sweep.sweeps import display
from vae_sweep.sweeps.display import Display, Lines, display_of, table, trend
from vae_sweep.sweeps.image_grid import COLUMNS
from vae_sweep.sweeps.status import FILE, Reporter, Status, read
from vae_sweep.sweeps.timeleft import duration, epochs_left, said, sweep_left
from vae_sweep.tracking.record import RunRecord
from vae_sweep.training.loop import TrainSettings

SETTINGS = TrainSettings(64, 1e-3, 0, max_epochs=100, patience=5, min_delta=0.5)
GRID = ("-m", "model=linear", "params=tiny", "seed=0,1", "experiment=smoke", BASIC)
SHOW, HIDE = b"\x1b[?25h", b"\x1b[?25l"  # the cursor


# How long it takes.


def test_without_a_trend_max_epochs_is_a_bound() -> None:
    assert epochs_left([80.0, 70.0, 65.0], SETTINGS) == (97, True)
    assert epochs_left([1000 - 30.0 * epoch for epoch in range(20)], SETTINGS) == (80, True)  # no end in sight
    assert epochs_left([80.0] * 4, replace(SETTINGS, min_delta=0.0)) == (96, True)
    assert epochs_left([80.0], TrainSettings(64, 1e-3, 0, 8, 5, 0.5, schedule="one_cycle")) == (7, False)


def test_a_loss_that_stands_still_stops_when_the_patience_ends() -> None:
    falling = [100.0 - 5 * epoch for epoch in range(8)]
    assert epochs_left([80.0] * 4, SETTINGS) == (2, False)
    assert epochs_left([*falling, *[65.0] * 50], SETTINGS)[0] <= 5


CURVES = {  # validation losses of JPEG CIFAR-10; the last epoch is the one after which early stopping ended the run
    "conv p3": "105.4 88.0 82.6 80.7 79.0 78.5 77.3 76.9 76.5 76.6 76.0 76.0 75.8 75.8 75.5 75.2 75.8 75.3 74.9 75.1 "
    "74.9",
    "fc p3": "124.9 121.8 109.6 102.8 97.2 95.2 93.9 91.9 91.0 90.2 88.5 87.7 88.8 86.3 86.2 85.3 85.8 84.2 84.2 84.0 "
    "83.5 83.3 83.4 83.2 82.9 83.0 82.3 82.4 82.6 82.1 82.2 81.6 81.7 81.6 81.9 82.4 81.5",
    "fc p2": "126.9 113.5 106.6 98.0 95.4 93.0 91.2 89.5 88.6 87.0 85.5 85.2 84.8 84.7 84.4 83.9 83.8 83.4 83.4 82.8 "
    "82.5 81.8 81.8 81.5 81.1 80.9 80.9 81.4 80.7 80.3 80.3 80.5 80.1 80.1 80.1",
    "fc_res p2": "83.9 80.2 78.8 77.7 77.2 76.7 76.4 76.1 75.9 75.7 75.6 75.3 75.2 75.3 75.2 75.2",
}


@pytest.mark.parametrize("name", CURVES)
def test_the_end_of_a_real_curve_is_foreseen(name: str) -> None:
    """From its fourth epoch on, to a quarter of all its epochs; from half of them on, to a tenth."""
    val = [float(loss) for loss in CURVES[name].split()]
    for n in range(4, len(val)):
        left, bound = epochs_left(val[:n], SETTINGS)
        assert not bound
        assert n + left == pytest.approx(len(val), rel=0.25 if n < len(val) / 2 else 0.1, abs=1), n


def run(name: str, state: str, **more: Any) -> Status:
    known: dict[str, Any] = {"model": name.split("-")[0], "started": 1000.0, "written": 1000.0}
    return Status(name, **{**known, "state": state, **more})


def test_what_is_left_of_a_sweep() -> None:
    done = run("fc-p1", "finished", measuring=1080.0, ended=1100.0)
    trains = run("fc-p2", "training", started=1100.0, written=1110.0, left=50.0, bound=False)
    waits = run("fc-p3", "waiting")
    skipped = run("fc-p0", "finished", skipped=True)
    assert sweep_left([done, trains], 1120.0) == (40.0 + 20.0, False)  # it is measured like the first
    # One at a time: the waiting one takes as long as the two that are known, 100 s and 20 + 60 s.
    assert sweep_left([done, trains, waits], 1120.0) == (60.0 + 90.0, False)
    other = run("conv-p1", "training", started=1100.0, written=1120.0, left=300.0)
    assert sweep_left([done, trains, other, waits], 1120.0) == (320.0, True)  # the longest counts
    assert sweep_left([done, waits], 1120.0) == (100.0, False)
    assert sweep_left([waits], 1120.0) is None
    assert sweep_left([skipped, waits], 1120.0) is None  # what was finished before took no time now
    assert sweep_left([skipped, done, waits], 1120.0) == sweep_left([done, waits], 1120.0)
    assert sweep_left([run("fc-p1", "starting")], 1120.0) is None
    assert sweep_left([done], 1120.0) is None
    measures = run("fc-p3", "measuring", started=1000.0, measuring=1100.0)
    assert sweep_left([measures, measures], 1120.0) is None  # how long that takes is not known yet
    # Continued at epoch 40 of 50, ten in 20 s: a whole run takes 5 times that, and 20 s of measuring.
    rest = run("fc-p4", "finished", started=1000.0, measuring=1020.0, ended=1040.0, epoch=50, before=40)
    assert sweep_left([rest, waits], 1120.0) == (200.0, False)
    going = run("fc-p5", "training", started=1100.0, written=1120.0, left=60.0, bound=False, epoch=45, before=40)
    assert sweep_left([going, waits], 1120.0) == (60.0 + 20 * 45 / 5 + 60.0, False)
    assert said((150.0, True)) == "at most 2m30s"
    assert [duration(seconds) for seconds in (9.6, 61, 3120, 7260)] == ["10s", "1m01s", "52m", "2h01m"]


# The file of a run.


def test_a_run_writes_its_status_and_the_warnings_of_its_process(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, "fc-p1", "fc")
    assert read(tmp_path) is None

    def work() -> None:
        assert (read(tmp_path) or run("", "")).state == "starting"
        reporter.says("training")
        for epoch in range(1, 40):
            reporter.epoch([80.0] * epoch, 1000.0, lambda: (60.0, True))
        assert (read(tmp_path) or run("", "")).epoch == 1  # epochs of milliseconds are not written
        reporter.status.written -= 2
        reporter.epoch([80.0] * 40, 1000.0, lambda: (60.0, True))
        found = read(tmp_path)
        assert found is not None
        assert (found.state, found.epoch, found.val, found.bound) == ("training", 40, [80.0] * 20, True)
        logging.getLogger("vae_sweep").warning("fc-p1: %s", "careful")
        raise RuntimeError("fc-p1: no luck")

    with pytest.raises(RuntimeError), reporter.active():
        work()
    found = read(tmp_path)
    assert found is not None
    assert (found.state, found.reason, found.warnings) == ("failed", "no luck", ["fc-p1: careful"])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_text('{"name": "fc', encoding="utf-8")
    assert read(tmp_path) is None


def test_a_full_disk_does_not_end_a_run(tmp_path: Path) -> None:
    with Reporter(tmp_path / "missing", "fc-p1", "fc").active():
        pass


# What is drawn.


RUNS = [
    run("fc-p1-s0", "finished", epoch=20, val=[90.0, 84.43], images_per_s=3618.0, measuring=1400.0, ended=1404.0),
    run("a_model_with_a_long_name-p1-hidden_dims=[1024,512]-s0", "training", epoch=7, val=[99.0, 91.0, 88.0], left=9.0),
    run("conv-p1-s0", "failed", ended=1001.0, reason="the disk is full"),
    run("conv-p2-s0", "waiting"),
]


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("letters", ["utf-8", "ascii"])
def test_a_row_for_each_run_fits_the_terminal(width: int, letters: str) -> None:
    buffer = io.TextIOWrapper(io.BytesIO(), encoding=letters)
    console = Console(file=buffer, width=width, height=24, force_terminal=True, legacy_windows=False)
    console.print(table(RUNS, console))
    buffer.seek(0)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in buffer.read().splitlines()]
    assert max(map(len, lines)) <= width
    (finished,) = [line for line in lines if line.startswith("fc-p1-s0")]
    assert re.findall(r"\S+", finished)[1:4] == ["finished", "20", "84.43"]
    assert finished.endswith("took 6m44s")
    assert sum("waiting" in line for line in lines) == sum("failed" in line for line in lines) == 1


def test_more_runs_than_lines_are_counted() -> None:
    console = Console(file=io.StringIO(), width=80, height=12, force_terminal=True)
    many = [*(run(f"fc-{i}", "finished", ended=1.0) for i in range(30)), run("conv-0", "training"), *RUNS[2:]]
    console.print(table(many, console))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "conv-0" in shown
    assert "conv-p1-s0" in shown  # failed
    assert "and 29 more: 28 finished, 1 waiting" in shown


def test_a_trend_is_drawn() -> None:
    assert trend([8.0, 4.0, 1.0]) == "█▄▁"
    assert trend([float("nan"), 3.0, 3.0]) == "▁▁"
    assert trend([5.0]) == ""
    assert [trend(val, True) for val in ([3.0, 2.0], [2.0, 3.0], [2.0, 2.0])] == ["falls", "rises", "flat"]


def test_long_work_is_handed_to_the_display(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, int, int | None]] = []
    monkeypatch.setattr(working, "show", lambda *what: shown.append(what))
    with long_work("decoding images", 5) as advance:
        advance(3)
        advance(2)
    assert shown == [("decoding images", n, 5) for n in (0, 3, 5)] + [("", 0, None)]


def test_without_a_terminal_there_are_lines() -> None:
    assert type(display_of("auto")) is Lines
    assert display_of("log") is None
    assert type(display_of("none")) is Display


def test_a_line_a_minute_says_where_the_sweep_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(display, "LOOK_EVERY", 0.02)
    monkeypatch.setattr(display, "LINE_EVERY", 0.1)
    reporters = [Reporter(tmp_path / name, name, "fc") for name in ("fc-p1", "fc-p2")]
    lines = Lines()
    lines.start()
    lines.watch(tmp_path)
    for reporter in reporters:
        (tmp_path / reporter.status.name).mkdir()
        reporter.status.started = time.time()
        reporter.says("training")
    reporters[0].epoch([80.25], 1000.0, lambda: (3000.0, True))
    reporters[1].ends("failed", "no memory")
    time.sleep(0.5)
    lines.stop()
    lines.stop()
    said = [line[9:] for line in capsys.readouterr().out.splitlines()]
    assert said.count("fc-p2 failed: no memory") == said.count("fc-p1 started") == 1
    minute = [line for line in said if line.startswith("2 cells: 1 failed, 1 training; at most ")]
    assert len(minute) in range(1, 6)
    assert re.search(r"; fc-p1 training, epoch 1, val 80\.25, at most (50m|49m) left$", minute[-1])


def test_a_run_that_starts_again_is_told_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As one that Slurm has put back into its queue."""
    lines = Lines()
    lines._seen = {}
    first = run("fc-p1", "stopped", started=1.0, ended=2.0, warnings=["slow"], n_warnings=1)
    again = run("fc-p1", "finished", started=3.0, ended=4.0, warnings=["slow"], n_warnings=1)
    for runs in ([first], [first], [again]):
        lines._tell(runs)
    said = [line[9:] for line in capsys.readouterr().out.splitlines()]
    assert said == [
        *("fc-p1 started", "warning: slow", "fc-p1 stopped"),
        *("fc-p1 started", "warning: slow", "fc-p1 finished"),
    ]


def test_cells_that_were_finished_before_take_no_time(tmp_path: Path) -> None:
    cells = [Cell(key, "", "d", "fc", "p1", 0, 64, 1e-3, "constant", 8, 1.0, "sum", key=key) for key in ("a", "b")]
    lines = Lines()
    lines.watch(tmp_path, cells, {"a"})
    assert [(status.state, status.skipped) for status in lines.runs()] == [("finished", True), ("waiting", False)]


# The real command.


def test_plain_lines_say_when_cells_start_and_end(command, project: Path) -> None:
    done = command(*GRID, "progress=plain", cwd=project)
    assert done.returncode == 0, done.stderr
    lines = [line[9:] for line in done.stdout.splitlines() if re.match(r"\d\d:\d\d:\d\d (warning: )?linear", line)]
    assert [line.partition(":")[0] for line in lines if not line.startswith("warning: ")] == [
        *("linear-tiny-s0 started", "linear-tiny-s0 finished"),
        *("linear-tiny-s1 started", "linear-tiny-s1 finished"),
    ]
    assert sum(line.startswith("warning: linear-tiny-s") for line in lines) == len(lines) - 4 == 2
    assert "epoch 1" not in done.stdout + done.stderr
    logs = [path.read_text(encoding="utf-8") for path in project.glob("outputs/*/*/vae_sweep.log")]
    assert [len(re.findall(r" epoch \d:", log)) for log in logs] == [2, 2]
    again = command(*GRID, "progress=plain", cwd=project)
    assert again.stdout.startswith("All 2 cells are already finished; resume=false trains them again.\n\nComparison\n")
    log = command(*GRID, "resume=false", "progress=log", cwd=project)
    assert len(re.findall(r" epoch \d:", log.stdout)) == 4
    assert len(rows(project)) % 2 == 0
    assert [row[1:] for row in rows(project)[::2]] == [row[1:] for row in rows(project)[1::2]]  # the same numbers


def test_none_shows_warnings_and_the_result_alone(command, project: Path) -> None:
    done = command("model=linear", "params=tiny", "experiment=smoke", "progress=none", cwd=project)
    assert done.returncode == 0, done.stderr
    assert "epoch 1" not in done.stdout
    assert re.search(r"^Run [0-9a-f]{32}: FINISHED\.$", done.stdout, re.MULTILINE)


def on_a_terminal(*arguments: str, cwd: Path, width: int, stop_after: bytes = b"") -> tuple[int, bytes]:
    """Run the command on a pseudo-terminal, with Ctrl-C once something is shown; its exit code and what it wrote."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, width))
    environment = clean_environment() | {"TERM": "xterm-256color", "VAE_SWEEP_PROGRESS": "auto"}
    with heeded_signals():
        process = subprocess.Popen(
            [sys.executable, "-m", "vae_sweep", *arguments],
            cwd=cwd,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
    os.close(theirs)
    shown, until = b"", time.monotonic() + 200
    with contextlib.suppress(OSError):  # the terminal closes with its last writer
        while chunk := os.read(ours, 65536):
            shown += chunk
            assert time.monotonic() < until, shown
            if stop_after and stop_after in shown:
                stop_after = b""
                os.killpg(process.pid, signal.SIGINT)
    os.close(ours)
    return process.wait(60), shown


def test_a_sweep_shows_a_table_on_a_terminal(project: Path) -> None:
    code, shown = on_a_terminal(*GRID, "model=linear,fc", "seed=0", cwd=project, width=80)
    assert code == 0
    assert shown.rfind(SHOW) > shown.rfind(HIDE) >= 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert "2 cells: 2 finished" in text
    assert re.search(r"linear-tiny +finished +2 +\d+\.\d\d ", text)
    assert "epoch 1:" not in text
    end = text[text.index("Comparison") :].splitlines()
    assert max(len(line) for line in end if "/" not in line) <= 80  # paths are kept whole, to be copied


def test_ctrl_c_leaves_a_clean_screen(project: Path) -> None:
    code, shown = on_a_terminal(*GRID, *ENDLESS, cwd=project, width=100, stop_after=b"training")
    assert code == 130
    assert shown.rfind(SHOW) > shown.rfind(HIDE) >= 0
    end = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown[shown.rfind(SHOW) :].decode())
    assert "Traceback" not in end
    assert end.splitlines()[-1] == "vae_sweep: interrupted; the same command continues"
    assert "Comparison" in end
    assert set(statuses(project).values()) == {"KILLED"}


def test_a_run_alone_has_a_table_too_and_its_time_left_is_no_promise(project: Path) -> None:
    arguments = ("experiment=smoke", "params=tiny", "model=linear", "training.max_epochs=40", "training.patience=30")
    code, shown = on_a_terminal(*arguments, cwd=project, width=120)
    assert code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())
    assert re.search(r"linear-tiny +finished +40 ", text)
    assert "cells:" not in text
    assert text.rindex("finished") < text.rindex("Run ")
    assert re.search(r"Run [0-9a-f]{32}: FINISHED\.", text[text.rindex("Run ") :])
    client = MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")
    (run,) = client.search_runs(["1"])
    best = int(run.data.metrics["best_epoch"])
    assert best & (best - 1)  # beside epochs 1, 2, 4, ... the images of the weights that count are stored
    stored = RunRecord(client, run.info.run_id).images()
    assert stored == {(key, epoch) for key in COLUMNS for epoch in (1, 2, 4, 8, 16, 32, best)}
    (status,) = project.glob(f"outputs/state/single/*/{FILE}")
    assert json.loads(status.read_text(encoding="utf-8"))["state"] == "finished"
