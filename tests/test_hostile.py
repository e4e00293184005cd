"""Broken and hostile files, through the command and one by one: nothing is executed, nothing is written outside."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10

import bad_files as bad
from bad_inputs import CHECKPOINTS, DATA, RUNS, TABLE, unchanged
from vae_sweep import generate
from vae_sweep.base import system
from vae_sweep.base.errors import UserError
from vae_sweep.datasets import load
from vae_sweep.datasets.cifar10 import Cifar10
from vae_sweep.datasets.folder import Folder
from vae_sweep.datasets.images import Fit
from vae_sweep.datasets.shapes import Shapes
from vae_sweep.training import checkpoint, state


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project folder, beside which nothing may appear."""
    project = tmp_path / "project"
    project.mkdir()
    return project


@pytest.mark.parametrize("case", DATA | CHECKPOINTS | RUNS)
def test_a_bad_file_or_run_ends_in_one_clear_line(case: str, command, tmp_path: Path) -> None:
    print(TABLE[case].run(command, tmp_path))


def test_a_hostile_archive_with_the_official_checksum_writes_nothing_outside(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the checksum were no protection: members are read by name, wherever they say that they belong."""
    bad.hostile_archive(root)
    archive = root / "data" / CIFAR10.filename
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with unchanged(root.parent), pytest.raises(UserError, match=r"data_batch_1 is damaged|is not the official archive"):
        load(Cifar10(root=str(root / "data"), download=False), root / "cache")
    with tarfile.open(archive, "w:gz") as other:
        other.addfile(tarfile.TarInfo("elsewhere"))
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(UserError, match=r"is not the official archive .*data_batch_1.* not found") as error:
        load(Cifar10(root=str(root / "data"), download=False), root / "cache")
    assert "\n" not in str(error.value)
    assert [path.name for path in (root / "data").iterdir()] == [CIFAR10.filename]


def test_only_decoders_of_images_are_used(root: Path) -> None:
    """Some of Pillow's formats run other programs; whatever the file is called, they are not used."""
    bad.file("0.png", bad.POSTSCRIPT)(root)
    Image.new("RGB", (8, 8)).save(root / "1.png", "eps")
    for name in ("0.png", "1.png"):
        with unchanged(root.parent), pytest.raises(Image.UnidentifiedImageError):
            Fit(8)(root / name)


def test_a_broken_image_among_many_is_left_out_whatever_is_wrong_with_it(root: Path) -> None:
    contents = [b"", b"hello", bad.POSTSCRIPT, bad.PROGRAM, bad.zipped(), bad.bomb_png(), bad.good_png(64)[:999]]
    for content in contents:
        bad.one_of_many(content)(root)
        source = Folder(path=str(root / "pictures"), image_size=8)
        with unchanged(root.parent):
            built = source.build()
        assert built.facts["skipped"] == 1
        assert sum(map(len, built.splits.values())) == 29


@pytest.mark.parametrize("content", [b"[", b"{}", b"[]" * 9, b"[" * 100_000, b"\xff", b'{"version": 1}', b"null"])
def test_a_garbled_cache_is_built_again(root: Path, content: bytes) -> None:
    source = Shapes(n_train=20, n_test=5, image_size=8)
    before = load(source, root)
    (before.cache_dir / "meta.json").write_bytes(content)
    assert load(source, root).digest == before.digest


def test_a_pickled_array_in_the_cache_is_not_executed(root: Path) -> None:
    source = Shapes(n_train=20, n_test=5, image_size=8)
    before = load(source, root)
    array = before.cache_dir / "train-labels.npy"
    with array.open("wb") as file:
        np.save(file, np.array([bad.Bomb(root)], dtype=object), allow_pickle=True)
    meta = json.loads((before.cache_dir / "meta.json").read_text())
    meta["sha256"][array.name] = hashlib.sha256(array.read_bytes()).hexdigest()
    (before.cache_dir / "meta.json").write_text(json.dumps(meta))
    with unchanged(root.parent):
        assert load(source, root).digest == before.digest


@pytest.mark.parametrize("read", [checkpoint.load, lambda path: state.load(path.parent)])
def test_a_checkpoint_that_calls_something_is_refused_without_calling_it(root: Path, read) -> None:
    for prepare in (bad.bomb_in_checkpoint, bad.bare_pickle, legacy_archive):
        prepare(root)
        (root / "state.pt").write_bytes((root / "checkpoint.pt").read_bytes())
        with unchanged(root.parent):
            try:
                found = read(root / "checkpoint.pt")
            except UserError:
                found = None
        assert found is None


def legacy_archive(root: Path) -> None:
    """A zip in PyTorch's layout whose pickle calls something."""
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"format": checkpoint.FORMAT, "x": bad.Bomb(root)}))
        archive.writestr("archive/version", "3\n")
    (root / "checkpoint.pt").write_bytes(found.getvalue())


def test_a_checkpoint_takes_no_more_memory_than_its_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad.saved(latent_dim=10**9)(root)
    made = []
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: made.append(layer.weight.device.type))
    with pytest.raises(UserError, match="does not fit its architecture"):
        checkpoint.load(root / "checkpoint.pt")
    assert set(made) == {"meta"}


def test_reading_a_checkpoint_of_another_folder_writes_nothing_there(root: Path) -> None:
    data = {"_target_": "vae_sweep.datasets.shapes.Shapes", "name": "shapes", "n_train": 20, "image_size": 4}
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    paths = {"root": str(elsewhere), "data": str(elsewhere / "data")}
    bad.saved(config={"model": bad.LINEAR, "dataset": data | {"n_test": 5}, "paths": paths})(root)
    options = generate.Options("checkpoint.pt", what="reconstructions", n=2)
    (picture,) = generate.generate(options, root)
    assert picture.is_relative_to(root)
    assert list(elsewhere.iterdir()) == []
    bad.saved(config={"model": bad.LINEAR, "dataset": data | {"image_size": 8}, "paths": paths})(root)
    with pytest.raises(UserError, match=r"takes images of \(3, 4, 4\), and those of shapes are now \(3, 8, 8\)"):
        generate.generate(options, root)


def test_the_memory_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.total_memory() > 1e8
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "other").write_text("max\n")
    monkeypatch.setattr(system, "LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "other"), "/nowhere"))
    assert system.total_memory() == 1000
    system.check_memory(1000, "it would", "take less")
    with pytest.raises(UserError, match=r"^it would need 1\.5 KB of memory, and this machine has 1 KB; take less$"):
        system.check_memory(1500, "it would", "take less")


def test_a_home_folder_that_nobody_has_is_named() -> None:
    with pytest.raises(UserError, match=r"^dataset\.path=~nobody\.here/x: there is no user with this home folder"):
        system.resolve_path(Path("/"), "~nobody.here/x", "dataset.path")
