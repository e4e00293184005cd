from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_sweep.base.errors import UserError
from vae_sweep.datasets import load
from vae_sweep.datasets.celeba import CelebA, choose

OFFICIAL = np.repeat([0, 1, 2], [162_770, 19_867, 19_962])  # images in each partition


def faces(
    images: Path,
    partition: Path,
    counts: tuple[int, int, int] = (20, 6, 4),
    sizes: tuple[tuple[int, int], ...] = ((178, 218),) * 3,
) -> list[int]:
    """Write images of one grey each (its number) and the partition file; the codes."""
    images.mkdir(parents=True)
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], counts)).tolist()
    comma = partition.suffix == ".csv"
    lines = ["image_id,partition"] if comma else []
    for i, code in enumerate(codes):
        Image.new("L", sizes[code], i).convert("RGB").save(images / f"{i:06d}.jpg", quality=95)
        lines.append(f"{i:06d}.jpg{',' if comma else ' '}{code}")
    partition.write_text("\n".join(lines) + "\n")
    return codes


LAYOUTS = {
    "torchvision": ("celeba/img_align_celeba", "celeba/list_eval_partition.txt"),
    "plain": ("img_align_celeba", "list_eval_partition.txt"),
    "plain csv": ("img_align_celeba", "list_eval_partition.csv"),
    "kaggle": ("img_align_celeba/img_align_celeba", "list_eval_partition.csv"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_follow_the_official_partition(tmp_path: Path, layout: str) -> None:
    images, partition = LAYOUTS[layout]
    codes = faces(tmp_path / images, tmp_path / partition)
    data = load(CelebA(root=str(tmp_path), fraction=1.0), tmp_path / "cache")
    for code, split in enumerate((data.train, data.val, data.test)):
        expected = [i for i, c in enumerate(codes) if c == code]
        assert split.images.shape == (len(expected), 3, 32, 32)
        assert split.images[:, 0, 16, 16].tolist() == expected
        assert split.labels.tolist() == [-1] * len(expected)


def test_the_official_counts_at_thirty_percent() -> None:
    chosen = choose(OFFICIAL, fraction=0.3, max_val=5000, seed=0)
    assert {split: len(rows) for split, rows in chosen.items()} == {"train": 48_831, "val": 5_000, "test": 19_962}
    for code, rows in enumerate(chosen.values()):
        assert np.all(OFFICIAL[rows] == code)
        assert np.all(np.diff(rows) > 0)
    assert len(choose(OFFICIAL, 0.3, 0, 0)["val"]) == 19_867
    np.testing.assert_array_equal(chosen["train"], choose(OFFICIAL, 0.3, 5000, 0)["train"])
    assert not np.array_equal(chosen["train"], choose(OFFICIAL, 0.3, 5000, 1)["train"])
    assert abs(chosen["train"].mean() / 162_770 - 0.5) < 0.01  # spread over the partition, not its beginning


def test_subsets_are_drawn(tmp_path: Path) -> None:
    faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt")
    built = CelebA(root=str(tmp_path), fraction=0.25, max_val=2).build()
    assert {name: len(split) for name, split in built.splits.items()} == {"train": 5, "val": 2, "test": 4}
    assert built.facts["train_share"] == "5 of 20"


def test_the_centre_crop_is_the_customary_one(tmp_path: Path) -> None:
    faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt", (1, 1, 1))
    inside = np.full((218, 178, 3), 255, np.uint8)
    inside[35 : 35 + 148, 15 : 15 + 148] = 80  # torchvision.transforms.CenterCrop(148)
    for i in range(3):
        Image.fromarray(inside).save(tmp_path / "img_align_celeba" / f"{i:06d}.jpg", quality=100)
    images = CelebA(root=str(tmp_path), fraction=1.0).build().splits["train"].images
    assert np.abs(images.astype(int) - 80).max() <= 2


def test_a_missing_or_broken_image_is_left_out_or_refused(tmp_path: Path) -> None:
    codes = faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt")
    gone = tmp_path / "img_align_celeba" / f"{codes.index(0):06d}.jpg"
    before = CelebA(root=str(tmp_path), fraction=1.0).fingerprint()
    gone.unlink()
    assert CelebA(root=str(tmp_path), fraction=1.0).fingerprint() != before
    built = CelebA(root=str(tmp_path), fraction=1.0).build()
    assert (len(built.splits["train"]), built.facts["skipped"]) == (19, 1)
    assert gone.name in built.facts["skipped_files"][0]
    with pytest.raises(UserError, match=rf"{gone.name} is broken"):
        CelebA(root=str(tmp_path), fraction=1.0, strict=True).build()


def test_missing_images_say_where_they_belong_and_what_works_now(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        CelebA(root=str(tmp_path)).fingerprint()
    for part in (tmp_path / "celeba" / "img_align_celeba", tmp_path / "img_align_celeba", "dataset=shapes"):
        assert str(part) in str(error.value)
    assert "\n" not in str(error.value)
    (tmp_path / "img_align_celeba.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"unzip .*img_align_celeba\.zip"):
        CelebA(root=str(tmp_path)).fingerprint()


def test_a_missing_partition_says_where_it_belongs(tmp_path: Path) -> None:
    (tmp_path / "celeba" / "img_align_celeba").mkdir(parents=True)
    with pytest.raises(UserError, match="partition is missing") as error:
        CelebA(root=str(tmp_path)).fingerprint()
    assert str(tmp_path / "celeba" / "list_eval_partition.txt") in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("000000.jpg 0\n000001.jpg three\n", "line 2 reads '000001.jpg three'"),
        ("../000000.jpg 0\n", "line 1"),
        ("000000.jpg 0\n000001.jpg 1\n", "lists no test image"),
        ("", "lists no train image"),
    ],
)
def test_a_partition_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt", (1, 1, 1))
    (tmp_path / "list_eval_partition.txt").write_text(text)
    with pytest.raises(UserError, match=says):
        CelebA(root=str(tmp_path), fraction=1.0).fingerprint()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"crop_size": 0}, r"dataset\.crop_size=0"),
        ({"max_val": -1}, r"dataset\.max_val=-1"),
        ({"fraction": 0}, r"dataset\.fraction=0 "),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        CelebA(root="x", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "fits"),
    [((89, 109), 74), ((356, 436), 296), ((64, 64), 64), ((1024, 1024), 1024), ((256, 256), 256), ((160, 218), 160)],
)
def test_copies_of_another_size_are_told_the_crop_that_fits(tmp_path: Path, size: tuple[int, int], fits: int) -> None:
    faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt", (3, 2, 2), (size,) * 3)
    with pytest.raises(UserError) as error:
        CelebA(root=str(tmp_path), fraction=1.0).build()
    assert f"have {size[0]}x{size[1]} pixels (the aligned ones 178x218); give dataset.crop_size={fits}," in str(
        error.value
    )
    assert "\n" not in str(error.value)
    built = CelebA(root=str(tmp_path), fraction=1.0, crop_size=fits).build()
    assert [len(split) for split in built.splits.values()] == [3, 2, 2]
    with pytest.raises(UserError, match=rf"dataset\.crop_size={fits}\.?"):
        CelebA(root=str(tmp_path), fraction=1.0, crop_size=max(size) + 1).build()


