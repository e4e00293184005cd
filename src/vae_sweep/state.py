"""What a run needs to go on after an interruption: written after every epoch, the one before kept beside it."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

FORMAT = "vae_sweep-state/1"


def folder_of(root: Path, sweep: str, run: str = "") -> Path:
    """Return where a sweep, or a run of it, keeps its lock and what it needs to continue."""
    return root / "outputs" / "state" / sweep / run


def stop_file(root: Path, sweep: str) -> Path:
    """Return the file whose presence tells the cells of a sweep to stop."""
    return folder_of(root, sweep) / "stop"


def save(folder: Path, content: dict[str, Any]) -> None:
    """Write the state atomically; the last one becomes the previous one."""
    temporary, newest = folder / "state.pt.tmp", folder / "state.pt"
    with temporary.open("wb") as file:
        torch.save({"format": FORMAT, **content}, file)
        file.flush()
        os.fsync(file.fileno())
    if newest.exists():
        os.replace(newest, folder / "state.previous.pt")
    os.replace(temporary, newest)


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
