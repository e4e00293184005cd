"""What becomes of a run when its disk, its store or its folder fails: nothing is lost, nothing counts twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf

from running import BASIC, ENDLESS, rows, statuses
from vae_sweep.base.errors import StoreError
from vae_sweep.sweeps import folders
from vae_sweep.sweeps.lifecycle import _close_orphaned_runs
from vae_sweep.sweeps.setup import _hide_password
from vae_sweep.tracking import sender
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.tracking.store import RunRecord, Store, StoredRun
from vae_sweep.tracking.uris import masked
from vae_sweep.training import checkpoint


class Flaky:
    """A record whose store answers only when it should; it keeps what it took."""

    def __init__(self) -> None:
        self.up = True
        self.tried = 0
        self.took: list[tuple[int, int, dict[str, float]]] = []

    def without_retries(self) -> Flaky:
        return self

    def log_metrics(self, metrics: dict[str, float], step: int, time_ms: int) -> None:
        self.tried += 1
        if not self.up:
            raise StoreError("the tracking store is away")
        self.took.append((step, time_ms, metrics))


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_epochs_that_the_store_did_not_take_are_sent_later(monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(sender, "RETRY_AFTER", 0.05)
    record = Flaky()
    book = EpochSender(record, [], ())  # type: ignore[arg-type]
    book.add(1, {"val/loss": 3.0})
    until(lambda: len(record.took) == 1)
    record.up = False
    book.add(2, {"val/loss": 2.0})
    book.add(3, {"val/loss": 1.0})
    until(lambda: record.tried > 3)
    assert caplog.text.count("training goes on") == 1
    record.up = True
    until(lambda: len(record.took) == 3)
    book.add(4, {"val/loss": 0.5})
    book.send()
    assert caplog.text.count("the tracking store answers again: it has all epochs up to 3") == 1
    assert [(step, metrics) for step, _, metrics in record.took] == [
        (epoch, {"val/loss": loss}) for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (4, 0.5))
    ]
    # Another process, continuing from the entries on disk, while the store has epochs 1 and 3.
    later = Flaky()
    EpochSender(later, book.entries, {1, 3}).send()  # type: ignore[arg-type]
    assert later.took == [record.took[1], record.took[3]]  # with the times at which they were measured


def test_a_store_that_failed_is_not_asked_again_at_once(monkeypatch) -> None:
    monkeypatch.setattr(sender, "RETRY_AFTER", 1000.0)
    record = Flaky()
    record.up = False
    book = EpochSender(record, [], ())  # type: ignore[arg-type]
    book.add(1, {})
    until(lambda: record.tried == 1)
    book.add(2, {})
    with pytest.raises(StoreError):
        book.send()
    assert record.tried == 2
    record.up = True
    book.send()
    assert [step for step, _, _ in record.took] == [1, 2]


def test_no_epoch_waits_for_a_store_that_does_not_answer() -> None:
    class Silent(Flaky):
        def log_metrics(self, metrics: dict[str, float], step: int, time_ms: int) -> None:
            answers.wait(60)
            super().log_metrics(metrics, step, time_ms)

    answers, record = threading.Event(), Silent()
    book = EpochSender(record, [], ())  # type: ignore[arg-type]
    began = time.monotonic()
    for epoch in range(1, 101):
        book.add(epoch, {})
    assert time.monotonic() - began < 5
    assert record.took == []
    answers.set()
    book.send()
    assert [step for step, _, _ in record.took] == list(range(1, 101))


def test_metrics_sent_twice_count_once(project: Path) -> None:
    """The answer to a request was lost, so it is sent again with the time that it had."""
    store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "twice")
    record = store.start_run("one", {})
    for _ in range(2):
        record.log_metrics({"a": 1.0, "b": 2.0}, 3, 1_700_000_000_000)
    assert [(m.step, m.value) for m in store.client.get_metric_history(record.run_id, "a")] == [(3, 1.0)]


def test_what_is_measured_again_counts_also_after_a_clock_that_was_ahead(project: Path) -> None:
    store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "clocks")
    record = store.start_run("one", {})
    record.log_metrics({"test/ssim": 0.5}, time_ms=int(time.time() * 1000) + 600_000)
    record.log_changed({"test/ssim": 0.25, "test/psnr": 20.0})
    assert store.get(record.run_id).metrics == {"test/ssim": 0.25, "test/psnr": 20.0}


def test_runs_that_start_at_once_share_their_dataset(project: Path) -> None:
    """MLflow looks for a dataset and then inserts it: of several at once, all but one found that it was taken."""
    records = []
    for _ in range(6):
        store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "test")
        records.append(store.start_run("run", {}))
    barrier = threading.Barrier(len(records))

    def attach(record: RunRecord) -> None:
        barrier.wait()
        record.log_dataset("shapes", "0" * 32, "generated", {})

    with ThreadPoolExecutor(len(records)) as pool:
        list(pool.map(attach, records))
    inputs = [record.client.get_run(record.run_id).inputs.dataset_inputs for record in records]
    assert [[found.dataset.digest for found in of_run] for of_run in inputs] == [["0" * 32]] * len(records)


def test_every_failure_of_the_store_is_a_store_error(project: Path) -> None:
    store = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "broken")
    record = store.start_run("one", {})
    with pytest.raises(StoreError, match=r"the tracking store sqlite:///.* failed"):
        store.record("0" * 32).log_metrics({"a": 1.0})
    with closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        connection.execute("DROP TABLE metrics")
    with pytest.raises(StoreError, match="no such table"):
        record.log_metrics({"a": 1.0})
    shutil.rmtree(project / "mlruns")
    (project / "mlruns").write_text("in the way")
    with pytest.raises(StoreError):
        record.log_text("a", "a.txt")


GRID = ["-m", "model=fc", "params=tiny", "params.lr=0.001,0.002", "experiment=smoke", BASIC, "training.max_epochs=6"]


@pytest.mark.slow
def test_a_run_that_a_full_disk_stopped_can_be_continued(command, start, new_project) -> None:
    """The state's next write goes to a device that is always full."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    whole, full = new_project("whole"), new_project("full")
    long = [*GRID[:-1], "training.max_epochs=30", "training.patience=30"]
    process = start(*long, cwd=full, until="epoch 3:")
    (lock,) = full.glob("outputs/state/*/*/lock")
    state = lock.with_name("state.pt.tmp")
    while True:
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        if not os.path.lexists(state):  # else it was stopped in a write, and the link would become the state itself
            break
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.001)
    state.symlink_to("/dev/full")
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1
    assert "Traceback" not in output
    last = output.rstrip().splitlines()[-1]
    assert last.startswith("vae_sweep: fc-tiny-lr=0.001: ")
    assert re.search(r"state\.pt: .*No space left on device.* the same command continues", last)
    assert statuses(full)["fc-tiny-lr=0.001"] == "FAILED"
    assert statuses(full)["fc-tiny-lr=0.002"] == "FINISHED"  # one failing cell does not stop the others
    again = command(*long, cwd=full)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "fc-tiny-lr=0.001 continues after epoch" in again.stdout
    assert command(*long, cwd=whole).returncode == 0
    assert rows(full) == rows(whole)


