"""Who lives is known also where file locks do not reach, and one look that fails ends nothing."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from running import ENDLESS, statuses
from vae_sweep.base import locks as module
from vae_sweep.base.errors import UserError
from vae_sweep.base.locks import (
    HEARTBEAT_WITHIN,
    heartbeat,
    held,
    hold_lock,
    is_held,
    is_locked,
    one_at_a_time,
    owner_of,
    this_process,
    warn_without_locks,
)
from vae_sweep.sweeps import watch
from vae_sweep.sweeps.watch import _SweepOwner

HOLD = (
    "import sys, time; from pathlib import Path; from vae_sweep.base import locks; locks.HEARTBEAT_EVERY = 0.2\n"
    "with locks.hold_lock(Path(sys.argv[1]), 'it'): print('held', flush=True); time.sleep(100)"
)


@pytest.fixture
def holder(tmp_path: Path, monkeypatch) -> Iterator[subprocess.Popen]:
    """Another process, which holds ``tmp_path``; its heart beats quickly."""
    monkeypatch.setattr(module, "HEARTBEAT_WITHIN", 2.0)
    line = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def unlock(folder: Path) -> None:
    """As on a disk whose locks do not reach: the lock is held, and can be taken all the same."""
    (folder / "lock").unlink()
    (folder / "lock").touch()
    assert not is_locked(folder)


def from_elsewhere(folder: Path) -> None:
    (folder / "owner.json").write_text(json.dumps({"host": "another", "pid": 1}))


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_heartbeat_protects_where_file_locks_do_not_work(
    elsewhere: bool, holder: subprocess.Popen, tmp_path: Path
) -> None:
    unlock(tmp_path)
    if elsewhere:
        from_elsewhere(tmp_path)
    assert is_held(tmp_path)
    with pytest.raises(UserError, match=r"^it is .*already"), hold_lock(tmp_path, "it"):
        pass
    assert is_held(tmp_path)  # who was refused has taken nothing away
    holder.kill()
    holder.wait()
    assert not is_held(tmp_path)
    with hold_lock(tmp_path, "it"):
        assert owner_of(tmp_path) == this_process()
    assert owner_of(tmp_path) is heartbeat(tmp_path) is None


def test_a_dead_process_holds_no_lock(holder: subprocess.Popen, tmp_path: Path, monkeypatch) -> None:
    holder.kill()
    holder.wait()
    monkeypatch.setattr(module, "HEARTBEAT_WITHIN", 1000.0)
    assert not is_held(tmp_path)
    from_elsewhere(tmp_path)
    (tmp_path / "heartbeat").write_text(str(time.time() - 3600))
    assert not is_held(tmp_path)  # nor one of another machine that has been silent for long


def test_processes_of_other_machines_are_watched_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three that died take as long as one, by a clock that only waiting moves."""
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: clock.append(clock.pop() + seconds))
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "owner.json").write_text(json.dumps({"host": "elsewhere", "pid": 1}))
        (folder / "heartbeat").write_text(str(time.time()))
    assert held(folders) == set()
    assert clock[0] == pytest.approx(HEARTBEAT_WITHIN, abs=0.2)


def test_a_disk_without_file_locks_is_warned_about(holder: subprocess.Popen, tmp_path: Path, caplog) -> None:
    warn_without_locks(tmp_path)
    assert caplog.text == ""
    unlock(tmp_path)
    warn_without_locks(tmp_path)
    assert "file locks do not work on this disk" in caplog.text


@pytest.mark.parametrize(
    "error", [NotImplementedError("no flock"), OSError(38, "not implemented"), OSError(37, "no locks")]
)
def test_a_disk_that_refuses_file_locks_is_used_without_them(error: Exception, tmp_path: Path, monkeypatch) -> None:
    class Refusing(module.FileLock):
        def acquire(self, *arguments: object, **named: object) -> None:
            raise error

    monkeypatch.setattr(module, "FileLock", Refusing)
    with hold_lock(tmp_path, "it"):
        assert owner_of(tmp_path) == this_process()
        assert not is_locked(tmp_path)
    with one_at_a_time(tmp_path / "file"):
        pass


