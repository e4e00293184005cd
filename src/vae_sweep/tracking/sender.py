"""The epochs of a run: kept in its state, and sent to the tracking store while training goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

from vae_sweep.base.errors import StoreError
from vae_sweep.tracking.store import RunRecord

log = logging.getLogger(__name__)

RETRY_AFTER = 30.0  # seconds in which a store that failed is left alone
UNDER_WAY = 1.0  # seconds for the request that is under way, before the rest is sent beside it


class EpochSender:
    """The metrics of every epoch so far, sent by a thread of its own: no update waits for a store.

    A store that fails or does not answer does not stop the training: what it lacks is sent again later, in order and
    with the time at which it was measured, so that nothing is recorded twice even where a request arrived and only its
    answer was lost. MLflow's own asynchronous logging does not fit: it drops a batch that failed, and waits for its
    queue without a limit when the process ends.
    """

    def __init__(self, record: RunRecord, entries: list[dict[str, float]], stored: Collection[int]) -> None:
        self.entries = entries  # one per epoch: epoch, time_ms and the metrics
        self._record, self._hurried = record, record.without_retries()
        self._stored = set(stored)  # epochs that the store has
        self._failed = False
        self._lock = threading.Lock()  # of _sender
        self._sender: threading.Thread | None = None  # while there is something to send
        self._closing = threading.Event()

    def add(self, epoch: int, metrics: dict[str, float]) -> None:
        """Take in one epoch; it is sent in the background."""
        self.entries.append({"epoch": epoch, "time_ms": int(time.time() * 1000), **metrics})
        with self._lock:
            if self._sender is None:
                # A daemon: a process that ends does not wait for it, since the run's state has the epochs, too.
                self._sender = threading.Thread(target=self._send_all, name="vae_sweep-epochs", daemon=True)
                self._sender.start()

    def send(self) -> None:
        """Send what the store still lacks; it is waited for as in all calls of the run.

        Raises:
            StoreError: where it does not take it.
        """
        self._closing.set()
        sender = self._sender
        if sender is not None:
            sender.join(UNDER_WAY)
        for entry in self._missing():
            self._send(self._record, entry)

    def _send_all(self) -> None:
        """The thread: send, in order, until nothing is left."""
        while not self._closing.is_set():
            with self._lock:
                missing = self._missing()
                if not missing:
                    self._sender = None
                    return
            try:
                self._send(self._hurried, missing[0])
            except StoreError as error:
                if not self._failed:
                    log.warning("%s; training goes on, the metrics are kept on disk and sent later", error)
                self._failed = True
                self._closing.wait(RETRY_AFTER)

    def _missing(self) -> list[dict[str, float]]:
        return [entry for entry in self.entries if int(entry["epoch"]) not in self._stored]

    def _send(self, record: RunRecord, entry: dict[str, float]) -> None:
        metrics = {key: value for key, value in entry.items() if key not in ("epoch", "time_ms")}
        record.log_metrics(metrics, int(entry["epoch"]), int(entry["time_ms"]))
        self._stored.add(int(entry["epoch"]))
        if self._failed and not self._missing():
            log.info("the tracking store answers again: it has all epochs up to %d", entry["epoch"])
            self._failed = False
