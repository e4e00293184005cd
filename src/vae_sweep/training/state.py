"""Snapshots: what a run needs to continue, written after every epoch; the one before is kept beside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from vae_sweep.base.errors import UserError
from vae_sweep.base.files import atomic_write

log = logging.getLogger(__name__)

FORMAT = "vae_sweep-state/3"


def save(folder: Path, content: dict[str, Any]) -> None:
    """Write the state atomically; the last one becomes the previous one.

    Raises:
        UserError: where the disk does not take it; the last state is untouched.
    """
    newest = folder / "state.pt"
    try:
        with atomic_write(newest) as temporary:
            write({"format": FORMAT, **content}, temporary)
            if newest.exists():
                os.replace(newest, folder / "state.previous.pt")
    except OSError as error:
        raise UserError(
            f"{newest}: cannot be written ({error.strerror}); fix that, then the same command continues after the last "
            "saved epoch"
        ) from error


def write(content: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values, on disk when it returns.

    Raises:
        OSError: where the disk does not take it.
        KeyboardInterrupt: where it came meanwhile; PyTorch hides both behind a RuntimeError of its own.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except RuntimeError as error:
        hidden = error.__context__
        if isinstance(hidden, OSError) or (hidden is not None and not isinstance(hidden, Exception)):
            raise hidden from None
        raise


def load(folder: Path) -> dict[str, Any] | None:
    """Return the newest state that can be read, or None; says so where it had to fall back."""
    for path in (folder / "state.pt", folder / "state.previous.pt"):
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if content["format"] == FORMAT:
                return content
            log.warning("%s: written by another version; it is ignored", path)
        except Exception as error:
            log.warning(
                "%s: cannot be read (%s); an older snapshot is used, if there is one", path, type(error).__name__
            )
    return None


def clear(folder: Path) -> None:
    """Delete the snapshots of a run that is finished or starts afresh."""
    for name in ("state.pt", "state.previous.pt", "state.pt.tmp"):
        (folder / name).unlink(missing_ok=True)