NO_FLOCK = """
import errno, fcntl
def flock(*_): raise OSError(errno.ENOSYS, "not implemented")
fcntl.flock = flock
"""


def test_a_disk_without_flock_is_used_by_heartbeats_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """filelock would write a marker instead of a lock; who is killed on another machine would hold for ever."""
    pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    folder = tmp_path / "run"
    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / "sitecustomize.py").write_text(NO_FLOCK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # for a process that looks
    monkeypatch.setattr(module, "HEARTBEAT_EVERY", 0.1)
    monkeypatch.setattr(module, "HEARTBEAT_WITHIN", 1.0)
    with hold_lock(folder, "it"):
        assert {file.name for file in folder.iterdir()} == {"lock", "heartbeat", "owner.json"}
        assert (folder / "lock").read_bytes() == b""
        assert not is_locked(folder)
        assert is_held(folder)
        with pytest.raises(UserError, match=r"^it is .*already"), hold_lock(folder, "it"):
            pass
        warn_without_locks(folder)
        assert "file locks do not work on this disk" in caplog.text
    (folder / "lock").write_text("1\nanother\n")  # a marker of an earlier version, whose process is dead
    from_elsewhere(folder)
    (folder / "heartbeat").write_text(str(time.time() - 60))
    assert not is_held(folder)
    with hold_lock(folder, "it"), one_at_a_time(tmp_path / "file"):
        assert owner_of(folder) == this_process()
        assert (tmp_path / "file").read_bytes() == b""


def test_a_worker_stops_only_after_several_failed_checks_of_its_sweep(
    holder: subprocess.Popen, tmp_path: Path, monkeypatch
) -> None:
    owner = owner_of(tmp_path)
    assert owner is not None
    first = _SweepOwner(tmp_path, owner)
    unlock(tmp_path)
    for _ in range(5):
        assert not first.is_lost()  # no lock, but a heartbeat
    for name in ("owner.json", "heartbeat"):
        (tmp_path / name).rename(tmp_path / f"{name}.kept")
        (tmp_path / name).mkdir()  # reading it fails
        assert not any(first.is_lost() for _ in range(10))
        (tmp_path / name).rmdir()
        (tmp_path / f"{name}.kept").rename(tmp_path / name)
    (tmp_path / "owner.json").rename(tmp_path / "kept")
    assert [first.is_lost() for _ in range(watch.LOOKS)] == [False] * (watch.LOOKS - 1) + [True]
    (tmp_path / "kept").rename(tmp_path / "owner.json")
    assert not first.is_lost()
    holder.kill()  # not reaped yet: only its heartbeat tells
    first.is_lost()
    monkeypatch.setattr(first, "_silence", 0.3)
    assert not first.is_lost()
    time.sleep(0.4)
    assert first.is_lost()
    monkeypatch.setattr(first, "_silence", 1000.0)
    assert not first.is_lost()
    holder.wait()
    assert [first.is_lost() for _ in range(watch.LOOKS)] == [False] * (watch.LOOKS - 1) + [True]
    (tmp_path / "owner.json").write_text(json.dumps({"host": "another", "pid": 1}))
    assert _SweepOwner(tmp_path, {"host": "another", "pid": 1})._silence == watch.SILENT_ELSEWHERE


@pytest.mark.slow
def test_workers_go_on_where_file_locks_do_not_work(start, project: Path) -> None:
    process = start(
        *("-m", "model=linear", "params=tiny", "seed=0,1", "experiment=smoke", "dataset.n_train=100", *ENDLESS),
        "hydra.launcher.n_jobs=2",
        cwd=project,
        until="epoch 3:",
    )
    (lock,) = project.glob("outputs/state/*/lock")
    unlock(lock.parent)
    until = time.monotonic() + 6
    for line in process.stdout:
        assert "stopping: the sweep has lost the process that started it" not in line
        if time.monotonic() > until:
            break
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert set(statuses(project).values()) == {"KILLED"}
