"""CIFAR-10 as its authors publish it: the archive, or the folder extracted from it."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pooch

from vae_sweep.base import working
from vae_sweep.base.cache import once
from vae_sweep.base.errors import UserError
from vae_sweep.base.network import why_unreachable
from vae_sweep.datasets.base import ORIGINS, Built, Source, Split, check_common, draw_fraction, hold_out_or_fail

log = logging.getLogger(__name__)

STALL_SECONDS = 30.0  # a download that gets nothing for so long has failed
pooch.get_logger().setLevel(logging.WARNING)  # the log of a run names each download
BINARY = "cifar-10-binary.tar.gz"
BINARY_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # from the authors' page, which has none of the files in it
BINARY_BATCHES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
RECORD = 1 + 3 * 32 * 32  # bytes of an image in it: its label, then its channels


@dataclass(kw_only=True)
class Cifar10(Source):
    """60,000 images of 32x32 pixels in 10 classes: 50,000 for training and validation, 10,000 for test.

    Raises:
        UserError: for a setting out of range.
    """

    fixed_splits = True
    name: str = "cifar10"
    root: str  # has the archive or cifar-10-batches-py/, itself or one folder deeper; downloads go here
    download: bool = True  # download the archive where neither is there
    fraction: float = 1.0  # share of the training images to use
    val_fraction: float = 0.1  # share of those held out for validation
    split_seed: int = 0  # draws subset and validation split

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """Return the official checksums and the split settings.

        The files are checked against these checksums whenever they are read, so archive and folder give the same
        arrays and share one cache. The binary version, read where there is no other, has its own.
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
        """Return uint8 (N, 3, 32, 32) in the order of the files, after subset and held-out validation split."""
        train, test, classes = self.read()
        pool = draw_fraction(len(train.labels), self.fraction, self.split_seed)
        kept, held = hold_out_or_fail(len(pool), "val_fraction", self.val_fraction, self.split_seed)
        splits = {
            "train": _select(train, pool[kept]),
            "val": _select(train, pool[held]),
            "test": _select(test, np.arange(len(test.labels))),
        }
        origins = {"train": "data_batch_1 to 5", "val": "drawn from train", "test": "test_batch"}
        return Built(
            splits, {"source": "CIFAR-10 (Krizhevsky 2009)", "classes": classes, "skipped": 0, ORIGINS: origins}
        )

    def read(self) -> tuple[Split, Split, list[str]]:
        """Return all training images, all test images and the class names, in the order of the files.

        Raises:
            UserError: where the files are missing or are not the published ones.
        """
        return _read_binary(self._binary) if self._binary else self._read()

    def _read(self) -> tuple[Split, Split, list[str]]:
        """Training images, test images and class names of the Python version."""
        with self._checked_folder() as folder, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # of NumPy, about arrays pickled in 2009
            named = type("Named", (_torchvision(),), {"base_folder": folder.name})  # of any name
            found = [named(folder.parent, train=train) for train in (True, False)]
        train, test = (
            Split(dataset.data.transpose(0, 3, 1, 2), np.asarray(dataset.targets, np.int64)) for dataset in found
        )
        return train, test, list(found[0].classes)

    @property
    def is_there(self) -> bool:
        """Whether nothing needs to be downloaded; the files are not checked yet."""
        return bool(self._extracted or self._packed or self._binary)

    @property
    def _archive(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().filename

    @property
    def _batches(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().base_folder

    @property
    def _folders(self) -> list[Path]:
        """Where the data may be: the root and the folders in it."""
        root = self._archive.parent
        if not root.is_dir():
            return [root]
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [root, *(path for path in folders if os.access(path, os.R_OK | os.X_OK))]

    @property
    def _extracted(self) -> Path | None:
        """A folder with every file of the Python version."""
        folders = [*(folder / self._batches.name for folder in self._folders), *self._folders]
        names = [name for name, _ in _official_files()]
        return next((folder for folder in folders if all((folder / name).is_file() for name in names)), None)

    @property
    def _packed(self) -> Path | None:
        """An archive of the Python version, as published or without its compression."""
        names = [_torchvision().filename, _torchvision().filename.removesuffix(".gz")]
        archives = (folder / name for name in names for folder in self._folders)
        return next((archive for archive in archives if archive.is_file()), None)

    @property
    def _binary(self) -> Path | None:
        """The archive of the binary version, where there is no other; its extracted files cannot be checked."""
        if self._batches.is_dir() or self._extracted or self._packed:
            return None
        return next((folder / BINARY for folder in self._folders if (folder / BINARY).is_file()), None)

    @contextlib.contextmanager
    def _checked_folder(self) -> Iterator[Path]:
        """A folder of the Python version, every file checked; temporary where it comes from an archive."""
        extracted = self._extracted or (self._batches if self._batches.is_dir() and not self._packed else None)
        if extracted:
            for name, md5 in _official_files():
                _check_md5(extracted / name, md5, f"delete {extracted} and extract the archive again")
            yield extracted
            return
        archive_path = self._packed or self._download()
        if archive_path.suffix == ".gz":
            _check_md5(archive_path, _torchvision().tgz_md5, "delete it and fetch it again; it was not extracted")
        with tempfile.TemporaryDirectory(prefix="cifar10-") as scratch:
            base = Path(scratch, self._batches.name)
            base.mkdir()
            with _opened(archive_path) as archive:
                for name, md5 in _official_files():  # by name: nothing else is extracted
                    with _member(archive, f"{base.name}/{name}") as member, (base / name).open("wb") as file:
                        shutil.copyfileobj(member, file)
                    _check_md5(base / name, md5, f"delete {archive_path} and fetch it again")
            yield base

    def _download(self) -> Path:
        """Download the archive; it appears under its own name only if its checksum is right."""
        official = _torchvision()
        if not self.download:
            raise self._missing("dataset.download=false")

        def read(path: Path) -> Path:
            path.stat()
            return path

        def download() -> Path:
            if failure := why_unreachable(official.url):
                raise self._missing(f"{official.url} cannot be reached ({failure})")
            log.info("downloading %s (170 MB) to %s", official.url, self._archive)
            bar = sys.stderr.isatty() and working.show is None
            fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=2**16, timeout=STALL_SECONDS)
            with working.working(f"downloading {official.filename}"):
                found = pooch.retrieve(
                    official.url, f"md5:{official.tgz_md5}", official.filename, self._archive.parent, downloader=fetch
                )
            Path(found).chmod(0o644)  # pooch leaves it readable by its owner alone
            return Path(found)

        try:
            return once(self._archive, read, download)
        except (OSError, ValueError) as error:  # ValueError: another checksum
            raise self._missing(f"the download from {official.url} failed ({error})") from None

    def _missing(self, why: str) -> UserError:
        others = [(folder / name, advice) for folder in self._folders for name, advice in _other_forms(folder)]
        found = "".join(f"; {path}: {advice}" for path, advice in others)
        return UserError(
            f"dataset=cifar10: CIFAR-10 is not there and {why}; put the archive at {self._archive} or the folder "
            f"extracted from it at {self._batches}{found}; dataset=shapes works without any download"
        )


def _other_forms(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of CIFAR-10 in a form that is not read or cannot be checked, and what to do."""
    if next((folder / "train").glob("*.png"), None) and (folder / "trainLabels.csv").is_file():
        yield "train", f"Kaggle's images; dataset=folder dataset.path={folder / 'train'} takes them"
    elif next((folder / "train").glob("*/*.*"), None):
        yield "train", f"a folder of images; dataset=folder dataset.path={folder} takes them"
    if any((folder / name).is_file() for name in BINARY_BATCHES):
        yield "", f"the binary version, which cannot be checked once it is extracted; its archive {BINARY} can be read"
    others = ("cifar*.mat", "cifar-10-matlab*", "cifar*.tar", "cifar*.tgz", "cifar*.zip", "*.parquet", "train.7z")
    for path in sorted({path for pattern in others for path in folder.glob(pattern)}):
        yield path.name, f"this form is not read; {_torchvision().filename} as published is"


def _select(split: Split, indices: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(split.images[indices]), split.labels[indices])


def _read_binary(path: Path) -> tuple[Split, Split, list[str]]:
    """Like :meth:`Cifar10._read`, from the archive of the binary version."""
    _check_md5(path, BINARY_MD5, "delete it and fetch it again; it was not extracted")
    records, base = [], "cifar-10-batches-bin"
    with _opened(path) as archive:
        for name in BINARY_BATCHES:
            with _member(archive, f"{base}/{name}") as member:
                records.append(np.frombuffer(member.read(), np.uint8).reshape(-1, RECORD))
        with _member(archive, f"{base}/batches.meta.txt") as member:
            classes = member.read().decode("ascii").split()
    train, test = (
        Split(rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64))
        for rows in (np.concatenate(records[:5]), records[5])
    )
    return train, test, classes


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """The archive.

    Raises:
        UserError: where it is not an archive, or the block asks for a file that it does not have.
    """
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
        raise UserError(
            f"dataset=cifar10: {path} is not the official archive ({error.args[0]}); delete it and fetch it again"
        ) from None


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """A file in the archive; KeyError where there is no file of this name."""
    member = archive.extractfile(name)
    if member is None:
        raise KeyError(f"{name} is not a file")
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
    if not path.is_file():
        raise UserError(f"dataset=cifar10: {path} is missing; {advice}")
    found = pooch.file_hash(str(path), alg="md5")
    if found != expected:
        size = path.stat().st_size
        raise UserError(
            f"dataset=cifar10: {path} is damaged or incomplete: md5 expected {expected}, found {found} "
            f"({size:,} bytes); {advice}"
        )
