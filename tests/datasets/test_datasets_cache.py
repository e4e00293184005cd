from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from helper_sources import Counting, NotASource, load_and_digest, split
from omegaconf import OmegaConf
from PIL import Image

from vae_sweep.base.errors import UserError
from vae_sweep.datasets import Built, Split, create, hold_out, load
from vae_sweep.datasets.folder import Folder
from vae_sweep.sweeps import preparation


@pytest.fixture
def source(tmp_path: Path) -> Counting:
    return Counting(str(tmp_path / "log"))


def test_the_second_load_reads_what_the_first_prepared(source: Counting, tmp_path: Path) -> None:
    first = load(source, tmp_path / "cache")
    second = load(source, tmp_path / "cache")
    assert source.builds == 1
    assert first.digest == second.digest
    assert first.facts == second.facts == {"classes": ["a", "b"], "skipped": 0}
    assert second.image_shape == (3, 2, 2)
    for name, n, start in (("train", 5, 0), ("val", 2, 7), ("test", 3, 100)):
        np.testing.assert_array_equal(getattr(second, name).images, split(n, start).images)
        np.testing.assert_array_equal(getattr(second, name).labels, np.arange(n))


def test_the_folder_is_named_by_the_fingerprint_and_the_digest_covers_all_images(
    source: Counting, tmp_path: Path
) -> None:
    data = load(source, tmp_path)
    key = hashlib.sha256(b'{"format":1,"size":5}').hexdigest()[:16]
    assert data.cache_dir == tmp_path / f"counting-{key}"
    images = b"".join(part.images.tobytes() for part in (split(5), split(2, 7), split(3, 100)))
    assert data.digest == hashlib.sha256(images).hexdigest()
    assert not list(tmp_path.glob("*.tmp"))


def test_images_that_move_to_the_next_split_and_other_labels_are_other_data(tmp_path: Path) -> None:
    """Neither changes the images, one after the other."""

    def digests(name: str, counts: dict[str, Sequence[int]]) -> tuple[str, str]:
        for folder, numbers in counts.items():
            (tmp_path / name / folder).mkdir(parents=True)
            for i in numbers:
                Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / name / folder / f"{i:03d}.png")
        data = load(Folder(path=str(tmp_path / name), image_size=4), tmp_path / "cache")
        return data.digest, data.arrangement

    first = {"train/a": [*range(10)], "val/a": [10, 11], "test/a": [12, 13, 14]}
    images, splits = digests("first", first)
    moved = digests("moved", {"train/a": [*range(8)], "val/a": [8, 9, 10, 11], "test/a": [12, 13, 14]})
    named = digests("named", {**first, "train/a": [*range(9)], "train/b": [9]})
    assert images == moved[0] == named[0]
    assert "" != splits != moved[1] != named[1] != splits
    for file in (tmp_path / "cache").glob("*/meta.json"):  # as an earlier version wrote it
        file.write_text(json.dumps(json.loads(file.read_text()) | {"arrangement": ""}))
    assert digests("elsewhere", first) == (images, "")  # the same data, so the runs on them continue
    assert digests("other", {**first, "val/a": [10], "test/a": range(11, 15)}) not in ((images, ""), (images, splits))
    shapes = create({"_target_": "vae_sweep.datasets.shapes.Shapes", "n_train": 20, "n_test": 5})
    assert load(shapes, tmp_path).arrangement == ""  # its settings decide


def test_images_are_mapped_and_torch_takes_them_without_writing_to_the_file(source: Counting, tmp_path: Path) -> None:
    data = load(source, tmp_path)
    assert isinstance(data.train.images, np.memmap)
    torch.from_numpy(data.train.images).fill_(9)  # a warning would be an error
    np.testing.assert_array_equal(load(source, tmp_path).train.images, split(5).images)


def test_another_fingerprint_is_another_folder(source: Counting, tmp_path: Path) -> None:
    load(source, tmp_path)
    source.size = 6
    assert len(load(source, tmp_path).train) == 6
    assert source.builds == 2


