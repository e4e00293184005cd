"""CIFAR-10 as its authors publish it: an archive, or the folder extracted from it, wherever it was put."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import socket
import tarfile
import tempfile
import threading
import urllib.request
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.base import ORIGINS, Built, Source, Split, check_common, draw_fraction, hold_out_or_fail

log = logging.getLogger(__name__)

PROBE_SECONDS = 4.0  # for the whole question whether the host answers, name look-up included
STALL_SECONDS = 30.0  # a download that gets nothing for so long has failed
BINARY = "cifar-10-binary.tar.gz"
BINARY_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # of the authors' page; its files have no published sums of their own
BINARY_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORD = 1 + 3 * 32 * 32  # bytes of a picture there: its label, then its channels


@dataclass(frozen=True)
class Pictures:
    """All pictures of one of the two published splits."""

    images: np.ndarray  # uint8 (N, 3, 32, 32)
    labels: np.ndarray  # int64 (N,)

    def split(self, indices: np.ndarray) -> Split:
        return Split(np.ascontiguousarray(self.images[indices]), self.labels[indices])


@dataclass(kw_only=True)
class Cifar10(Source):
    """60,000 pictures of 32x32 pixels in 10 classes: 50,000 for training and validation, 10,000 for test.

    Raises:
        UserError: a setting is out of range.
    """

    name: str = "cifar10"
    root: str  # holds an archive or cifar-10-batches-py/, itself or one folder deeper; a download lands here
    download: bool = True  # fetch the archive when neither is there
    fraction: float = 1.0  # share of the training images to use
    val_fraction: float = 0.1  # share of those held out for validation
    split_seed: int = 0  # draws subset and validation split

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """The official checksums and the split settings.

        The files are held against these checksums whenever they are read, so archive and folder give the
        same arrays and share one cache. The binary version, read where there is no other, has its own.
        """
        official = _torchvision()
        sums: list[Any] = [list(entry) for entry in official.train_list + official.test_list]
        if self._binary:
            sums = [[BINARY, BINARY_MD5]]
        return {
            "format": 1,
            "md5": sums,
            "fraction": self.fraction,
            "val_fraction": self.val_fraction,
            "split_seed": self.split_seed,
        }

    def build(self) -> Built:
        """uint8 (N, 3, 32, 32) in the order of the files, after subset and held-out validation split."""
        train, test, classes = _read_binary(self._binary) if self._binary else self._read()
        pool = draw_fraction(len(train.labels), self.fraction, self.split_seed)
        kept, held = hold_out_or_fail(len(pool), "val_fraction", self.val_fraction, self.split_seed)
        splits = {
            "train": train.split(pool[kept]),
            "val": train.split(pool[held]),
            "test": test.split(np.arange(len(test.labels))),
        }
        origins = {"train": "data_batch_1 to 5", "val": "drawn from train", "test": "test_batch"}
        return Built(
            splits, {"source": "CIFAR-10 (Krizhevsky 2009)", "classes": classes, "skipped": 0, ORIGINS: origins}
        )

    def _read(self) -> tuple[Pictures, Pictures, list[str]]:
        """Training pictures, test pictures and class names of the Python version."""
        with self._batches() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # NumPy's, about how arrays were pickled in 2009
            named = type("Named", (_torchvision(),), {"base_folder": folder.name})  # whatever the folder is called
            found = [named(folder.parent, train=train) for train in (True, False)]
        train, test = (
            Pictures(dataset.data.transpose(0, 3, 1, 2), np.asarray(dataset.targets, np.int64)) for dataset in found
        )
        return train, test, list(found[0].classes)

    @property
    def _archive(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().filename

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().base_folder

    @property
    def _homes(self) -> list[Path]:
        """Where the data may lie: the root and the folders in it."""
        root = self._archive.parent
        if not root.is_dir():
            return [root]
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [root, *(path for path in folders if os.access(path, os.R_OK | os.X_OK))]

    @property
    def _extracted(self) -> Path | None:
        """A folder that holds every file of the Python version."""
        folders = [*(home / self._folder.name for home in self._homes), *self._homes]
        names = [name for name, _ in _official_files()]
        return next((folder for folder in folders if all((folder / name).is_file() for name in names)), None)

    @property
    def _packed(self) -> Path | None:
        """An archive of the Python version, as published or without its compression."""
        names = [_torchvision().filename, _torchvision().filename.removesuffix(".gz")]
        archives = (home / name for name in names for home in self._homes)
        return next((archive for archive in archives if archive.is_file()), None)

    @property
    def _binary(self) -> Path | None:
        """The archive of the binary version, where there is no other; its folder alone cannot be checked."""
        if self._folder.is_dir() or self._extracted or self._packed:
            return None
        return next((home / BINARY for home in self._homes if (home / BINARY).is_file()), None)

    @contextlib.contextmanager
    def _batches(self) -> Iterator[Path]:
        """A folder of the Python version with every file checked; temporary if it came from an archive."""
        extracted = self._extracted or (self._folder if self._folder.is_dir() and not self._packed else None)
        if extracted:
            for name, md5 in _official_files():
                _check_md5(extracted / name, md5, f"delete {extracted} and extract the archive again")
            yield extracted
            return
        archive_path = self._packed
        if archive_path is None:
            self._download()
            archive_path = self._archive
        if archive_path.suffix == ".gz":
            _check_md5(archive_path, _torchvision().tgz_md5, "delete it and fetch it again; it was not extracted")
        with tempfile.TemporaryDirectory(prefix="cifar10-") as scratch:
            base = Path(scratch, self._folder.name)
            base.mkdir()
            with _opened(archive_path) as archive:
                for name, md5 in _official_files():  # by name, to names of our own: nothing else is extracted
                    with _member(archive, f"{base.name}/{name}") as member, (base / name).open("wb") as file:
                        shutil.copyfileobj(member, file)
                    _check_md5(base / name, md5, f"delete {archive_path} and fetch it again")
            yield base

    def _download(self) -> None:
        """Fetch the archive; it appears under its own name only when it is whole."""
        from torchvision.datasets.utils import download_url

        root = self._archive.parent
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(self._archive.with_suffix(".lock")), _stall_limit():
                if self._archive.is_file():
                    return  # another process was faster
                self._explain_or_probe()
                log.info("downloading %s (170 MB) to %s", _torchvision().url, self._archive)
                with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=root) as scratch:
                    with contextlib.redirect_stdout(io.StringIO()):
                        download_url(_torchvision().url, scratch, _torchvision().filename, _torchvision().tgz_md5)
                    Path(scratch, _torchvision().filename).replace(self._archive)
        except (OSError, RuntimeError) as error:
            raise self._missing(f"the download from {_torchvision().url} failed ({error})") from None

    def _explain_or_probe(self) -> None:
        """Return if a download is allowed and its host answers."""
        if not self.download:
            raise self._missing("dataset.download=false")
        failure = _probe(_torchvision().url)
        if failure:
            raise self._missing(f"{_torchvision().url} cannot be reached ({failure})")

    def _missing(self, why: str) -> UserError:
        found = "".join(f"; {home / what}: {advice}" for home in self._homes for what, advice in _other_forms(home))
        return UserError(
            f"dataset=cifar10: CIFAR-10 is not there and {why}; put the archive at {self._archive} or the folder "
            f"extracted from it at {self._folder}{found}; dataset=shapes works now, without any download"
        )


def _other_forms(home: Path) -> Iterator[tuple[str, str]]:
    """Names in a folder that hold CIFAR-10 in a form that is not read or cannot be checked, and what to do."""
    if next((home / "train").glob("*.png"), None) and (home / "trainLabels.csv").is_file():
        yield "train", f"Kaggle's pictures; dataset=folder dataset.path={home / 'train'} takes them"
    elif next((home / "train").glob("*/*.*"), None):
        yield "train", f"a folder of pictures; dataset=folder dataset.path={home} takes them"
    if any((home / name).is_file() for name in BINARY_BATCHES):
        yield "", f"the binary version, which cannot be checked once it is extracted; its archive {BINARY} can be read"
    others = ("cifar*.mat", "cifar-10-matlab*", "cifar*.tar", "cifar*.tgz", "cifar*.zip", "*.parquet", "train.7z")
    for path in sorted({path for pattern in others for path in home.glob(pattern)}):
        yield path.name, f"this form is not read; {_torchvision().filename} as published is"


def _read_binary(path: Path) -> tuple[Pictures, Pictures, list[str]]:
    """As :meth:`Cifar10._read`, from the archive of the binary version."""
    _check_md5(path, BINARY_MD5, "delete it and fetch it again; it was not extracted")
    records, base = [], "cifar-10-batches-bin"
    with _opened(path) as archive:
        for name in BINARY_BATCHES:
            with _member(archive, f"{base}/{name}") as member:
                records.append(np.frombuffer(member.read(), np.uint8).reshape(-1, RECORD))
        with _member(archive, f"{base}/batches.meta.txt") as member:
            classes = member.read().decode("ascii").split()
    train, test = (
        Pictures(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))
        for rows in (np.concatenate(records[:5]), records[5])
    )
    return train, test, classes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive.

    Raises:
        UserError: it is none, or what is read from it is not there.
    """
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        raise UserError(
            f"dataset=cifar10: {path} is not the official archive ({error.args[0]}); delete it and fetch it again"
        ) from None


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file in the archive; KeyError where there is none of this name."""
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(f"{name} is no file")
    return member


def _torchvision() -> Any:
    from torchvision.datasets import CIFAR10  # here, because the import takes seconds

    return CIFAR10


def _official_files() -> list[tuple[str, str]]:
    """(name, md5) of the files in cifar-10-batches-py/."""
    official = _torchvision()
    files = [(name, md5) for name, md5 in official.train_list + official.test_list]
    return [*files, (official.meta["filename"], official.meta["md5"])]


def _check_md5(path: Path, expected: str, advice: str) -> None:
    from torchvision.datasets.utils import calculate_md5

    if not path.is_file():
        raise UserError(f"dataset=cifar10: {path} is missing; {advice}")
    found = calculate_md5(path)
    if found != expected:
        size = path.stat().st_size
        raise UserError(
            f"dataset=cifar10: {path} is damaged or incomplete: md5 expected {expected}, found {found} "
            f"({size:,} bytes); {advice}"
        )


def _probe(url: str) -> str | None:
    """None if the host of `url` answers, through the proxy if one is set; else why not, in PROBE_SECONDS."""
    outcome: list[str | None] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                outcome.append(None)
        except Exception as error:
            outcome.append(str(getattr(error, "reason", None) or error))

    thread = threading.Thread(target=ask, daemon=True)  # a name look-up knows no time limit of its own
    thread.start()
    thread.join(PROBE_SECONDS)
    return outcome[0] if outcome else f"no answer within {PROBE_SECONDS:.0f} s"


@contextlib.contextmanager
def _stall_limit() -> Iterator[None]:
    """Give sockets that set no limit of their own one."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
