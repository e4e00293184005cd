"""CIFAR-10 as its authors publish it, read by torchvision: the archive, or the folder extracted from it."""

from __future__ import annotations

import contextlib
import io
import logging
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
from typing import Any

import numpy as np
from filelock import FileLock

from vae_sweep.datasets.base import Built, Source, Split, check_common, draw_fraction, hold_out_or_fail
from vae_sweep.errors import UserError

log = logging.getLogger(__name__)

PROBE_SECONDS = 4.0  # for the whole question whether the host answers, name look-up included
STALL_SECONDS = 30.0  # a download that gets nothing for so long has failed


@dataclass(kw_only=True)
class Cifar10(Source):
    """60,000 pictures of 32x32 pixels in 10 classes: 50,000 for training and validation, 10,000 for test.

    Raises:
        UserError: a setting is out of range.
    """

    name: str = "cifar10"
    root: str  # holds cifar-10-python.tar.gz or cifar-10-batches-py/; a download lands here
    download: bool = True  # fetch the archive when neither is there
    fraction: float = 1.0  # share of the training images to use
    val_fraction: float = 0.1  # share of those held out for validation
    split_seed: int = 0  # draws subset and validation split

    def __post_init__(self) -> None:
        check_common(self)

    def fingerprint(self) -> dict[str, Any]:
        """The official checksums and the split settings.

        The files are held against these checksums whenever they are read, so archive and folder give the
        same arrays and share one cache.
        """
        official = _torchvision()
        return {
            "format": 1,
            "md5": [list(entry) for entry in official.train_list + official.test_list],
            "fraction": self.fraction,
            "val_fraction": self.val_fraction,
            "split_seed": self.split_seed,
        }

    def build(self) -> Built:
        """uint8 (N, 3, 32, 32) in the order of the files, after subset and held-out validation split."""
        with self._batches() as root, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # NumPy's, about how arrays were pickled in 2009
            train = _torchvision()(root, train=True)
            test = _torchvision()(root, train=False)
        pool = draw_fraction(len(train), self.fraction, self.split_seed)
        kept, held = hold_out_or_fail(len(pool), "val_fraction", self.val_fraction, self.split_seed)
        splits = {
            "train": _split(train, pool[kept]),
            "val": _split(train, pool[held]),
            "test": _split(test, np.arange(len(test))),
        }
        return Built(splits, {"source": "CIFAR-10 (Krizhevsky 2009)", "classes": list(train.classes), "skipped": 0})

    @property
    def _archive(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().filename

    @property
    def _folder(self) -> Path:
        return Path(self.root).expanduser().absolute() / _torchvision().base_folder

    @contextlib.contextmanager
    def _batches(self) -> Iterator[Path]:
        """A folder that holds cifar-10-batches-py/ with every file checked; temporary if it came from the archive."""
        whole = all((self._folder / name).is_file() for name, _ in _official_files())
        if whole or (self._folder.is_dir() and not self._archive.is_file()):
            for name, md5 in _official_files():
                _check_md5(self._folder / name, md5, f"delete {self._folder} and extract the archive again")
            yield self._folder.parent
            return
        if not self._archive.is_file():
            self._download()
        _check_md5(self._archive, _torchvision().tgz_md5, "delete it and fetch it again; it was not extracted")
        with tempfile.TemporaryDirectory(prefix="cifar10-") as scratch:
            base = Path(scratch, self._folder.name)
            base.mkdir()
            try:
                with tarfile.open(self._archive) as archive:
                    for name, md5 in _official_files():  # by name, to names of our own: nothing else is extracted
                        member = archive.extractfile(f"{base.name}/{name}")
                        if member is None:
                            raise KeyError(f"{name} is no file")
                        with member, (base / name).open("wb") as file:
                            shutil.copyfileobj(member, file)
                        _check_md5(base / name, md5, "the archive passed its own check, so this should not happen")
            except (tarfile.TarError, KeyError, EOFError, zlib.error) as error:
                raise UserError(
                    f"dataset=cifar10: {self._archive} is not the official archive ({error.args[0]}); "
                    "delete it and fetch it again"
                ) from None
            yield Path(scratch)

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
        return UserError(
            f"dataset=cifar10: CIFAR-10 is not there and {why}; put the archive at {self._archive} or the folder "
            f"extracted from it at {self._folder}; dataset=shapes works now, without any download"
        )


def _torchvision() -> Any:
    from torchvision.datasets import CIFAR10  # here, because the import takes seconds

    return CIFAR10


def _official_files() -> list[tuple[str, str]]:
    """(name, md5) of the files in cifar-10-batches-py/."""
    official = _torchvision()
    files = [(name, md5) for name, md5 in official.train_list + official.test_list]
    return [*files, (official.meta["filename"], official.meta["md5"])]


def _split(dataset: Any, indices: np.ndarray) -> Split:
    images = np.ascontiguousarray(dataset.data[indices].transpose(0, 3, 1, 2))  # (N, 32, 32, 3) -> (N, 3, 32, 32)
    return Split(images, np.asarray(dataset.targets, np.int64)[indices])


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
