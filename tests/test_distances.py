"""Distances between sets of features against torch-fidelity, prdc, closed forms and plain loops."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import prdc
import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from vae_sweep.datasets.base import ImageDataset, Split
from vae_sweep.datasets.permuted import PERMUTED, unshuffle
from vae_sweep.metrics import distances as module
from vae_sweep.metrics import generated
from vae_sweep.metrics.distances import RealFeatures, distances, measured, real_features
from vae_sweep.metrics.features import Extractor
from vae_sweep.metrics.subject import Bounds, Settings, Subject
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.training.evaluation import NOISE_SEED

KEYS = {"fd", "kd", "kd_sd", "precision", "recall", "density", "coverage"}
N_FEATURES = 20


class Tiny(FeatureExtractorBase):
    """A random projection of 4 x 4 means: a network small enough for tests."""

    def __init__(self, name: str, features_list: list[str], **_: object):
        super().__init__(name, features_list)
        source = torch.Generator().manual_seed(0)
        self.weight = torch.randn(3 * 16, N_FEATURES, generator=source)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("all",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "all"

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        means = torch.nn.functional.avg_pool2d(x.float() / 64, x.shape[-1] // 4)
        return ((means.flatten(1) @ self.weight).relu(),)


torch_fidelity.register_feature_extractor("tiny", Tiny)


class Stack(Dataset):
    def __init__(self, images: np.ndarray):
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        return self.images[i]


def extractor(calls: list[int] | None = None) -> Extractor:
    network = Tiny("tiny", ["all"])

    def run(images: torch.Tensor) -> torch.Tensor:
        if calls is not None:
            calls.append(len(images))
        return network(images)[0]

    return Extractor("tiny", "tiny_8px", "fd", "kd", "0123456789abcdef", N_FEATURES, "no", torch.device("cpu"), run)


def pictures(n: int, seed: int, lightest: int = 256) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, lightest, (n, 3, 8, 8)).astype(np.uint8)


def points(n: int, seed: int, f: int = 6, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((n, f)) * scale + shift).astype(np.float32)


def with_moments(n: int, mean: list[float], covariance: list[list[float]], seed: int) -> np.ndarray:
    """Points whose sample mean and 1/(n - 1) covariance are exactly these."""
    raw = np.random.default_rng(seed).standard_normal((n, len(mean)))
    raw -= raw.mean(axis=0)
    white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return (white @ np.linalg.cholesky(np.array(covariance)).T + mean).astype(np.float32)


def test_equal_to_torch_fidelity_on_the_same_images_and_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vae_sweep.metrics.distances._SUBSET_IMAGES", 100)  # fewer than there are: several subsets
    real, fake, network = pictures(150, 0), pictures(130, 1, 200), extractor()
    theirs = torch_fidelity.calculate_metrics(
        input1=Stack(fake),
        input2=Stack(real),
        feature_extractor="tiny",
        fid=True,
        kid=True,
        kid_subsets=20,
        kid_subset_size=100,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    found = distances(measured(network(real)), network(fake))
    assert set(found) == KEYS
    assert found["fd"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    assert found["kd"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)
    assert found["kd_sd"] == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-4)
    shorter = torch_fidelity.calculate_metrics(  # precision and recall are of equal counts here
        input1=Stack(fake),
        input2=Stack(real[:130]),
        feature_extractor="tiny",
        prc=True,
        prc_neighborhood=5,
        cuda=False,
        cache=False,
        save_cpu_ram=True,
        verbose=False,
    )
    assert 0 < found["precision"] == pytest.approx(shorter["precision"], abs=1e-6)
    assert 0 < found["recall"] == pytest.approx(shorter["recall"], abs=1e-6)


def test_frechet_distance_of_two_gaussians() -> None:
    """In two dimensions tr (S1 S2)^(1/2) = sqrt(tr S1 S2 + 2 sqrt(det S1 det S2)): here S1 S2 != S2 S1."""
    s1, s2 = [[2.0, 0.6], [0.6, 1.0]], [[1.0, -0.5], [-0.5, 3.0]]
    real, fake = with_moments(300, [0.0, 0.0], s1, 0), with_moments(200, [1.0, -2.0], s2, 1)
    trace = np.trace(np.array(s1) @ s2)
    root = math.sqrt(trace + 2 * math.sqrt(np.linalg.det(s1) * np.linalg.det(s2)))
    assert distances(measured(real), fake)["fd"] == pytest.approx(5 + 3 + 4 - 2 * root, rel=1e-5)


def test_frechet_distance_with_fewer_images_than_features() -> None:
    """tr (S1 S2)^(1/2) is the sum of singular values of X Y^T, X and Y centred and scaled: no root of a matrix."""
    real, fake = points(60, 0, f=150), points(70, 1, f=150, scale=1.3, shift=0.2)
    x, y = [(p.astype(float) - p.mean(axis=0, dtype=float)) / math.sqrt(len(p) - 1) for p in (real, fake)]
    gap = ((real.mean(axis=0, dtype=float) - fake.mean(axis=0, dtype=float)) ** 2).sum()
    expected = gap + (x**2).sum() + (y**2).sum() - 2 * np.linalg.svd(x @ y.T, compute_uv=False).sum()
    assert distances(measured(real), fake)["fd"] == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_by_loops() -> None:
    """With all images in every subset: the unbiased squared MMD (Gretton et al. 2012, eq. 3), written out."""
    real, fake, n = points(60, 0), points(60, 1, shift=0.3), 60

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (float(a.astype(float) @ b) / 6 + 1) ** 3

    pairs = [(i, j) for i in range(n) for j in range(n)]
    within = sum(kernel(x[i], x[j]) for x in (real, fake) for i, j in pairs if i != j) / (n * (n - 1))
    across = sum(kernel(real[i], fake[j]) for i, j in pairs) / n**2
    found = distances(measured(real), fake)
    assert found["kd"] == pytest.approx(within - 2 * across, rel=1e-4)
    assert "kd_sd" not in found  # all subsets would be the same


def test_kernel_distance_may_be_negative() -> None:
    """Over many pairs of samples of one distribution it is 0 on average, so about half are below."""
    found = [distances(measured(points(80, i)), points(80, 100 + i))["kd"] for i in range(12)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(12)


def by_loops(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return math.dist(a.astype(float), b.astype(float))

    def radius(x: np.ndarray, i: int) -> float:
        return sorted(distance(x[i], x[j]) for j in range(len(x)) if j != i)[k - 1]

    real_radii, fake_radii = ([radius(x, i) for i in range(len(x))] for x in (real, fake))
    n, m = range(len(real)), range(len(fake))
    near = {(i, j): distance(real[i], fake[j]) for i in n for j in m}
    return {
        "precision": sum(any(near[i, j] < real_radii[i] for i in n) for j in m) / len(m),
        "recall": sum(any(near[i, j] < fake_radii[j] for j in m) for i in n) / len(n),
        "density": sum(near[i, j] < real_radii[i] for i in n for j in m) / (k * len(m)),
        "coverage": sum(any(near[i, j] < real_radii[i] for j in m) for i in n) / len(n),
    }


@pytest.mark.parametrize(("n", "m"), [(60, 60), (60, 75), (75, 60)])
def test_neighbourhoods_by_loops_and_by_prdc(n: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts that differ are cut to the smaller one; blocks have no seams."""
    monkeypatch.setattr(module, "_BLOCK", 7)
    real, fake = points(n, 0), points(m, 1, scale=0.8, shift=0.3)
    found = distances(measured(real), fake)
    expected = by_loops(real[:60], fake[:60])
    theirs = prdc.compute_prdc(real[:60], fake[:60], nearest_k=5)
    assert len({*expected.values(), 0, 1}) == 6  # all differ, and none is at an end
    for key, value in expected.items():
        assert found[key] == pytest.approx(value)
        assert found[key] == pytest.approx(theirs[key])