@pytest.mark.slow
def test_damaged_files_are_replaced_and_the_numbers_stay(command, start, new_project) -> None:
    """The newest state is cut short and the prepared pictures are changed; the continued sweep does not show it."""
    whole, broken = new_project("whole"), new_project("broken")
    process = start(*GRID, cwd=broken, until="epoch 4:")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (newest,) = broken.glob("outputs/state/*/*/state.pt")
    newest.write_bytes(newest.read_bytes()[:1000])
    (images,) = broken.glob("data/cache/shapes-*/train.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 255
    images.write_bytes(content)
    done = command(*GRID, cwd=broken)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "state.pt: cannot be read" in done.stdout
    assert "train.npy does not have its checksum" in done.stdout
    assert command(*GRID, cwd=whole).returncode == 0
    assert rows(broken) == rows(whole)
    assert set(statuses(broken).values()) == {"FINISHED"}


def test_a_sweep_continues_after_its_project_was_moved(command, start, new_project, tmp_path: Path) -> None:
    before = new_project("before it moved")
    process = start(*GRID, cwd=before, until="lr=0.002 epoch 2:")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    first = sorted(before.glob("mlruns/*/artifacts/checkpoint.pt"))
    assert len(first) == 1
    before.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    done = command("moved", cwd=tmp_path, module="vae_sweep.relocate")
    assert done.returncode == 0
    assert re.fullmatch(rf"3 runs .*{re.escape(str(moved / 'mlruns'))}\n", done.stdout)
    client = MlflowClient(tracking_uri=f"sqlite:///{moved / 'mlflow.db'}")
    run_id = first[0].parent.parent.name
    assert "checkpoint.pt" in {artifact.path for artifact in client.list_artifacts(run_id)}
    after = tmp_path / "again"
    moved.rename(after)  # and once more, without the command
    again = command(*GRID, cwd=after)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "the artifacts of 3 runs" in again.stdout
    assert "fc-tiny-lr=0.001 is already finished" in again.stdout
    assert "fc-tiny-lr=0.002 continues after epoch" in again.stdout
    assert len(statuses(after)) == 3
    assert len(list(after.glob("mlruns/*/artifacts/checkpoint.pt"))) == 2
    assert not before.exists()
    assert not moved.exists()


def test_relocate_refuses_a_folder_without_a_store(real_command, tmp_path: Path) -> None:
    done = real_command(str(tmp_path), cwd=tmp_path, module="vae_sweep.relocate")
    assert done.returncode == 1
    assert done.stderr.startswith(f"vae_sweep: {tmp_path}: no mlflow.db here; give the folder")
    assert done.stderr.count("\n") == 1


def test_a_password_does_not_travel_with_the_results() -> None:
    uri = "postgresql://me:secret@host/runs"
    task = ["model=fc", f"tracking.uri={uri}"]
    config = OmegaConf.create(
        {
            "tracking": {"uri": uri},
            "hydra": {"overrides": {"task": task, "hydra": []}, "job": {"override_dirname": ",".join(task)}},
        }
    )
    _hide_password(config, masked(uri))
    assert "secret" not in OmegaConf.to_yaml(config)
    assert config.hydra.overrides.task == ["model=fc", 'tracking.uri="postgresql://me:***@host/runs"']
    assert config.hydra.overrides.hydra == ['tracking.uri="postgresql://me:***@host/runs"']  # for one in a file


def test_a_project_keeps_its_id_when_it_is_moved(tmp_path: Path) -> None:
    name = folders.project_id(tmp_path / "a")
    assert folders.project_id(tmp_path / "a") == name
    assert folders.project_id(tmp_path / "b") != name
    (tmp_path / "a").rename(tmp_path / "c")
    assert folders.project_id(tmp_path / "c") == name


def test_a_copied_project_leaves_the_runs_of_the_first_alone(project: Path, tmp_path: Path, monkeypatch) -> None:
    """On a store that both use; the runs in a store that was copied with the folder are the copy's."""
    monkeypatch.setattr(folders, "SETTLED", 0.0)
    shared, run_tags = tmp_path / "shared" / "mlflow.db", {"vae_sweep.place": folders.project_id(project)}
    shared.parent.mkdir()
    shutil.copy(project / "mlflow.db", shared)
    run_id = Store.open(f"sqlite:///{shared}", project, "any").start_run("on the server", run_tags).run_id
    own_id = Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "any").start_run("here", run_tags).run_id
    copy = shutil.copytree(project, tmp_path / "copy")
    name = folders.project_id(copy)
    assert name == folders.project_id(copy) != folders.project_id(project) == run_tags["vae_sweep.place"]
    copy.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert folders.project_id(moved) == name
    assert folders.project_id(shutil.copytree(moved, copy)) not in (name, run_tags["vae_sweep.place"])
    for uri, run, left in ((f"sqlite:///{shared}", run_id, True), (f"sqlite:///{moved / 'mlflow.db'}", own_id, False)):
        store = Store.open(uri, moved, "any")
        assert store.get(run).is_held_by_another(name) == left
        _close_orphaned_runs(store, moved)
        assert store.get(run).status == ("RUNNING" if left else "KILLED")
    assert Store.open(f"sqlite:///{project / 'mlflow.db'}", project, "any").get(own_id).status == "RUNNING"


