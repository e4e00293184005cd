"""Files that no reader ever sees half written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give a temporary path beside ``path``; the file written there becomes ``path`` when the block ends.

    After an error ``path`` is as it was, and the temporary file is removed. What a killed process leaves is
    overwritten. Where several processes may write at once, each needs its own ``suffix``.
    """
    temporary = path.with_name(f"{path.name}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
