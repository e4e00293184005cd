"""MLflow, and nothing else: the only file that imports it.

Runs are made with explicit ids through ``MlflowClient``, never through MLflow's global run stack, so several runs
may live in one process and a run may be written to from another one.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
from filelock import FileLock

from vae_sweep.errors import StoreError, UserError, escaped, first_line
from vae_sweep.interrupts import held
from vae_sweep.names import linked
from vae_sweep.patience import Patient
from vae_sweep.relocate import relocate
from vae_sweep.stores import check_answers, masked, store_uri

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # about 15 s; ours come on top, and can be interrupted
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # Patient says it, once
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints what it raises, 250 lines at a time

NOTE = "mlflow.note.content"  # the Markdown description that the UI shows on a run
KIND = "mlflow.experimentKind"  # without it the UI opens in its mode for language models
NOTE_LIMIT = 8000  # characters; MLflow refuses longer tags
PARAM_LIMIT = 6000  # characters of one parameter
NAME_LIMIT = 250  # characters of a run's name
BATCH_LIMIT = 100  # parameters or tags in one request


@dataclass(frozen=True)
class StoredRun:
    """What the store holds of one run; metrics are their last values."""

    run_id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]

    @property
    def parent_id(self) -> str:
        """The sweep that trained it; "" for a run of its own."""
        return self.tags.get("mlflow.parentRunId", "")


def _client(uri: str, patience: float = 0.0) -> Any:
    """MLflow's client for ``uri``, behind :class:`Patient`; what waits for a server can be interrupted."""
    failures = (MlflowException, OSError, SQLAlchemyError)
    guard = nullcontext if uri.startswith(("http://", "https://")) else held
    try:
        return Patient(mlflow.MlflowClient(tracking_uri=uri), uri, failures, _may_pass, patience, guard)
    except failures as error:
        raise StoreError(f"the tracking store {masked(uri)} failed ({first_line(error)})") from error


def _may_pass(error: Exception) -> bool:
    """Whether an error is of a server that is away, a database that is busy, or the like."""
    return isinstance(error, MlflowException) and error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