def test_a_project_keeps_its_id_where_the_disk_gives_its_files_new_numbers(tmp_path: Path) -> None:
    name = folders.project_id(tmp_path)
    file = tmp_path / "outputs" / "state" / "place"
    _, inode, made = file.read_text().split()
    assert int(inode) == file.stat().st_ino
    file.write_text(f"{name} {int(inode) + 1} {made}")
    assert folders.project_id(tmp_path) == name  # since it is as old as it says


@pytest.mark.parametrize("text", ["0123456789abcdef" * 2, ""])
def test_a_project_id_of_an_earlier_version_stays(text: str, tmp_path: Path) -> None:
    """One whose file the power cut off is made again."""
    file = tmp_path / "outputs" / "state" / "place"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    name = folders.project_id(tmp_path)
    assert len(name) == 32
    assert name.startswith(text)
    assert file.read_text().split()[:2] == [name, str(file.stat().st_ino)]
    assert folders.project_id(tmp_path) == name


def test_a_run_that_another_project_folder_trains_is_its_own() -> None:
    run = StoredRun("1", "fc-p1", "RUNNING", {}, {}, {"vae_sweep.place": "a"})
    assert not run.is_held_by_another("a")
    assert run.is_held_by_another("b")
    assert not replace(run, status="KILLED").is_held_by_another("b")  # anybody may continue it


