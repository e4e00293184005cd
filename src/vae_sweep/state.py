"""What a run needs to go on after an interruption: written after every epoch, the one before kept beside it."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import torch

from vae_sweep.errors import UserError, first_line

log = logging.getLogger(__name__)

FORMAT = "vae_sweep-state/1"


def save(folder: Path, content: dict[str, Any]) -> None:
    """Write the state atomically; the last one becomes the previous one.

    Raises:
        UserError: where the disk does not take it; the last state is untouched.
    """
    temporary, newest = folder / "state.pt.tmp", folder / "state.pt"
    try:
        with temporary.open("wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if newest.exists():
            os.replace(newest, folder / "state.previous.pt")
        os.replace(temporary, newest)
    except (OSError, RuntimeError) as error:  # torch.save closes its archive with a RuntimeError when the disk is full
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{newest}: cannot be written ({_cause(error)}); mend that, and the same command continues after the last "
            "epoch that was kept"
        ) from error


def _cause(error: BaseException) -> str:
    """The operating system's words, where it is behind the error."""
    while not isinstance(error, OSError) and error.__context__ is not None:
        error = error.__context__
    return error.strerror or str(error) if isinstance(error, OSError) else first_line(error)


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest state that can be read, or None; says so where it had to fall back."""
    for path in (folder / "state.pt", folder / "state.previous.pt"):
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] == FORMAT:
                return content
            log.warning("%s: of another format; it is not used", path)
        except Exception as error:
            log.warning("%s: cannot be read (%s); an older state or none is used", path, type(error).__name__)
    return None


def clear(folder: Path) -> None:
    """Forget the state of a run that is finished or starts afresh."""
    for name in ("state.pt", "state.previous.pt", "state.pt.tmp"):
        (folder / name).unlink(missing_ok=True)
