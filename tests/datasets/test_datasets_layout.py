from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.folder import Folder
from vae_sweep.datasets.layout import arrange


def write(root: Path, folders: dict[str, int], n: int = 12) -> None:
    """`n` images of one grey in each folder of `root`."""
    for name, grey in folders.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.new("RGB", (4, 4), (grey, grey, i)).save(root / name / f"{i:02d}.png")


def built(root: Path, **settings: Any) -> dict[str, set[int]]:
    """The greys in each split."""
    splits = Folder(path=str(root), image_size=4, **settings).build().splits
    return {name: set(split.images[:, 0, 0, 0].tolist()) for name, split in splits.items()}


GIVEN = {  # layout -> the folders of train, val and test; None: drawn from train
    "upper case": ("Train", None, "Test"),
    "all upper case": ("TRAIN", "VAL", "TEST"),
    "valid": ("train", "valid", "test"),
    "validation": ("training", "Validation", "testing"),
    "dev": ("train", "dev", "test"),
    "only valid": ("train", "valid", None),
    "one level down": ("archive/train", None, "archive/test"),
    "one level down, upper case, three": ("My data/Train", "My data/Val", "My data/Test"),
    "two levels down": ("archive/images/train", "archive/images/val", None),
    "a wrapper with the name of a split": ("dev/train", None, "dev/test"),
    "classes below": ("archive/Train/a", None, "archive/Test/a"),
    "unpacked side by side": ("train/train", None, "test/test"),
}


@pytest.mark.parametrize("layout", GIVEN)
def test_given_splits_are_taken_as_they_are(tmp_path: Path, layout: str) -> None:
    train, val, test = GIVEN[layout]
    write(tmp_path, {name: grey for name, grey in ((train, 1), (val, 2), (test, 3)) if name})
    found = built(tmp_path)
    assert found["train"] == {1}
    assert found["val"] == {2 if val else 1}
    assert found["test"] == {3 if test else 1}


DOUBTS = {  # names -> the greys of train and test, that is of given and drawn images, with dataset.splits=given
    "a part of a name": ({"train2017": 1, "test2017": 3}, {1}, {3}),
    "a word more": ({"train_images": 1, "test_images": 3}, {1}, {3}),
    "one word": ({"trainset": 1, "testset": 3}, {1}, {3}),
    "camel case": ({"TrainImages": 1, "TestImages": 3}, {1}, {3}),
    "another word": ({"train": 1, "holdout": 3}, {1}, {3}),
    "a class beside": ({"train": 1, "val": 2, "car": 9}, {1}, {1}),
    "test beside classes": ({"cats": 1, "dogs": 2, "test": 3}, {1, 2}, {3}),
    "classes above": ({"cat/train": 1, "cat/test": 3, "dog/train": 1, "dog/test": 3}, {1}, {3}),
    "two of one kind": ({"train": 1, "Train": 2, "test": 3}, {1, 2}, {3}),
    "something outside the wrapper": ({"archive/train": 1, "archive/test": 3, "other": 9}, {1}, {3}),
}


@pytest.mark.parametrize("layout", DOUBTS)
def test_a_doubt_is_a_question_that_an_option_answers(tmp_path: Path, layout: str) -> None:
    folders, train, test = DOUBTS[layout]
    write(tmp_path, folders)
    with pytest.raises(UserError) as error:
        built(tmp_path)
    assert str(error.value).startswith(f"dataset.path={tmp_path}: it is not clear whether ")
    assert "dataset.splits=given (" in str(error.value)
    assert "dataset.splits=draw (" in str(error.value)
    assert "\n" not in str(error.value)
    given = built(tmp_path, splits="given")
    assert given["train"] == train
    assert given["test"] == test
    assert set().union(*built(tmp_path, splits="draw", test_fraction=0.3).values()) == set(folders.values())


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["train/x.png", "car/x.png"], {"train", "car"}),  # vehicles
        (["vehicles/train/x.png", "vehicles/car/x.png"], {"vehicles"}),
        (["train_station/x.png", "test_tube/x.png", "cat/x.png"], {"train_station", "test_tube", "cat"}),
        (["contest/x.png", "devil/x.png", "trainer/x.png"], {"contest", "devil", "trainer"}),
    ],
)
def test_a_class_may_have_the_name_of_a_split(names: list[str], classes: set[str]) -> None:
    layout = arrange(names)
    assert {cls for _, cls in layout.given["train"]} == classes
    assert layout.given.keys() == {"train"}