def test_the_crop_for_half_the_size_shows_the_same_part_of_the_face(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (14, 11, 3), np.uint8)
    face = Image.fromarray(whole).resize((178, 218), Image.Resampling.BICUBIC)
    found = []
    for size, crop in (((178, 218), 148), ((89, 109), 74)):
        root = tmp_path / str(crop)
        faces(root / "img_align_celeba", root / "list_eval_partition.txt", (1, 1, 1), (size,) * 3)
        for i in range(3):
            face.resize(size, Image.Resampling.BOX).save(root / "img_align_celeba" / f"{i:06d}.jpg", quality=100)
        found.append(CelebA(root=str(root), fraction=1.0, crop_size=crop).build().splits["train"].images.astype(int))
    assert np.abs(found[0] - found[1]).mean() < 3


def test_splits_of_different_sizes_are_refused(tmp_path: Path) -> None:
    sizes = ((178, 218), (64, 64), (178, 218))
    faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt", sizes=sizes)
    with pytest.raises(UserError, match=r"different sizes \(train 178x218, val 64x64, test 178x218\); unpack one copy"):
        CelebA(root=str(tmp_path), fraction=1.0).build()


def test_a_image_of_another_size_is_left_out_and_said(tmp_path: Path) -> None:
    codes = faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt")
    name = f"{codes.index(0):06d}.jpg"
    Image.new("RGB", (1024, 1024)).save(tmp_path / "img_align_celeba" / name)
    built = CelebA(root=str(tmp_path), fraction=1.0).build()
    assert len(built.splits["train"]) == 19
    assert f"{name}: 1024x1024 pixels, the other images have 178x218" in built.facts["skipped_files"][0]


def test_images_that_were_not_unpacked_are_counted_by_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    codes = faces(tmp_path / "img_align_celeba", tmp_path / "list_eval_partition.txt")

    def remove(code: int, most: int) -> None:
        for i in [i for i, c in enumerate(codes) if c == code][:most]:
            (tmp_path / "img_align_celeba" / f"{i:06d}.jpg").unlink()

    remove(1, 4)
    CelebA(root=str(tmp_path), fraction=1.0).build()
    assert "4 of 6 val images are missing in" in caplog.text
    assert "finish unpacking img_align_celeba.zip" in caplog.text
    remove(2, 4)
    with pytest.raises(UserError, match=r"4 of 4 test images are missing in .*called 0\d+\.jpg; finish unpacking"):
        CelebA(root=str(tmp_path), fraction=1.0).build()
