from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pickle
import shutil
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from vae_sweep.base.errors import UserError
from vae_sweep.base.network import PROBE_SECONDS
from vae_sweep.datasets import cifar10, jpeg, load
from vae_sweep.datasets.cifar10 import Cifar10
from vae_sweep.datasets.folder import Folder

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
N = 20  # images in a batch; the real ones hold 10,000


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with both published forms in small, in the format of https://www.cs.toronto.edu/~kriz/cifar.html.

    Python 2 wrote the real ones, and what was a byte string there is read as text by torchvision.

    Image i (over all batches, test last) has class i % 10 and the channels (i, i + 1, i + 2), but pixel
    (row 0, column 1) is (201, 202, 203).
    """
    home = tmp_path / "published"
    base = home / CIFAR10.base_folder
    base.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for batch, name in enumerate(names):
        number = np.arange(batch * N, (batch + 1) * N)
        data = np.repeat(number[:, None] + [0, 1, 2], 1024, axis=1).astype(np.uint8)  # (N, 3072): R, then G, then B
        data[:, [1, 1025, 2049]] = [201, 202, 203]
        entry = {
            "batch_label": name,
            "labels": (number % 10).tolist(),
            "data": data,
            "filenames": [f"{i}.png" for i in number],
        }
        (base / name).write_bytes(pickle.dumps(entry, protocol=2))
    meta = {"num_cases_per_batch": N, "label_names": CLASSES, "num_vis": 3072}
    (base / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    archive = home / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(base, arcname=base.name)
    sums = [[name, md5(base / name)] for name in names]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(base / "batches.meta")})
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    return home


def put(published: Path, root: Path, *forms: str) -> Cifar10:
    root.mkdir(exist_ok=True)
    for form in forms:
        if (published / form).is_dir():
            shutil.copytree(published / form, root / form)
        else:
            shutil.copy(published / form, root / form)
    return Cifar10(root=str(root), download=False)


FORMS = [CIFAR10.filename, CIFAR10.base_folder]


@pytest.mark.parametrize("form", FORMS)
def test_both_forms_give_counts_order_layout_and_split(published: Path, tmp_path: Path, form: str) -> None:
    root = tmp_path / "root"
    source = put(published, root, form)
    built = source.build()
    assert {name: split.images.shape for name, split in built.splits.items()} == {
        "train": (90, 3, 32, 32),
        "val": (10, 3, 32, 32),
        "test": (20, 3, 32, 32),
    }
    assert built.facts["classes"] == CLASSES
    order = np.random.default_rng(0).permutation(100)
    numbers = {"train": np.sort(order[10:]), "val": np.sort(order[:10]), "test": np.arange(100, 120)}
    for name, split in built.splits.items():
        np.testing.assert_array_equal(split.images[:, :, 5, 5], numbers[name][:, None] + [0, 1, 2])
        np.testing.assert_array_equal(split.images[:, :, 0, 1], np.tile([201, 202, 203], (len(split), 1)))
        np.testing.assert_array_equal(split.images[:, 0, 1, 0], numbers[name])
        np.testing.assert_array_equal(split.labels, numbers[name] % 10)
    labels = np.concatenate([built.splits["train"].labels, built.splits["val"].labels])
    assert np.bincount(labels).tolist() == [10] * 10
    assert np.bincount(built.splits["test"].labels).tolist() == [2] * 10
    assert [path.name for path in root.iterdir()] == [form]  # nothing is extracted beside it


def test_both_forms_share_one_cache(published: Path, tmp_path: Path) -> None:
    first = load(put(published, tmp_path / "a", FORMS[0]), tmp_path / "cache")
    second = load(put(published, tmp_path / "b", FORMS[1]), tmp_path / "cache")
    assert first.cache_dir == second.cache_dir
    assert len(list((tmp_path / "cache").glob("*.lock"))) == 1


def test_fraction_comes_before_the_validation_split(published: Path, tmp_path: Path) -> None:
    put(published, tmp_path / "root", FORMS[1])
    splits = Cifar10(root=str(tmp_path / "root"), fraction=0.5, val_fraction=0.2).build().splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "val": 10, "test": 20}
    with pytest.raises(UserError, match=r"val_fraction=0\.1 of 3 images leaves no validation image"):
        Cifar10(root=str(tmp_path / "root"), fraction=0.03).build()


def test_a_truncated_archive_is_named_with_both_checksums_and_not_extracted(published: Path, tmp_path: Path) -> None:
    source = put(published, tmp_path / "root", FORMS[0])
    archive = tmp_path / "root" / FORMS[0]
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(UserError) as error:
        source.build()
    for part in (archive, CIFAR10.tgz_md5, md5(archive), "fetch it again"):
        assert str(part) in str(error.value)
    assert "\n" not in str(error.value)
    assert [path.name for path in (tmp_path / "root").iterdir()] == [FORMS[0]]


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
@pytest.mark.parametrize("damage", ["missing", "changed"])
def test_a_missing_or_damaged_batch_is_named(published: Path, tmp_path: Path, name: str, damage: str) -> None:
    source = put(published, tmp_path / "root", FORMS[1])
    batch = tmp_path / "root" / FORMS[1] / name
    batch.unlink()
    if damage == "changed":
        batch.write_bytes(b"other")
    with pytest.raises(UserError, match=f"{name} is {'missing' if damage == 'missing' else 'damaged'}"):
        source.build()


def test_an_incomplete_folder_gives_way_to_the_archive(published: Path, tmp_path: Path) -> None:
    source = put(published, tmp_path / "root", *FORMS)
    (tmp_path / "root" / FORMS[1] / "data_batch_5").unlink()
    assert len(source.build().splits["train"]) == 90


def _refuse(*_: object, **__: object) -> None:
    raise OSError("Network is unreachable")


def _hang(*_: object, **__: object) -> None:
    time.sleep(6)  # as a name look-up does where packets vanish
    raise OSError("too late")


@pytest.mark.parametrize("network", ["off", "refuses", "black hole"])
def test_without_the_files_the_message_is_quick_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    monkeypatch.setattr(socket, "create_connection", _hang if network == "black hole" else _refuse)
    assert PROBE_SECONDS < 5
    monkeypatch.setattr("vae_sweep.base.network.PROBE_SECONDS", 0.3)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        load(Cifar10(root=str(tmp_path), download=network != "off"), tmp_path / "cache")
    assert time.monotonic() - start < 10
    expected = {"off": "dataset.download=false", "refuses": "unreachable", "black hole": "no answer within"}
    for part in (tmp_path / FORMS[0], tmp_path / FORMS[1], "dataset=shapes", expected[network]):
        assert str(part) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def server(published: Path) -> Iterator[str]:
    """The address of a web server that offers `published`."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(published))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http_server.server_port}"
        http_server.shutdown()
        thread.join()


