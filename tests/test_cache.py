"""Results kept on disk: computed once for what they depend on, never half written, replaced when damaged."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slow_result import compute_slowly
from vae_sweep.base import cache, locks, versions
from vae_sweep.base.cache import CannotLock, cached, cached_file, once, read_arrays, write_arrays
from vae_sweep.base.files import atomic_write
from vae_sweep.base.timing import listed, timed
from vae_sweep.metrics import distances, linear


class Counted:
    """A computation that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"value": 0.1, "call": self.calls}


class Features:
    """A network that gives the pixels."""

    label, sha256, n_features = "pixels", "0" * 64, 16

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        return images.reshape(len(images), -1).astype(np.float32)


def fail_half_way(path: Path, error: type[BaseException]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fail_half_way(path, error)
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]
    (tmp_path / "file.txt.tmp").write_text("of a killed process")
    with atomic_write(path) as temporary:
        temporary.write_text("second")
    assert path.read_text() == "second"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_writers_with_a_suffix_of_their_own_do_not_disturb_each_other(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        with atomic_write(tmp_path / "file", suffix=f".{number}") as temporary:
            temporary.write_text(str(number) * 1000)
            barrier.wait(10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    content = (tmp_path / "file").read_text()
    assert len(content) == 1000
    assert len(set(content)) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_result_is_computed_once_for_what_it_depends_on(tmp_path: Path) -> None:
    compute = Counted()
    first = cached(tmp_path, "line", ["digest", 8], ("value", "call"), compute)
    assert cached(tmp_path, "line", ["digest", 8], ("value", "call"), compute) == first == {"value": 0.1, "call": 1}
    assert cached(tmp_path, "line", ["digest", 9], ("value", "call"), compute)["call"] == 2
    assert cached(tmp_path, "curve", ["digest", 8], ("value", "call"), compute)["call"] == 3


def test_of_several_processes_one_computes(tmp_path: Path) -> None:
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(compute_slowly, [str(tmp_path)] * 3))
    assert (tmp_path / "log").read_text() == "computed\n"
    assert len({result["pid"] for result in found}) == 1


def test_every_cache_is_made_anew_when_the_version_of_the_metrics_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the closed form, of its metrics, and of the features of real images alike."""
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    compute, features = Counted(), Features()

    def fill() -> None:
        cached(tmp_path, "linear", ["digest", 8], ("value",), compute)
        linear.cached_spectrum(images, "digest", tmp_path)
        distances.real_features(features, images, images, 60, tmp_path, "digest")

    for calls in (1, 1, 2):
        if calls == 2:
            for module in (cache, linear, distances):
                monkeypatch.setattr(module, "METRICS_VERSION", versions.METRICS_VERSION + 1)
        fill()
        assert compute.calls == calls
        assert features.calls == 2 * calls  # test images, and training images for the floor
        assert len(list(tmp_path.glob("spectrum-*.npz"))) == calls


@pytest.mark.parametrize("damage", ["", "{", "[1]", "1", '{"value": 0.1}'])
def test_a_damaged_file_is_replaced_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    compute = Counted()
    cached(tmp_path, "line", 1, ("value", "call"), compute)
    (file,) = tmp_path.glob("line-*.json")
    assert caplog.text == ""
    file.write_text(damage)
    assert cached(tmp_path, "line", 1, ("value", "call"), compute)["call"] == 2
    assert cached(tmp_path, "line", 1, ("value", "call"), compute)["call"] == 2
    assert [record.levelno for record in caplog.records if str(file) in record.message] == [logging.WARNING]


def test_arrays_of_another_version_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz.tmp"  # whatever it is called
    write_arrays(path, 1, a=np.arange(3), b=2.5)
    found = read_arrays(path, 1)
    np.testing.assert_array_equal(found["a"], [0, 1, 2])
    assert float(found["b"]) == 2.5
    with pytest.raises(ValueError, match="format 1"):
        read_arrays(path, 2)


def test_what_is_not_complete_is_not_kept(tmp_path: Path) -> None:
    compute = Counted()
    for call in (1, 2):
        assert cached(tmp_path, "line", 1, ("value",), compute, lambda found: False)["call"] == call
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_that_cannot_be_written_costs_only_the_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    compute = Counted()
    for call in (1, 2):
        assert cached(tmp_path / "file", "line", 1, ("value",), compute)["call"] == call
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    assert linear.cached_spectrum(images, "digest", tmp_path / "file").n_images == 60
    assert len(distances.real_features(Features(), images, images, 60, tmp_path / "file", "digest").features) == 60
    with pytest.raises(CannotLock):  # for what must be written
        once(tmp_path / "file" / "x", Path.read_text, lambda: pytest.fail("made"))


def test_a_full_disk_costs_only_the_time(tmp_path: Path) -> None:
    def write(path: Path, result: str) -> None:
        path.write_text(result[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    assert cached_file(tmp_path / "x", Path.read_text, lambda: "result", write) == "result"
    assert [file.name for file in tmp_path.iterdir()] == ["x.lock"]


@pytest.mark.parametrize("error", [NotImplementedError("no flock"), OSError(errno.ENOSYS, "not implemented")])
def test_a_disk_without_locks_is_used_without(error: Exception, tmp_path: Path, monkeypatch) -> None:
    class Refusing(locks.FileLock):
        def acquire(self, *arguments: object, **named: object) -> None:
            raise error

    monkeypatch.setattr(locks, "FileLock", Refusing)
    compute = Counted()
    for _ in range(2):
        assert cached(tmp_path, "line", 1, ("value",), compute)["call"] == 1


def test_a_disk_without_flock_keeps_results_and_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "not implemented")

    def compute() -> dict[str, Any]:
        (lock,) = tmp_path.glob("*.lock")
        assert lock.read_bytes() == b""  # a marker of filelock holds a pid, and others would wait for it
        return {"value": 1}

    monkeypatch.setattr("fcntl.flock", refuse)
    assert cached(tmp_path, "line", 1, ("value",), compute) == {"value": 1}
    assert cached(tmp_path, "line", 1, ("value",), dict) == {"value": 1}


def test_times_add_up_also_where_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_sweep.base.timing.time.perf_counter", iter([10.0, 12.5, 20.0, 20.25]).__next__)
    seconds = {"state": 1.0}
    with timed(seconds, "state"):
        pass
    with pytest.raises(ValueError, match="no"), timed(seconds, "metrics"):
        raise ValueError("no")
    assert seconds == {"state": 3.5, "metrics": 0.25}
    assert listed(seconds) == "state 3.5, metrics 0.2"
