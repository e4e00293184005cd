"""The epochs of a run: kept in its state, and brought to the tracking store when that takes them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from vae_sweep.errors import StoreError
from vae_sweep.tracking import RunRecord

log = logging.getLogger(__name__)

RETRY_AFTER = 30.0  # seconds in which a store that failed is left alone, so that training does not wait for it


class Journal:
    """The metrics of every epoch so far.

    A store that fails does not stop the training: what it lacks is sent again later, with the time at which it was
    measured, so that nothing is recorded twice even where a request arrived and only its answer was lost.
    """

    def __init__(self, record: RunRecord, entries: list[dict[str, float]], stored: Collection[int]) -> None:
        self.entries = entries  # one per epoch: epoch, time_ms and the metrics
        self._record = record
        self._stored = set(stored)  # epochs that the store has
        self._failed_at: float | None = None

    def add(self, epoch: int, metrics: dict[str, float]) -> None:
        """Take in one epoch and try to bring it to the store."""
        self.entries.append({"epoch": epoch, "time_ms": int(time.time() * 1000), **metrics})
        if self._failed_at is not None and time.monotonic() - self._failed_at < RETRY_AFTER:
            return
        try:
            with self._record.hurried():
                self.send()
        except StoreError as error:
            if self._failed_at is None:
                log.warning("%s; training goes on, the metrics are kept on disk and sent later", error)
            self._failed_at = time.monotonic()

    def send(self) -> None:
        """Bring the store what it lacks.

        Raises:
            StoreError: where it still does not take it.
        """
        for entry in self.entries:
            if int(entry["epoch"]) not in self._stored:
                metrics = {key: value for key, value in entry.items() if key not in ("epoch", "time_ms")}
                self._record.log_metrics(metrics, int(entry["epoch"]), int(entry["time_ms"]))
                self._stored.add(int(entry["epoch"]))
        if self._failed_at is not None:
            log.info("the tracking store answers again: it has all epochs up to %d", self.entries[-1]["epoch"])
            self._failed_at = None
