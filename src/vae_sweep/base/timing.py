"""Wall time of the parts of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Add the wall time of the block to ``seconds[part]``, also where it fails."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started


def listed(seconds: dict[str, float]) -> str:
    """Return the parts as text: ``latents 0.5, probe 0.1``."""
    return ", ".join(f"{part} {value:.1f}" for part, value in seconds.items())
