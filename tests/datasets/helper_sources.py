"""Small sources for the tests of the cache, importable by name and by spawned processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vae_sweep.datasets import Built, Source, Split, load


def split(n: int, start: int = 0) -> Split:
    images = (np.arange(start, start + n * 12) % 251).astype(np.uint8).reshape(n, 3, 2, 2)
    return Split(images, np.arange(n, dtype=np.int64))


class Counting(Source):
    """Appends a line to `log` whenever it is built."""

    def __init__(self, log: str, seconds: float = 0.0, size: int = 5) -> None:
        self.name = "counting"
        self.log, self.seconds, self.size = Path(log), seconds, size

    def fingerprint(self) -> dict[str, Any]:
        return {"format": 1, "size": self.size}

    def build(self) -> Built:
        with self.log.open("a") as file:
            file.write("built\n")
        time.sleep(self.seconds)
        splits = {"train": split(self.size), "val": split(2, 7), "test": split(3, 100)}
        return Built(splits, {"classes": ["a", "b"], "skipped": 0})

    @property
    def builds(self) -> int:
        return len(self.log.read_text().splitlines())


class NotASource:
    called = False

    def __init__(self) -> None:
        NotASource.called = True


class Unfinished(Source):
    def fingerprint(self) -> dict[str, Any]:
        return {}


def load_and_digest(log: str, cache_root: str) -> str:
    return load(Counting(log, seconds=0.5), Path(cache_root)).digest