class Store:
    """One experiment of an MLflow store; what it does raises StoreError where that fails for ``patience`` seconds."""

    def __init__(self, uri: str, experiment_id: str, patience: float = 0.0) -> None:
        self.uri = uri
        self.experiment_id = experiment_id
        self.client = _client(uri, patience)

    @classmethod
    def existing(cls, given: str | None, root: Path, missing: str) -> Store:
        """Open the store at ``given``, else where :func:`store_uri` looks, to read runs of any experiment.

        Raises:
            UserError: where there is no store, with ``missing`` before its address, or it cannot be reached.
        """
        uri = store_uri(given, root)
        path = Path(uri.partition("://")[2][1:]) if uri.startswith("sqlite") else None
        if path is not None and not path.is_file():
            raise UserError(f"{missing} ({uri})")
        check_answers(uri)
        if path == root / "mlflow.db":
            relocate(path)
        return cls(uri, "")

    @classmethod
    def open(cls, uri: str, root: Path, experiment: str) -> Store:
        """Open the store and its experiment, making both where they do not exist, under a lock.

        MLflow's own first start is not safe when several processes do it at once; afterwards they may all write.

        Raises:
            UserError: where the store cannot be reached or written.
        """
        check_answers(uri)
        lock = root / "mlruns" / ".store.lock"
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                client = _client(uri)
                found = client.get_experiment_by_name(experiment)
                if found is not None and found.lifecycle_stage == "deleted":
                    client.restore_experiment(found.experiment_id)
                if uri.startswith("sqlite"):
                    path = Path(uri.partition("://")[2][1:])
                    _write_ahead_log(path)
                    if path.parent == root:
                        relocate(path)
                served = uri.startswith(("http://", "https://"))  # the server knows where its artifacts belong
                experiment_id = (
                    found.experiment_id
                    if found
                    else client.create_experiment(
                        experiment, artifact_location=None if served else (root / "mlruns").as_uri()
                    )
                )
                # Each time, so that a store that may only be read is noticed before the first run.
                client.set_experiment_tag(experiment_id, KIND, "custom_model_development")
        except (OSError, StoreError, sqlite3.Error) as error:
            cause = error.__cause__ or error
            if getattr(cause, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                user = os.environ.get("MLFLOW_TRACKING_USERNAME") or "none given"
                raise UserError(
                    f"tracking.uri={masked(uri)}: the server refuses this user ({user}); "
                    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
                ) from error
            raise UserError(
                f"tracking.uri={masked(uri)}: cannot be opened ({first_line(cause)}); "
                "check that it exists and may be written, or give another tracking.uri"
            ) from error
        return cls(uri, experiment_id)

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str | None = None) -> RunRecord:
        """Make a run in state RUNNING and return the handle that writes to it."""
        tags = {**tags, **({"mlflow.parentRunId": parent_id} if parent_id else {})}
        tags = {key: escaped(value)[:NOTE_LIMIT] for key, value in tags.items()}
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=escaped(name)[:NAME_LIMIT])
        return RunRecord(self.client, run.info.run_id)

    def reopen(self, run_id: str) -> RunRecord:
        """Set an ended run to RUNNING again and return the handle that writes to it."""
        record, run = self.record(run_id), self.client.get_run(run_id)
        if "vae_sweep.error" in run.data.tags:
            self.client.delete_tag(run_id, "vae_sweep.error")
        artifacts = urlsplit(run.info.artifact_uri)
        if artifacts.scheme == "file":
            for left in Path(unquote(artifacts.path)).rglob(".artifact.uploading.*"):  # by MLflow, when it was killed
                left.unlink(missing_ok=True)
        self.client.update_run(run_id, status="RUNNING")
        return record

    def newest(
        self, tags: Mapping[str, str], parent_id: str | None = None, status: str | None = None
    ) -> StoredRun | None:
        """Return the newest run with all of ``tags`` (and, where given, of that sweep and status), or None."""
        wanted = {**tags, **({"mlflow.parentRunId": parent_id} if parent_id else {})}
        conditions = [f"tags.`{key}` = '{value}'" for key, value in wanted.items()]
        condition = " AND ".join([*conditions, *([f"attributes.status = '{status}'"] if status else [])])
        found = [_stored(run) for run in self._search([self.experiment_id], condition)]
        return found[-1] if found else None

    def running(self) -> list[StoredRun]:
        """Return the runs of the experiment that say they are RUNNING."""
        return [_stored(run) for run in self._search([self.experiment_id], "attributes.status = 'RUNNING'")]

    def record(self, run_id: str) -> RunRecord:
        """Return the handle that writes to an existing run."""
        return RunRecord(self.client, run_id)

    def get(self, run_id: str, key: str = "run") -> StoredRun:
        """Return one run, by its id or by the beginning of its id as tables show it; ``key`` named it to the user.

        Raises:
            UserError: where the store has no such run, or several.
        """
        try:
            if len(run_id) >= 32:
                return _stored(self.client.get_run(run_id))
            found = [run for run in self._search(self._every()) if run.info.run_id.startswith(run_id)]
            if len(found) > 1:
                names = ", ".join(run.info.run_id for run in found[:5])
                raise UserError(f"{key}={run_id}: several runs begin so ({names}); give more of the id")
            if not found:
                raise StoreError("no run begins so")
            return _stored(found[0])
        except StoreError as error:
            if isinstance(error.__cause__, Exception) and _may_pass(error.__cause__):
                raise  # the store is away: whether it has the run is not known
            raise UserError(
                f"{key}={run_id}: no such run in {masked(self.uri)}; `mlflow ui` lists what there is"
            ) from error

    def children(self, parent_id: str) -> list[StoredRun]:
        """Return the runs of a sweep, oldest first: those that another sweep has trained for it, then its own."""
        where = [self.experiment_id] if self.experiment_id else self._every()
        conditions = f"tags.`{linked(parent_id)}` = 'reused'", f"tags.`mlflow.parentRunId` = '{parent_id}'"
        return [_stored(run) for condition in conditions for run in self._search(where, condition)]

    def _every(self) -> list[str]:
        return [experiment.experiment_id for experiment in self.client.search_experiments()]

    def _search(self, experiment_ids: list[str], condition: str = "") -> Iterator[Any]:
        """MLflow's runs, oldest first, all pages."""
        token = None
        while True:
            page = self.client.search_runs(
                experiment_ids, condition, order_by=["attributes.start_time ASC"], page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def history(self, run_id: str, keys: Sequence[str]) -> list[dict[str, float]]:
        """Return one dict per epoch, in order, with ``epoch`` and the metrics ``keys``."""
        epochs: dict[int, dict[str, float]] = {}
        for key in keys:
            for point in self.client.get_metric_history(run_id, key):
                epochs.setdefault(point.step, {"epoch": point.step})[key] = point.value
        return [epochs[step] for step in sorted(epochs) if len(epochs[step]) == len(keys) + 1]

    @contextmanager
    def artifact(self, run_id: str, path: str) -> Iterator[Path | None]:
        """Give the local path of a copy of an artifact, or None where the run has none of that name."""
        with tempfile.TemporaryDirectory(prefix="vae_sweep-") as folder:
            try:
                local: Path | None = Path(self.client.download_artifacts(run_id, path, folder))
            except StoreError:
                local = None
            yield local


class RunRecord:
    """Writes to one run."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def hurried(self) -> AbstractContextManager[None]:
        """While inside, a store that fails is not waited for."""
        return self.client.hurried()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, as text; of a continued run the ones that it lacks, since MLflow lets none change."""
        known = self.client.get_run(self.run_id).data.params
        entities = [Param(key, escaped(value)[:PARAM_LIMIT]) for key, value in params.items() if key not in known]
        for start in range(0, len(entities), BATCH_LIMIT):
            self.client.log_batch(self.run_id, params=entities[start : start + BATCH_LIMIT])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, time_ms: int | None = None) -> None:
        """Write metrics in one request, on disk when it returns; the same ones with the same time count once."""
        at = int(time.time() * 1000) if time_ms is None else time_ms
        self.client.log_batch(self.run_id, metrics=[Metric(k, float(v), at, step) for k, v in metrics.items()])

    def log_once(self, metrics: Mapping[str, float]) -> None:
        """Write the metrics that the run does not have yet: a process may have been killed right after writing them."""
        known = self.client.get_run(self.run_id).data.metrics
        missing = {key: value for key, value in metrics.items() if key not in known}
        if missing:
            self.log_metrics(missing)

    def log_changed(self, metrics: Mapping[str, float]) -> None:
        """Write the metrics whose last value in the store is another one, or missing."""
        known = self.client.get_run(self.run_id).data.metrics
        changed = {key: value for key, value in metrics.items() if known.get(key) != value}
        if changed:
            self.log_metrics(changed)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags; a description (:data:`NOTE`) is cut to what MLflow takes."""
        self.client.log_batch(
            self.run_id, tags=[RunTag(key, escaped(value)[:NOTE_LIMIT]) for key, value in tags.items()]
        )

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Attach the dataset as an input; ``digest`` identifies its content.

        MLflow looks for the dataset and then inserts it, so of two runs that start at once one may fail; its second
        try finds what the other one wrote.
        """
        dataset = Dataset(
            name=name,
            digest=digest[:36],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(profile),
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", "train/val/test")])]
        try:
            with self.hurried():
                self.client.log_inputs(self.run_id, inputs)
        except StoreError:
            self.client.log_inputs(self.run_id, inputs)

    def log_text(self, text: str, path: str) -> None:
        """Write a text artifact, replacing an older one."""
        self.client.log_text(self.run_id, escaped(text), path)

    def log_figure(self, figure: Figure, path: str) -> None:
        """Write a figure as a PNG artifact, replacing an older one."""
        self.client.log_figure(self.run_id, figure, path, save_kwargs={"dpi": 150})

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
        """Write a table artifact that the UI's evaluation tab shows, replacing an older one.

        MLflow's own ``log_table`` appends to an existing table, so later versions overwrite its file.
        """
        logged = self.client.get_run(self.run_id).data.tags.get("mlflow.loggedArtifacts", "")
        if f'"{path}"' in logged:
            rows = [list(row) for row in zip(*columns.values(), strict=True)]
            self.client.log_text(self.run_id, json.dumps({"columns": list(columns), "data": rows}), path)
        else:
            self.client.log_table(self.run_id, dict(columns), path)

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)


def versions() -> dict[str, str]:
    """Return the version of MLflow, for a run's tags."""
    return {"version.mlflow": mlflow.__version__}


def _stored(run: Any) -> StoredRun:
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
    )


def _write_ahead_log(path: Path) -> None:
    """Let parallel runs write without waiting for readers; the setting stays in the file."""
    connection = sqlite3.connect(path, timeout=20)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()
