"""A result that takes a while, which processes that import nothing else ask for at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vae_sweep.base.cache import cached


def compute_slowly(folder: str) -> dict[str, int]:
    def compute() -> dict[str, int]:
        with (Path(folder) / "log").open("a") as file:
            file.write("computed\n")
        time.sleep(0.5)
        return {"pid": os.getpid()}

    return cached(Path(folder), "slow", 1, ("pid",), compute)
