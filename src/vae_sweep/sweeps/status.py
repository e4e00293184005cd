"""What a run is doing, in a small file of its folder: whoever shows the sweep reads it, also from another machine."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from vae_sweep.base.files import atomic_write

FILE = "status.json"
WRITE_EVERY = 1.0  # seconds between two epochs that are written
KEPT = 20  # of the last validation losses, and of the last warnings


@dataclass
class Status:
    """A run as its file says; times are seconds since 1970."""

    name: str
    model: str = ""
    state: str = "waiting"  # then starting, training, measuring; at the end finished, failed or stopped
    reason: str = ""  # why it failed; or its result
    epoch: int = 0
    before: int = 0  # epochs that an earlier process had trained
    val: list[float] = field(default_factory=list)  # the last validation losses
    digits: int = 2  # of a loss
    images_per_s: float | None = None
    left: float | None = None  # seconds of training when it was written
    bound: bool = True  # it takes so long at most
    started: float = 0.0
    measuring: float = 0.0  # when its training ended
    ended: float = 0.0
    written: float = 0.0
    skipped: bool = False  # it was finished before
    warnings: list[str] = field(default_factory=list)
    n_warnings: int = 0

    @property
    def active(self) -> bool:
        """Whether some process works on it."""
        return self.state in ("starting", "training", "measuring")

    @property
    def starts(self) -> bool:
        """Whether its first epoch is yet to come."""
        return self.state in ("waiting", "starting") or (self.state == "training" and self.left is None)

    def left_at(self, now: float) -> float | None:
        """Return the seconds of training that are left."""
        return None if self.left is None else max(self.left - (now - self.written), 0.0)


def read(folder: Path) -> Status | None:
    """Return the status in the folder of a run; None where it has not started, or the disk cannot tell."""
    with suppress(OSError, ValueError, TypeError):
        return Status(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    return None


class Reporter(logging.Handler):
    """Writes the status of a run, with the warnings of its process."""

    def __init__(self, folder: Path, name: str, model: str) -> None:
        super().__init__(logging.WARNING)
        self._folder = folder
        self._writing = threading.RLock()  # warnings may come from a thread that sends epochs
        self.status = Status(name, model)

    @contextmanager
    def active(self) -> Iterator[None]:
        """While inside, the run is being worked on; how the block ends is how the run ends."""
        self.status.started = time.time()
        self.says("starting")
        logging.getLogger().addHandler(self)
        try:
            yield
            self.ends("finished")
        except Exception as error:
            self.ends("failed", str(error).removeprefix(f"{self.status.name}: "))
            raise
        except BaseException:
            self.ends("stopped")
            raise
        finally:
            logging.getLogger().removeHandler(self)

    def epoch(self, val: list[float], images_per_s: float, left: Callable[[], tuple[float, bool]]) -> None:
        """Take in the end of an epoch; ``val``: all validation losses; ``left``: seconds, and whether at most."""
        status = self.status
        if status.left is None:
            status.before = len(val) - 1
        status.epoch, status.val, status.images_per_s = len(val), val[-KEPT:], images_per_s
        if status.left is None or time.time() - status.written >= WRITE_EVERY:
            status.left, status.bound = left()
            self._write()

    def says(self, state: str, reason: str = "") -> None:
        """Write another state."""
        self.status.state, self.status.reason = state, reason or self.status.reason
        if state == "measuring":
            self.status.measuring = time.time()
        self._write()

    def skips(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Write that it was finished before, as that run with these metrics."""
        self.status.skipped, self.status.epoch = True, int(metrics.get("epochs", 0))
        self.status.val = [metrics["best/val_loss"]]
        self.says("starting", f"already finished, as run {run_id[:8]}")

    def ends(self, state: str, reason: str = "") -> None:
        """Write how the run ended."""
        self.status.ended = time.time()
        self.says(state, reason)

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a warning."""
        self.status.warnings = [*self.status.warnings, record.getMessage()][-KEPT:]
        self.status.n_warnings += 1
        self._write()

    def _write(self) -> None:
        with self._writing, suppress(OSError):  # nothing depends on it
            self.status.written = time.time()
            with atomic_write(self._folder / FILE) as file:
                file.write_text(json.dumps(asdict(self.status)), encoding="utf-8")
