"""Results kept beside a dataset: computed once for what they depend on, and never trusted when damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vae_sweep.base import cache, versions
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


def test_a_result_is_computed_once_for_what_it_depends_on(tmp_path: Path) -> None:
    compute = Counted()
    first = cache.cached(tmp_path, "line", ["digest", 8], ("value", "call"), compute)
    assert (
        cache.cached(tmp_path, "line", ["digest", 8], ("value", "call"), compute) == first == {"value": 0.1, "call": 1}
    )
    assert cache.cached(tmp_path, "line", ["digest", 9], ("value", "call"), compute)["call"] == 2
    assert cache.cached(tmp_path, "curve", ["digest", 8], ("value", "call"), compute)["call"] == 3


def test_every_cache_is_made_anew_when_the_version_of_the_metrics_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the closed form, of its metrics, and of the features of real images alike."""
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 4, 4), dtype=np.uint8)
    compute, features = Counted(), Features()

    def fill() -> None:
        cache.cached(tmp_path, "linear", ["digest", 8], ("value",), compute)
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


@pytest.mark.parametrize("damage", ["", "{", "[1]", '{"value": 0.1}'])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: str) -> None:
    compute = Counted()
    cache.cached(tmp_path, "line", 1, ("value", "call"), compute)
    (file,) = tmp_path.glob("line-*.json")
    file.write_text(damage)
    assert cache.cached(tmp_path, "line", 1, ("value", "call"), compute)["call"] == 2
    assert cache.cached(tmp_path, "line", 1, ("value", "call"), compute)["call"] == 2


def test_what_is_not_complete_is_not_kept(tmp_path: Path) -> None:
    compute = Counted()
    for call in (1, 2):
        assert cache.cached(tmp_path, "line", 1, ("value",), compute, lambda found: False)["call"] == call
    assert not list(tmp_path.glob("*.json"))


def test_a_folder_that_cannot_be_written_costs_only_the_time(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    compute = Counted()
    for call in (1, 2):
        assert cache.cached(tmp_path / "file", "line", 1, ("value",), compute)["call"] == call


def test_times_add_up_also_where_something_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_sweep.base.timing.time.perf_counter", iter([10.0, 12.5, 20.0, 20.25]).__next__)
    seconds = {"state": 1.0}
    with timed(seconds, "state"):
        pass
    with pytest.raises(ValueError, match="no"), timed(seconds, "metrics"):
        raise ValueError("no")
    assert seconds == {"state": 3.5, "metrics": 0.25}
    assert listed(seconds) == "state 3.5, metrics 0.2"