def test_processes_that_start_at_once_agree_on_the_project_id(tmp_path: Path, monkeypatch) -> None:
    """Several processes find no name and make one: as if each looked before any wrote."""
    barrier = threading.Barrier(8)
    exists = Path.exists

    def looked(path: Path, **options: bool) -> bool:
        found = exists(path, **options)
        if path.name == "place":
            barrier.wait(10)
        return found

    monkeypatch.setattr(Path, "exists", looked)
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda _: folders.project_id(tmp_path), range(8)))
    assert len(set(names)) == 1
    assert sorted(path.name for path in (tmp_path / "outputs" / "state").iterdir()) == ["place"]


@pytest.mark.slow
def test_two_sweeps_of_one_project_do_not_disturb_each_other(command, start, project: Path) -> None:
    """The second one opens the store, and closes dead runs, while the first one is at work."""
    first = start(
        "-m",
        "model=linear",
        "params=tiny",
        "seed=1,2",
        "experiment=smoke",
        BASIC,
        *ENDLESS,
        cwd=project,
        until="epoch 2:",
    )
    second = command(*GRID, cwd=project)
    assert second.returncode == 0, second.stdout + second.stderr
    assert first.poll() is None
    found = statuses(project)
    assert found["shapes: seed=1,2"] == "RUNNING"
    assert found["linear-tiny-s1"] == "RUNNING"
    assert found["fc-tiny-lr=0.001"] == found["fc-tiny-lr=0.002"] == "FINISHED"
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=60)
    assert set(statuses(project).values()) == {"FINISHED", "KILLED"}


def test_a_checkpoint_takes_the_room_of_one(command, project: Path) -> None:
    assert command("model=linear", "params=tiny", "experiment=smoke", cwd=project).returncode == 0
    (kept,), (stored, of_model) = (sorted(project.glob(f"{top}/*/**/checkpoint.pt")) for top in ("outputs", "mlruns"))
    assert kept.samefile(stored)
    assert kept.samefile(of_model)
    model, content = checkpoint.load(kept)
    checkpoint.save(kept, model, content["config"], content["facts"] | {"name": "another"})
    assert checkpoint.load(stored)[1]["facts"]["name"] == content["facts"]["name"]
    shutil.rmtree(kept.parent)
    assert checkpoint.load(stored)[1]["config"] == content["config"]


def test_on_a_disk_without_hard_links_there_are_two_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (tmp_path / "artifacts").mkdir()
    for file in (tmp_path / "a.pt", tmp_path / "artifacts" / "a.pt"):
        file.write_text("weights", encoding="utf-8")
    store = Store.__new__(Store)
    monkeypatch.setattr(store, "local_artifacts", lambda run_id: tmp_path / "artifacts", raising=False)
    monkeypatch.setattr(os, "link", refuse)
    store.share("run", tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "artifacts"]
    assert not (tmp_path / "a.pt").samefile(tmp_path / "artifacts" / "a.pt")