def _truncate(folder: Path) -> None:
    os.truncate(folder / "train.npy", 40)


def _flip(folder: Path) -> None:
    content = bytearray((folder / "val.npy").read_bytes())
    content[-1] ^= 1
    (folder / "val.npy").write_bytes(content)


def _old_version(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"version": 0}))


DAMAGES = {
    "truncated": _truncate,
    "flipped bit": _flip,
    "missing": lambda folder: (folder / "test-labels.npy").unlink(),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "half a meta": lambda folder: os.truncate(folder / "meta.json", 20),
    "old version": _old_version,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_rebuilt_with_a_warning(
    source: Counting, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = load(source, tmp_path)
    shutil.copytree(before.cache_dir, tmp_path / "copy")
    DAMAGES[damage](before.cache_dir)
    after = load(source, tmp_path)
    assert source.builds == 2
    assert after.digest == before.digest
    for file in (tmp_path / "copy").iterdir():
        assert (after.cache_dir / file.name).read_bytes() == file.read_bytes()
    assert [record.levelno for record in caplog.records if "unusable" in record.message] == [logging.WARNING]
    load(source, tmp_path)
    assert source.builds == 2


def test_leftovers_of_dead_builds_are_removed(source: Counting, tmp_path: Path) -> None:
    folder = load(source, tmp_path).cache_dir
    shutil.rmtree(folder)
    leftover = folder.with_name(f"{folder.name}.tmp")
    leftover.mkdir()
    (leftover / "train.npy").write_bytes(b"half")
    load(source, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [folder.name]


def test_a_failed_build_leaves_nothing(source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Built:
        raise UserError("no")

    monkeypatch.setattr(source, "build", fail)
    with pytest.raises(UserError, match="no"):
        load(source, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_parallel_processes_build_once(source: Counting, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    arguments = [(str(source.log), str(tmp_path / "cache"))] * 3
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        digests = set(pool.map(load_and_digest, *zip(*arguments, strict=True)))
    assert source.builds == 1
    assert digests == {load(source, tmp_path / "cache").digest}


def test_one_line_says_that_another_process_is_waited_for(
    source: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = hashlib.sha256(b'{"format":1,"size":5}').hexdigest()[:16]
    held = threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / f"counting-{key}.lock"):
            held.set()
            time.sleep(0.3)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    with caplog.at_level(logging.INFO):
        load(source, tmp_path)
    thread.join()
    waiting = [record for record in caplog.messages if "waiting for another process that is preparing" in record]
    assert len(waiting) == 1


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_cache_root_that_cannot_be_written_is_named(source: Counting, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write prepared images under .*file"):
        load(source, tmp_path / "file" / below)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"val": Split(np.zeros((0, 3, 2, 2), np.uint8), np.zeros(0, np.int64))}, "no val image"),
        ({"train": Split(np.zeros((2, 3, 2, 2), np.float32), np.zeros(2, np.int64))}, "must be uint8"),
        ({"test": Split(np.zeros((2, 3, 2, 2), np.uint8), np.zeros(3, np.int64))}, r"must be int64 \(2,\)"),
        ({"test": Split(np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64))}, "splits differ"),
    ],
)
def test_arrays_that_break_the_contract_are_refused(
    source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Split], says: str
) -> None:
    built = source.build()
    monkeypatch.setattr(source, "build", lambda: Built(built.splits | change, {}))
    with pytest.raises(UserError, match=says):
        load(source, tmp_path)


def test_a_name_that_is_no_folder_name_is_refused(source: Counting, tmp_path: Path) -> None:
    source.name = "../up"
    with pytest.raises(UserError, match=r"dataset\.name=\.\./up"):
        load(source, tmp_path)


def test_hold_out_parts_the_range() -> None:
    kept, held = hold_out(50_000, 0.1, seed=0)
    assert (len(kept), len(held)) == (45_000, 5_000)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, held])), np.arange(50_000))
    assert np.all(np.diff(kept) > 0)
    assert np.all(np.diff(held) > 0)
    np.testing.assert_array_equal(held, hold_out(50_000, 0.1, seed=0)[1])
    assert not np.array_equal(held, hold_out(50_000, 0.1, seed=1)[1])
    expected = np.sort(np.random.default_rng(3).permutation(10)[:2])
    np.testing.assert_array_equal(hold_out(10, 0.2, seed=3)[1], expected)