def test_equal_sets() -> None:
    real = points(90, 0, shift=50.0)
    found = distances(measured(real), real.copy())
    assert found["fd"] == pytest.approx(0, abs=1e-4)
    assert found == pytest.approx({**found, "precision": 1, "recall": 1, "density": 1, "coverage": 1})


def test_a_collapsed_model() -> None:
    """One image many times is precise, recalls nothing, and covers the neighbourhoods that hold it."""
    real = points(80, 0, shift=3.0)
    only = real[0] + np.float32(0.01)
    found = distances(measured(real), np.repeat(only[None], 80, axis=0))
    holding = sum(math.dist(x, only) < sorted(math.dist(x, y) for y in real)[5] for x in real)
    assert found["precision"] == 1
    assert found["recall"] == 0
    assert found["density"] == pytest.approx(holding / 5)
    assert found["coverage"] == pytest.approx(holding / 80)


def test_what_does_not_fit_is_refused() -> None:
    real = measured(points(60, 0))
    for fake in (points(60, 1, f=5), points(60, 1).astype(np.float64), points(60, 1)[0]):
        with pytest.raises(ValueError, match="expected float32 features"):
            distances(real, fake)


def test_with_few_images_nothing_is_measured(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    real = real_features(extractor(), pictures(200, 0), pictures(49, 1), 5000, tmp_path, "digest")
    assert "they need 50 images on each side, not 49" in caplog.text
    assert real.features.shape == (49, N_FEATURES)
    assert real.floor == real.compare(extractor()(pictures(200, 2))) == {}
    assert distances(measured(points(60, 0)), points(49, 1)) == {}
    assert list(tmp_path.iterdir()) == []


def sorted_by_class(n: int) -> np.ndarray:
    """Image i of ten classes, each as bright as its number; all differ."""
    images = np.zeros((n, 3, 8, 8), np.uint8)
    images[:] = (np.arange(n) * 10 // n * 20)[:, None, None, None]
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.arange(n) % 250, np.arange(n) // 250
    return images


def test_images_are_drawn_from_all_classes(tmp_path: Path) -> None:
    train, test, network = sorted_by_class(900), sorted_by_class(400), extractor()
    real = real_features(network, train, test, 150, tmp_path, "digest")
    everything = network(test)
    found = [np.flatnonzero((everything == row).all(axis=1)) for row in real.features]
    chosen = np.array([place[0] for place in found])
    assert [len(place) for place in found] == [1] * 150  # each is a test image
    assert len(set(chosen)) == 150
    assert np.bincount(chosen // 40, minlength=10).min() >= 5  # 15 are expected
    assert len(real_features(network, train, test, 5000, tmp_path, "digest").features) == 400


def test_the_floor_is_that_of_training_images(tmp_path: Path) -> None:
    """About 0 where they are of the test images' kind; else what as many images of the other kind are away."""
    test, alike, dark = pictures(300, 1), pictures(300, 0), pictures(300, 0, 200)
    real = real_features(extractor(), alike, test, 300, tmp_path, "alike")
    other = real_features(extractor(), dark, test, 300, tmp_path, "dark")
    assert set(real.floor) == KEYS - {"kd_sd"}
    assert real.floor["fd"] < 0.05 * other.floor["fd"]
    shuffled = real.compare(extractor()(dark[::-1]))
    assert other.floor["fd"] == pytest.approx(shuffled["fd"], rel=1e-5)  # the order has no part in these
    assert other.floor["precision"] == pytest.approx(shuffled["precision"])


def assert_equal(a: RealFeatures, b: RealFeatures) -> None:
    for key in ("features", "mean", "covariance", "radii"):
        assert getattr(a, key).tobytes() == getattr(b, key).tobytes()
        assert getattr(a, key).dtype == getattr(b, key).dtype
    assert a.floor == b.floor


def test_it_is_computed_once(tmp_path: Path) -> None:
    calls: list[int] = []
    arguments = extractor(calls), pictures(90, 0), pictures(70, 1), 60, tmp_path, "digest"
    first = real_features(*arguments)
    assert sum(calls) == 120
    second = real_features(*arguments)
    assert sum(calls) == 120
    assert_equal(first, second)
    fake = extractor()(pictures(60, 2))
    assert first.compare(fake) == second.compare(fake)
    for changed in (
        (replace(arguments[0], sha256="f" * 16), *arguments[1:]),
        (*arguments[:3], 61, *arguments[4:]),
        (*arguments[:5], "other"),
    ):
        before = sum(calls)
        real_features(*changed)
        assert sum(calls) > before
    assert {path.suffix for path in tmp_path.iterdir()} == {".npz", ".lock"}


def test_a_damaged_file_is_computed_again(tmp_path: Path) -> None:
    arguments = extractor(), pictures(90, 0), pictures(70, 1), 60, tmp_path, "digest"
    first = real_features(*arguments)
    (path,) = tmp_path.glob("*.npz")
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    for content in (b"", b"no archive", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        assert_equal(first, real_features(*arguments))
        assert path.read_bytes() == whole
    for wrong in ({"format": -1}, {"radii": arrays["radii"][:-1]}, {"values": arrays["values"][:-1]}):
        np.savez(path, **(arrays | wrong))
        assert_equal(first, real_features(*arguments))
        assert path.read_bytes() == whole


def test_of_several_that_ask_at_once_one_computes(tmp_path: Path) -> None:
    calls: list[int] = []
    arguments = extractor(calls), pictures(90, 0), pictures(70, 1), 60, tmp_path, "digest"
    threads = [threading.Thread(target=real_features, args=arguments) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(calls) == 120


class Pixels(VAE):
    """Each latent is a value of the image."""

    def __init__(self) -> None:
        super().__init__((3, 8, 8), 192)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(x.flatten(1), torch.full((len(x), 192), -20.0))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return z.unflatten(1, self.image_shape)


@pytest.mark.parametrize("facts", [{}, {PERMUTED: True}])
def test_which_images_are_compared(facts: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconstructions without error, midpoints that are means of pixels, and samples decoded by hand."""
    monkeypatch.setattr(generated, "_extractor", lambda *_: extractor())
    train, test = pictures(80, 0), 2 * pictures(60, 1, 64)  # even values, whose means need no rounding
    splits = {"train": Split(train, np.zeros(80, int)), "test": Split(test, np.zeros(60, int))}
    data = ImageDataset("made", splits, (3, 8, 8), f"digest{len(facts)}", facts, tmp_path)
    settings = Settings(0, 0, 0, 0, "tiny", 60, None)
    subject = Subject(Pixels(), data, settings, 7, Bounds({}, 0.5, 0.0))
    found = generated.distances(subject)

    real = real_features(extractor(), *(unshuffle(x, facts) for x in (train, test)), 60, tmp_path / "own", "digest")
    shuffled = test[np.random.default_rng(NOISE_SEED).permutation(60)].astype(float)
    between = (shuffled + np.roll(shuffled, 1, axis=0)) / 2
    drawn = np.random.default_rng([NOISE_SEED, 7]).standard_normal((60, 192)).reshape(60, 3, 8, 8)
    for part, images in (
        ("_reconstructions", shuffled),
        ("_midpoints", between),
        ("", np.rint(255 * drawn.clip(0, 1).astype(np.float32))),
    ):
        expected = distances(real, extractor()(unshuffle(images.astype(np.uint8), facts)))
        assert set(expected) == {"fd", "kd", "precision", "recall", "density", "coverage"}
        for key, value in expected.items():
            assert found[f"{key}_tiny_8px_60{part}"] == pytest.approx(value, rel=0.02, abs=2e-3), (key, part)
    assert found["fd_tiny_8px_60_reconstructions"] == pytest.approx(0, abs=1e-3)
    assert found["precision_tiny_8px_60_reconstructions"] == found["recall_tiny_8px_60_reconstructions"] == 1
    assert found["fd_tiny_8px_60_floor"] == pytest.approx(real.floor["fd"])