def test_a_download_lands_whole_and_is_read(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{FORMS[0]}")
    root = tmp_path / "new"
    assert len(load(Cifar10(root=str(root)), tmp_path / "cache").train) == 90
    assert sorted(path.name for path in root.iterdir() if path.suffix != ".lock") == [FORMS[0]]
    assert (root / FORMS[0]).stat().st_mode & 0o777 == 0o644  # others may read it


def test_of_several_that_need_the_archive_one_downloads_it(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{FORMS[0]}")
    caplog.set_level("INFO")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: Cifar10(root=str(tmp_path / "new"))._download(), range(4)))
    assert set(found) == {tmp_path / "new" / FORMS[0]}
    assert [line.startswith("downloading") for line in caplog.messages].count(True) == 1


@pytest.mark.parametrize("path", [f"{FORMS[1]}/batches.meta", "absent"])  # another checksum; error 404
def test_a_failed_download_leaves_nothing_behind(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(CIFAR10, "url", f"{server}/{path}")
    root = tmp_path / "new"
    with pytest.raises(UserError, match=r"the download from .* failed|cannot be reached \(.*[nN]ot found\)"):
        load(Cifar10(root=str(root)), tmp_path / "cache")
    assert not [path for path in root.glob("*") if path.suffix != ".lock"]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.val_fraction=1\.5"):
        Cifar10(root="x", val_fraction=1.5)


def _deeper(published: Path, root: Path) -> None:
    shutil.copytree(published / FORMS[1], root / "downloads" / FORMS[1])


def _deeper_archive(published: Path, root: Path) -> None:
    (root / "cifar10").mkdir()
    shutil.copy(published / FORMS[0], root / "cifar10")


def _itself(published: Path, root: Path) -> None:
    for path in (published / FORMS[1]).iterdir():
        shutil.copy(path, root)


def _renamed(published: Path, root: Path) -> None:
    shutil.copytree(published / FORMS[1], root / "cifar10")


def _unzipped(published: Path, root: Path) -> None:
    with tarfile.open(root / "cifar-10-python.tar", "w") as tar:
        tar.add(published / FORMS[1], arcname=FORMS[1])


@pytest.mark.parametrize("place", [_deeper, _deeper_archive, _itself, _renamed, _unzipped])
def test_other_places_and_forms_of_the_same_content_give_the_same_arrays(
    published: Path, tmp_path: Path, place: Callable[[Path, Path], None]
) -> None:
    expected = load(put(published, tmp_path / "usual", FORMS[1]), tmp_path / "cache")
    root = tmp_path / "root"
    root.mkdir()
    place(published, root)
    built = Cifar10(root=str(root), download=False).build()
    for key, split in built.splits.items():
        np.testing.assert_array_equal(split.images, expected.splits[key].images)
        np.testing.assert_array_equal(split.labels, expected.splits[key].labels)
    assert load(Cifar10(root=str(root), download=False), tmp_path / "cache").cache_dir == expected.cache_dir


def test_an_archive_of_other_content_without_compression_is_refused(published: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    shutil.copytree(published / FORMS[1], root / FORMS[1])
    (root / FORMS[1] / "data_batch_1").write_bytes(b"other")
    with tarfile.open(root / "cifar-10-python.tar", "w") as tar:
        tar.add(root / FORMS[1], arcname=FORMS[1])
    shutil.rmtree(root / FORMS[1])
    with pytest.raises(UserError, match="data_batch_1 is damaged"):
        Cifar10(root=str(root), download=False).build()


def binary(published: Path, root: Path) -> Path:
    """The published images as the binary version: <label><3072 values> an image, six files in an archive."""
    base = root / "cifar-10-batches-bin"
    base.mkdir(parents=True)
    for path in (published / FORMS[1]).glob("*_batch*"):
        entry = pickle.loads(path.read_bytes())
        rows = np.concatenate([np.array(entry["labels"], np.uint8)[:, None], entry["data"]], axis=1)
        (base / f"{path.name}.bin").write_bytes(rows.tobytes())
    (base / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    with tarfile.open(root / cifar10.BINARY, "w:gz") as tar:
        tar.add(base, arcname=base.name)
    return base


def test_the_binary_version_gives_the_same_arrays_under_a_cache_of_its_own(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(binary(published, tmp_path / "root"))
    monkeypatch.setattr(cifar10, "BINARY_MD5", md5(tmp_path / "root" / cifar10.BINARY))
    expected = load(put(published, tmp_path / "usual", FORMS[1]), tmp_path / "cache")
    found = load(Cifar10(root=str(tmp_path / "root"), download=False), tmp_path / "cache")
    assert found.digest == expected.digest
    assert found.facts["classes"] == CLASSES
    assert [split.labels.tolist() for split in found.splits.values()] == [
        split.labels.tolist() for split in expected.splits.values()
    ]
    assert found.cache_dir != expected.cache_dir  # that the real ones are equal is not for us to promise


def test_a_binary_archive_that_is_not_the_published_one_is_refused(published: Path, tmp_path: Path) -> None:
    shutil.rmtree(binary(published, tmp_path / "root"))
    with pytest.raises(UserError, match=rf"{cifar10.BINARY} is damaged .*c32a1d4ab5d03f1284b67883e8d87530"):
        Cifar10(root=str(tmp_path / "root"), download=False).build()


def _kaggle(root: Path) -> None:
    (root / "train").mkdir()
    (root / "train" / "1.png").write_bytes(b"")
    (root / "trainLabels.csv").write_text("id,label\n1,frog\n")


def _class_folders(root: Path) -> None:
    (root / "cifar10" / "train" / "airplane").mkdir(parents=True)
    (root / "cifar10" / "train" / "airplane" / "1.png").write_bytes(b"")


def _bin_folder(root: Path) -> None:
    (root / "cifar-10-batches-bin").mkdir()
    (root / "cifar-10-batches-bin" / "data_batch_1.bin").write_bytes(b"")


def _matlab(root: Path) -> None:
    (root / "cifar-10-matlab.tar.gz").write_bytes(b"")


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (_kaggle, "{root}/train: Kaggle's images; dataset=folder dataset.path={root}/train takes them"),
        (
            _class_folders,
            "{root}/cifar10/train: a folder of images; dataset=folder dataset.path={root}/cifar10 takes",
        ),
        (_bin_folder, "{root}/cifar-10-batches-bin: the binary version, which cannot be checked once it is extracted"),
        (_matlab, "{root}/cifar-10-matlab.tar.gz: this form is not read; cifar-10-python.tar.gz as published is"),
    ],
)
def test_what_lies_there_in_another_form_is_named(tmp_path: Path, place: Callable[[Path], None], says: str) -> None:
    place(tmp_path)
    with pytest.raises(UserError) as error:
        Cifar10(root=str(tmp_path), download=False).build()
    assert says.format(root=tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_cifar10_as_jpeg_is_a_folder_of_images(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    put(published, tmp_path / "root", FORMS[1])
    folder = tmp_path / "cifar10-jpeg"
    monkeypatch.setattr(sys, "argv", ["jpeg", str(tmp_path / "root"), str(folder)])
    jpeg.main()
    assert capsys.readouterr().out == f"{6 * N} images in {folder}\n"
    train, test, _ = put(published, tmp_path / "again", FORMS[1]).read()
    for name, split in (("train", train), ("test", test)):
        files = {int(path.stem): path for path in folder.glob(f"{name}/*/*.jpg")}
        assert sorted(files) == list(range(len(split)))
        for i, path in files.items():
            assert path.parent.name == CLASSES[split.labels[i]]
            with Image.open(path) as image:
                assert (image.format, image.size) == ("JPEG", (32, 32))
                assert {tuple(table[:3]) for table in image.quantization.values()} == {(8, 6, 5), (9, 9, 12)}  # of 75
                difference = np.asarray(image).transpose(2, 0, 1)[:, 16:] - split.images[i][:, 16:].astype(int)
            assert abs(difference).max() <= 4
    read = load(Folder(path=str(folder), name="cifar10-jpeg"), tmp_path / "cache")
    assert len(read.train) + len(read.val) == 5 * N
    assert len(read.test) == N
    with pytest.raises(SystemExit, match=r"cifar10-jpeg: exists; give the name of a folder that does not"):
        jpeg.main()