def test_create_makes_a_source_of_ones_own(tmp_path: Path) -> None:
    node = {"_target_": "helper_sources.Counting", "name": "mine", "log": str(tmp_path / "log"), "size": 4}
    for made in (create(node), preparation.source(OmegaConf.create(node), tmp_path)):
        assert isinstance(made, Counting)
        assert (made.name, made.size) == ("mine", 4)


@pytest.mark.parametrize("whole", [True, False])
def test_a_value_that_is_missing_in_the_configuration_is_named(whole: bool, tmp_path: Path) -> None:
    node = {"_target_": "helper_sources.Counting", "log": "???"}
    cfg = OmegaConf.create({"dataset": node}).dataset if whole else OmegaConf.create(node)
    with pytest.raises(UserError, match=r"^dataset\.log has no value; add dataset\.log="):
        preparation.source(cfg, tmp_path)


@pytest.mark.parametrize(
    ("cfg", "says"),
    [
        ({}, "_target_"),
        ({"_target_": "nowhere.Thing"}, r"nowhere\.Thing"),
        ({"_target_": "helper_sources.Absent"}, r"helper_sources\.Absent"),
        ({"_target_": "os.system", "command": "false"}, r"os\.system"),
        ({"_target_": "helper_sources.NotASource"}, "NotASource"),
        ({"_target_": "helper_sources.Unfinished"}, "build"),
        ({"_target_": "helper_sources.Counting", "lag": "x"}, "lag|log"),
        ({"_target_": "helper_sources.Counting"}, "log"),
    ],
)
def test_create_refuses_what_is_no_source_and_calls_nothing(cfg: dict[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        create(cfg)
    assert not NotASource.called


@pytest.mark.parametrize("shape", [(5, 4, 6, 3), (5, 3, 4, 6), (5, 4, 6)], ids=str)
@pytest.mark.parametrize("labelled", [True, False])
def test_arrays_alone_are_a_dataset(
    shape: tuple[int, ...], labelled: bool, source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    given = (images, list(range(5))) if labelled else images
    monkeypatch.setattr(source, "build", lambda: dict.fromkeys(("train", "val", "test"), given))
    built = load(source, tmp_path).test
    first = images if shape[1] == 3 else images[:, None] if len(shape) == 3 else images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(built.images, first)
    assert built.labels.tolist() == (list(range(5)) if labelled else [-1] * 5)


GREY = np.zeros((5, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        (None, r"build gives NoneType; return \{'train'"),
        ({"train": GREY, "test": GREY}, r"build gives a dict of train, test; return .*'val'"),
        (dict.fromkeys(("train", "val", "test"), GREY / 255), r"train images are float64 .*\(255 \* images\)"),
        (dict.fromkeys(("train", "val", "test"), GREY[0, 0]), r"train images are uint8 \(4,\); return"),
        (dict.fromkeys(("train", "val", "test"), 3), r"train images are int64 \(\); return"),
        (dict.fromkeys(("train", "val", "test"), (GREY, [1, 2])), r"train labels are int64 \(2,\); .*\(5,\)"),
        (dict.fromkeys(("train", "val", "test"), (GREY, list("abcde"))), "train labels are <U1"),
    ],
)
def test_other_arrays_are_refused_with_what_to_return(
    returned: object, says: str, source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "build", lambda: returned)
    with pytest.raises(UserError, match=says):
        load(source, tmp_path)