def test_a_folder_that_only_resembles_a_split_stands_back_behind_one_that_is_called_so() -> None:
    layout = arrange(["train/x.png", "train_masks/x.png", "test/x.png"])
    assert layout.given == {"train": [("train/x.png", "")], "test": [("test/x.png", "")]}
    assert layout.unused == 1
    with pytest.raises(UserError, match=r"test, train, val_2 are splits"):
        arrange(["train/x.png", "val_2/x.png", "test/x.png"])


def test_classes_stand_below_the_split_however_deep_it_lies() -> None:
    layout = arrange(["w/Train/b/x.png", "w/Train/a/y/x.png", "w/TEST/a/x.png"])
    assert layout.given == {
        "train": [("w/Train/b/x.png", "b"), ("w/Train/a/y/x.png", "a")],
        "test": [("w/TEST/a/x.png", "a")],
    }
    assert layout.origins == {"train": "w/Train", "test": "w/TEST"}


def test_without_training_images_the_remedy_is_another_one(tmp_path: Path) -> None:
    write(tmp_path, {"val": 1, "test": 2})
    for splits in ("auto", "given"):
        with pytest.raises(UserError, match=r"no training images beside test, val; call their folder train, or give"):
            built(tmp_path, splits=splits)
    assert set().union(*built(tmp_path, splits="draw").values()) == {1, 2}


def test_given_without_any_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a": 1, "b": 2})
    with pytest.raises(UserError, match=r"dataset\.splits=given: no folders are called train, val, test"):
        built(tmp_path, splits="given")


def test_given_takes_a_folder_called_train_beside_others(tmp_path: Path) -> None:
    write(tmp_path, {"train/a": 1, "train/b": 2, "train/c": 3, "unlabeled": 4})
    assert set().union(*built(tmp_path).values()) == {1, 2, 3, 4}
    assert set().union(*built(tmp_path, splits="given").values()) == {1, 2, 3}


def test_given_looks_for_a_test_folder_before_it_takes_train_alone(tmp_path: Path) -> None:
    write(tmp_path, {"train/train": 1, "train/test": 2, "extra": 3})
    with pytest.raises(UserError, match=r"dataset\.splits=given \(12 train: train/train; 12 test: train/test"):
        built(tmp_path)
    assert built(tmp_path, splits="given") == {"train": {1}, "val": {1}, "test": {2}}


def test_what_a_folder_was_taken_for_is_a_fact(tmp_path: Path) -> None:
    write(tmp_path, {"Train": 1, "valid": 2, "extra": 3, "Test": 4})
    facts = Folder(path=str(tmp_path)).build().facts
    assert facts["splits"] == {"train": "Train", "val": "valid", "test": "Test"}
    assert facts["left_out"] == {"images outside the splits": 12}


def test_the_order_and_the_drawn_splits_are_those_of_before(tmp_path: Path) -> None:
    """Numbers of an earlier version: the arrays of stored runs do not change."""
    write(tmp_path / "pool", {"a": 1, "b": 2})
    pool = Folder(path=str(tmp_path / "pool"), image_size=4).build().splits
    found = {name: (split.images[:, 2, 0, 0].tolist(), split.labels.tolist()) for name, split in pool.items()}
    assert found["test"] == ([4, 6], [0, 1])
    assert found["val"] == ([11, 9], [0, 1])
    assert found["train"][0] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5, 7, 8, 10, 11]
