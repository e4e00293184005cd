"""Sends the metrics of each epoch, and images of some epochs, to the tracking store while training goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Any

import numpy as np

from vae_sweep.base.errors import StoreError
from vae_sweep.tracking.record import RunRecord

log = logging.getLogger(__name__)

RETRY_AFTER = 30.0  # seconds between requests to a store that fails
JOIN_WITHIN = 1.0  # seconds for the current request of the thread to end, before the rest is sent without it


class EpochSender:
    """Sends the metrics of every epoch, and images, from a thread of its own, so that no update waits for the store.

    A store that fails or does not answer does not stop the training: the epochs stay in the run's state on disk and are
    sent later, in order and with the time at which they were measured. An epoch that is sent twice, because its answer
    was lost, is stored once.

    MLflow's asynchronous logging (3.13 to 3.17) logs the error of a failed batch and drops the batch, and its ten
    worker threads send batches out of order. ``RunOperations.wait`` and its exit handler wait without a time limit, so
    a silent server would keep the process from ending.
    """

    def __init__(
        self,
        record: RunRecord,
        entries: list[dict[str, float]],
        stored: Collection[int],
        images: list[dict[str, Any]] | None = None,
        stored_images: Collection[tuple[str, int]] = (),
    ) -> None:
        self.entries = entries  # one per epoch: epoch, time_ms and the metrics
        self.images = [] if images is None else images  # not yet stored: key, epoch, time_ms, pixels
        self._record, self._once = record, record.without_retries()
        self._stored = set(stored)  # epochs that the store has
        self._stored_images = set(stored_images)  # key and epoch
        self._failed = False
        self._lock = threading.Lock()  # of _thread
        self._thread: threading.Thread | None = None  # while there is something to send
        self._closing = threading.Event()

    def add(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add an epoch and return; the thread sends it."""
        self.entries.append({"epoch": epoch, "time_ms": int(time.time() * 1000), **metrics})
        self._wake()

    def add_image(self, key: str, epoch: int, pixels: Any) -> None:
        """Add an image, a uint8 tensor (H, W, C), and return; the thread sends it unless the store has it."""
        self.images.append({"key": key, "epoch": epoch, "time_ms": int(time.time() * 1000), "pixels": pixels})
        self._wake()

    def _wake(self) -> None:
        with self._lock:
            if self._thread is None:
                # A daemon: the process need not wait for it, since the run's state on disk has the epochs, too.
                self._thread = threading.Thread(target=self._send_all, name="vae_sweep-epochs", daemon=True)
                self._thread.start()

    def send(self) -> None:
        """Send all epochs and images that the store lacks, with the run's retries.

        Raises:
            StoreError: where the store fails.
        """
        self._closing.set()
        thread = self._thread
        if thread is not None:
            thread.join(JOIN_WITHIN)
        for entry in [*self._missing(), *self.images]:
            self._send(self._record, entry)

    def _send_all(self) -> None:
        """The thread: send in order until nothing is left."""
        while not self._closing.is_set():
            with self._lock:
                missing = [*self._missing(), *self.images]
                if not missing:
                    self._thread = None
                    return
            try:
                self._send(self._once, missing[0])
            except StoreError as error:
                if not self._failed:
                    log.warning("%s; training goes on, the metrics are kept on disk and sent later", error)
                self._failed = True
                self._closing.wait(RETRY_AFTER)

    def _missing(self) -> list[dict[str, float]]:
        return [entry for entry in self.entries if int(entry["epoch"]) not in self._stored]

    def _send(self, record: RunRecord, entry: dict[str, Any]) -> None:
        if "pixels" in entry:
            self._send_image(record, entry)
            return
        metrics = {key: value for key, value in entry.items() if key not in ("epoch", "time_ms")}
        record.log_metrics(metrics, int(entry["epoch"]), int(entry["time_ms"]))
        self._stored.add(int(entry["epoch"]))
        if self._failed and not self._missing():
            log.info("the tracking store answers again: it has all epochs up to %d", entry["epoch"])
            self._failed = False

    def _send_image(self, record: RunRecord, entry: dict[str, Any]) -> None:
        name = entry["key"], entry["epoch"]
        if name not in self._stored_images:
            record.log_image(np.asarray(entry["pixels"]), *name, entry["time_ms"])
            self._stored_images.add(name)
        with self._lock:  # by identity, since pixels have no truth value; two threads may have sent it
            for place in [i for i, waiting in enumerate(self.images) if waiting is entry]:
                del self.images[place]
