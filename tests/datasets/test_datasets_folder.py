from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vae_sweep.base.errors import UserError
from vae_sweep.datasets import load
from vae_sweep.datasets.folder import Folder
from vae_sweep.datasets.images import Fit
from vae_sweep.datasets.layout import arrange


def image(path: Path, value: int = 0, size: tuple[int, int] = (8, 8)) -> Path:
    """An image of the one colour (value, 255 - value, 7), which tells it from the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 255 - value, 7)).save(path)
    return path


def values(images: np.ndarray) -> list[int]:
    return images[:, 0, 0, 0].tolist()


def folder(path: Path, **settings: Any) -> Folder:
    return Folder(path=str(path), **{"image_size": 8, **settings})


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """40 images in two class folders, the first 20 all of class a."""
    for i in range(40):
        image(tmp_path / "pool" / ("a" if i < 20 else "b") / f"{i:03d}.png", i)
    return tmp_path / "pool"


def test_train_val_and_test_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    for i, name in enumerate(["train/b/1.PNG", "train/a/2.bmp", "train/a/1.png", "val/a/1.gif", "test/b/x/9.webp"]):
        image(tmp_path / name, i * 10)
    built = folder(tmp_path).build()
    assert values(built.splits["train"].images) == [20, 10, 0]  # a/1, a/2, b/1
    assert [split.labels.tolist() for split in built.splits.values()] == [[0, 0, 1], [0], [1]]
    assert built.facts["classes"] == ["a", "b"]
    assert built.splits["train"].images.dtype == np.uint8
    assert built.splits["train"].labels.dtype == np.int64


def test_without_val_it_is_held_out_of_train(tmp_path: Path) -> None:
    for i in range(20):
        image(tmp_path / "train" / f"{i:02d}.png", i)
    image(tmp_path / "test" / "t.png", 99)
    splits = folder(tmp_path, val_fraction=0.2).build().splits
    assert len(splits["val"]) == 4
    assert sorted(values(splits["train"].images) + values(splits["val"].images)) == list(range(20))
    assert values(splits["test"].images) == [99]
    assert splits["train"].labels.tolist() == [-1] * 16


def test_one_folder_is_split_at_random_and_not_by_class(pool: Path) -> None:
    splits = folder(pool, val_fraction=0.25, test_fraction=0.2).build().splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 24, "val": 8, "test": 8}
    everything = [value for split in splits.values() for value in values(split.images)]
    assert sorted(everything) == list(range(40))
    for split in splits.values():
        assert set(split.labels.tolist()) == {0, 1}
        assert [value >= 20 for value in values(split.images)] == (split.labels == 1).tolist()
    again = folder(pool, val_fraction=0.25, test_fraction=0.2).build().splits
    other = folder(pool, val_fraction=0.25, test_fraction=0.2, split_seed=1).build().splits
    assert values(again["test"].images) == values(splits["test"].images) != values(other["test"].images)


def test_fraction_takes_a_share_of_train_and_decodes_no_more(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    original = Fit.__call__
    monkeypatch.setattr(Fit, "__call__", lambda self, path: decoded.append(path) or original(self, path))
    splits = folder(pool, fraction=0.5, test_fraction=0.25).build().splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 13, "val": 2, "test": 10}
    assert len(decoded) == 25


@pytest.mark.parametrize(
    ("names", "splits", "classes"),
    [
        (["x.png", "y.png"], {"train": 2}, {""}),
        (["a/x.png", "b/deep/y.png"], {"train": 2}, {"a", "b"}),
        (["a/x.png", "y.png"], {"train": 2}, {""}),
        (["train/x.png", "test/y.png"], {"train": 1, "test": 1}, {""}),
        (["train/a/x.png", "test/y.png"], {"train": 1, "test": 1}, {"a", ""}),
        (["train/a/x.png", "train/b/x.png"], {"train": 2}, {"a", "b"}),
        (["train/a/x.png", "val/a/x.png"], {"train": 1, "val": 1}, {"a"}),
        (["train/x.png", "car/x.png"], {"train": 2}, {"train", "car"}),  # vehicles
    ],
)
def test_layouts(names: list[str], splits: dict[str, int], classes: set[str]) -> None:
    given = arrange(names).given
    assert {split: len(images) for split, images in given.items()} == splits
    assert {cls for images in given.values() for _, cls in images} == classes


def test_an_image_outside_the_class_folders_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("train/a/0", "train/b/1", "train/overview", "test/a/2", "val/a/3"):
        image(tmp_path / f"{name}.png")
    built = folder(tmp_path).build()
    assert [split.labels.tolist() for split in built.splits.values()] == [[-1] * 3, [0], [0]]
    assert (
        "1 of 3 train images are in no class folder, such as train/overview.png: no class of that split" in caplog.text
    )


def test_splits_that_lie_too_deep_are_not_mixed(tmp_path: Path) -> None:
    names = [f"a/b/c/{split}/{i}.png" for split in ("Train", "test") for i in range(9)]
    with pytest.raises(UserError, match=r"a/b/c/train lies more than 2 folders deep; give the folder .*splits=draw"):
        arrange(names)
    assert {split: len(images) for split, images in arrange(names, "draw").given.items()} == {"train": 18}


def test_a_link_to_itself_is_a_broken_image(pool: Path) -> None:
    (pool / "a" / "loop.png").symlink_to(pool / "a" / "loop.png")
    built = folder(pool).build()
    assert built.facts["skipped"] == 1


def test_what_this_program_writes_into_the_folder_is_no_image_of_it(
    pool: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``dataset.path=.``: prepared images, artifacts and figures of runs."""
    caplog.set_level(logging.INFO)
    first = load(folder(pool), pool / "data" / "cache")
    (pool / "mlruns").mkdir()
    (pool / "mlruns" / ".store.lock").touch()
    image(pool / "mlruns" / "1" / "artifacts" / "figures" / "samples.png")
    image(pool / "outputs" / "generated" / "fc-p1.png")
    (pool / "notes.txt").write_text("of a run")
    again = load(folder(pool), pool / "data" / "cache")
    assert again.digest == first.digest
    assert caplog.text.count("prepared ") == 1
    assert (
        (pool / "data" / "cache" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    )
    image(pool / "c" / "outputs" / "0.png")  # somebody's class
    assert sum(map(len, load(folder(pool), pool / "data" / "cache").splits.values())) == 41


def test_hidden_files_and_resource_forks_are_passed_over_and_links_followed(pool: Path, tmp_path: Path) -> None:
    image(pool / "__MACOSX" / "a" / "001.png", 200)
    image(pool / ".hidden" / "x.png", 201)
    image(pool / "a" / "._001.png", 202)
    (pool / "a" / "notes.txt").write_text("no image")
    (pool / "a" / "link.png").symlink_to(image(tmp_path / "elsewhere.png", 203))
    (pool / "a" / "loop").symlink_to(pool)
    splits = folder(pool).build().splits
    assert sorted(v for split in splits.values() for v in values(split.images)) == [*range(40), 203]


def test_broken_images_are_named_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for i in range(4):
        image(tmp_path / "train" / f"{i}.png", i)
        image(tmp_path / "test" / f"{i}.png", i)
    train = tmp_path / "train"
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(train / "cut.jpg")
    os.truncate(train / "cut.jpg", 1500)
    (train / "empty.png").write_bytes(b"")
    (train / "text.jpg").write_text("<html>not found</html>")
    (train / "gone.png").symlink_to(tmp_path / "nowhere")
    image(train / "bomb.png", 0, (50, 30))
    image(train / "large.png", 0, (30, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL warns above, and raises above twice as many
    image(tmp_path / "val" / "0.png", 0)
    built = folder(tmp_path).build()
    assert values(built.splits["train"].images) == [0, 1, 2, 3]
    assert built.facts["skipped"] == 6
    broken = ["bomb.png", "cut.jpg", "empty.png", "gone.png", "large.png", "text.jpg"]
    assert [Path(line.split(": ")[0]).name for line in built.facts["skipped_files"]] == broken
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "left out 6 of 15 images" in warnings[0]
    assert "and 1 more" in warnings[0]
    assert all(name in warnings[0] for name in broken[:5])
    with pytest.raises(UserError, match=r"(bomb|cut|empty|gone|large|text)\.\w+ is broken .*dataset\.strict=false"):
        folder(tmp_path, strict=True).build()


def test_strict_and_not_strict_do_not_share_a_cache(pool: Path, tmp_path: Path) -> None:
    (pool / "a" / "empty.png").write_bytes(b"")
    assert load(folder(pool), tmp_path / "cache").facts["skipped"] == 1
    with pytest.raises(UserError, match=r"empty\.png is broken"):
        load(folder(pool, strict=True), tmp_path / "cache")


def test_the_fingerprint_sees_every_change(pool: Path) -> None:
    before = folder(pool).fingerprint()
    assert folder(pool).fingerprint() == before
    os.utime(pool / "a" / "000.png", ns=(1, 1))
    touched = folder(pool).fingerprint()
    image(pool / "b" / "new.png")
    added = folder(pool).fingerprint()
    smaller = folder(pool, image_size=4).fingerprint()
    assert len({str(fingerprint) for fingerprint in (before, touched, added, smaller)}) == 4


@pytest.mark.parametrize("kind", ["missing", "empty", "no images", "a file", "none usable"])
def test_a_folder_without_images_says_what_is_wrong(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "images"
    if kind != "missing":
        path.mkdir()
    if kind == "no images":
        (path / "a.txt").write_text("")
    if kind == "none usable":
        for i in range(20):
            (path / f"{i}.png").write_text("")
    if kind == "a file":
        path.rmdir()
        path.write_text("")
    says = {
        "missing": "there is no folder",
        "empty": "no images in .*known endings: .* avif .* jpeg jpf jpg .* png ",
        "no images": r"no images in .*, only 1 files ending in \.txt; known endings: ",
        "a file": "is a file",
        "none usable": "none of the .* is usable",
    }[kind]
    with pytest.raises(UserError, match=says) as error:
        folder(path).fingerprint() and folder(path).build()
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("n", "says"),
    [
        (4, r"test_fraction=0\.1 of 4 images leaves no test image"),
        (6, r"val_fraction=0\.1 of 5 images leaves no validation image"),
    ],
)
def test_too_few_images_name_the_split(tmp_path: Path, n: int, says: str) -> None:
    for i in range(n):
        image(tmp_path / f"{i}.png")
    with pytest.raises(UserError, match=says):
        folder(tmp_path).build()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image_size": 0}, r"dataset\.image_size=0"),
        ({"fraction": 0.0}, r"dataset\.fraction=0\.0 .*above 0 and at most 1"),
        ({"fraction": 1.1}, r"dataset\.fraction=1\.1"),
        ({"test_fraction": 1.0}, r"dataset\.test_fraction=1\.0"),
        ({"path": ""}, r"dataset\.path=''"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Folder(**{"path": "x", **settings})
