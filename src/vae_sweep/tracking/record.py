"""What a run writes to the tracking store."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

from vae_sweep.base.errors import StoreError, escaped
from vae_sweep.tracking.client import clipped
from vae_sweep.tracking.names import NAME_LIMIT, NOTE_LIMIT, PARAM_LIMIT, TABLES
from vae_sweep.tracking.retry import RetryingClient

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH_LIMIT = 100  # parameters in one request
GRID_WIDTH = 256  # pixels
STORED_IMAGE = r"images/(.+)\+step\+(\d+)\+timestamp.*\+compressed\.webp"  # written after the image itself


class RunRecord:
    """Writes to one run; all methods raise StoreError where the store fails for longer than its retries last."""

    def __init__(self, client: RetryingClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def without_retries(self) -> RunRecord:
        """Return a record of the same run whose requests are not retried."""
        return RunRecord(self.client.without_retries(), self.run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write the parameters, as text, that the run lacks: MLflow refuses to change one."""
        known = self.client.get_run(self.run_id).data.params
        entities = [Param(key, clipped(value, PARAM_LIMIT)) for key, value in params.items() if key not in known]
        for start in range(0, len(entities), BATCH_LIMIT):
            self.client.log_batch(self.run_id, params=entities[start : start + BATCH_LIMIT])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, time_ms: int | None = None) -> None:
        """Write metrics in one request, on disk when it returns; the same ones with the same time are stored once."""
        at = int(time.time() * 1000) if time_ms is None else time_ms
        self.client.log_batch(self.run_id, metrics=[Metric(k, float(v), at, step) for k, v in metrics.items()])

    def log_once(self, metrics: Mapping[str, float]) -> None:
        """Write the metrics that the run lacks: a process may have been killed right after it wrote them."""
        known = self.client.get_run(self.run_id).data.metrics
        missing = {key: value for key, value in metrics.items() if key not in known}
        if missing:
            self.log_metrics(missing)

    def log_changed(self, metrics: Mapping[str, float]) -> None:
        """Write the metrics whose last value in the store differs or is missing.

        The last value is the one with the latest time, and an earlier one may be of a machine whose clock is ahead.
        """
        data = self.client.get_run(self.run_id).data
        changed = {key: value for key, value in metrics.items() if data.metrics.get(key) != value}
        if changed:
            latest = max((known.timestamp for known in data._metric_objs if known.key in changed), default=0)
            self.log_metrics(changed, time_ms=max(int(time.time() * 1000), latest + 1))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags, each cut to :data:`NOTE_LIMIT` characters."""
        self.client.log_batch(
            self.run_id, tags=[RunTag(key, clipped(value, NOTE_LIMIT)) for key, value in tags.items()]
        )

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Attach the dataset as an input; ``digest`` identifies its content.

        MLflow looks for the dataset and then inserts it, so one of two runs that start at once may fail; its second
        try finds the dataset.
        """
        dataset = Dataset(
            name=clipped(name, NAME_LIMIT),
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(profile),
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "train/val/test")])]
        try:
            self.client.without_retries().log_inputs(self.run_id, inputs)
        except StoreError:
            self.client.log_inputs(self.run_id, inputs)

    def log_text(self, text: str, path: str) -> None:
        """Write a text artifact, replacing an older one."""
        self.client.log_text(self.run_id, escaped(text), path)

    def log_figure(self, figure: Figure, path: str) -> None:
        """Write a figure as a PNG artifact, replacing an older one."""
        self.client.log_figure(self.run_id, figure, path, save_kwargs={"dpi": 150})

    def log_image(self, pixels: np.ndarray, key: str, step: int, time_ms: int) -> None:
        """Write an image, uint8 (H, W, C), for the grid of the UI, where ``step`` is on a slider.

        The UI shows copies that MLflow makes :data:`GRID_WIDTH` wide; enlarged to that here, pixels stay sharp.
        """
        image = np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels
        times = max(1, GRID_WIDTH // max(image.shape[:2]))
        image = image.repeat(times, 0).repeat(times, 1)
        self.client.log_image(self.run_id, image, key=key, step=step, timestamp=time_ms, synchronous=True)

    def images(self) -> set[tuple[str, int]]:
        """Return key and step of the images that the run has for the grid of the UI."""
        found = (re.fullmatch(STORED_IMAGE, file.path) for file in self.client.list_artifacts(self.run_id, "images"))
        return {(match[1], int(match[2])) for match in found if match}

    def log_array(self, array: np.ndarray, path: str) -> None:
        """Write an array as an .npy artifact."""
        folder, _, name = path.rpartition("/")
        with tempfile.TemporaryDirectory(prefix="vae_sweep-") as temporary:
            np.save(Path(temporary) / name, array)
            self.client.log_artifact(self.run_id, str(Path(temporary) / name), folder or None)

    def log_file(self, local: Path, folder: str | None = None) -> None:
        """Copy a file into the run's artifacts."""
        self.client.log_artifact(self.run_id, str(local), folder)

    def log_table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Write a table artifact, shown in the UI's evaluation tab, replacing an older one.

        MLflow's ``log_table`` appends: a later version, or a retry, would repeat the rows.
        """
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        self.log_text(json.dumps({"columns": list(columns), "data": rows}), path)
        tables = json.loads(self.client.get_run(self.run_id).data.tags.get(TABLES, "[]"))
        table = {"path": path, "type": "table"}
        if table not in tables:
            self.set_tags({TABLES: json.dumps([*tables, table])})

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)
