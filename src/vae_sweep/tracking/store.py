"""MLflow, and nothing else: the only file that imports it.

Runs are made with explicit ids through ``MlflowClient``, never through MLflow's global run stack, so several runs
may live in one process and a run may be written to from another one.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
from filelock import FileLock

from vae_sweep.base.errors import StoreError, UserError, escaped, first_line
from vae_sweep.base.signals import deferred_interrupts
from vae_sweep.tracking.names import linked
from vae_sweep.tracking.relocate import relocate
from vae_sweep.tracking.retry import RetryingClient, is_transient
from vae_sweep.tracking.uris import check_answers, is_database, sqlite_path, store_uri, with_secret

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # about 15 s; ours come on top, and can be interrupted
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.db.utils import _get_latest_schema_revision
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.WARNING)
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # RetryingClient says it, once
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # prints what it raises, 250 lines at a time

NOTE = "mlflow.note.content"  # the Markdown description that the UI shows on a run
KIND = "mlflow.experimentKind"  # without it the UI opens in its mode for language models
TABLES = "mlflow.loggedArtifacts"  # the artifacts that the UI shows as tables
START = "vae_sweep.start"  # another one for each run, known before the store has it
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # of a run: no such id, and none that could be
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


def _client(uri: str, patience: float = 0.0) -> RetryingClient:
    """MLflow's client for ``uri``, behind :class:`RetryingClient`; what waits for a server can be interrupted."""
    failures = (MlflowException, OSError, SQLAlchemyError)
    guard = deferred_interrupts if is_database(uri) else nullcontext
    try:
        client = mlflow.MlflowClient(tracking_uri=with_secret(uri))
    except failures as error:
        raise StoreError(f"the tracking store {uri} failed ({first_line(error)})") from error
    return RetryingClient(client, uri, failures, is_transient, patience, guard)


def _code(error: StoreError) -> str:
    """What MLflow calls the failure behind ``error``."""
    return getattr(error.__cause__, "error_code", "")


def _text(value: object, limit: int) -> str:
    """A value as the store takes it: no longer than ``limit``, signs that are no UTF-8 escaped."""
    return escaped(value)[:limit]


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
        path = sqlite_path(uri)
        if path is not None and not path.is_file():
            raise UserError(f"{missing} ({uri})")
        check_answers(uri)
        if path is not None:
            with _refused(uri):
                _check_schema(uri, path)
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
        path = sqlite_path(uri)
        with _refused(uri):
            lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(lock):
                if path is not None and path.is_file():
                    _check_schema(uri, path)
                client = _client(uri)
                if path is not None:
                    _write_ahead_log(path)
                    if path.parent == root:
                        relocate(path)
                found = _experiment(client, experiment, (root / "mlruns").as_uri() if is_database(uri) else None)
                place = urlsplit(found.artifact_location)
                if is_database(uri) and place.scheme == "mlflow-artifacts" and not place.netloc:
                    raise UserError(
                        f"tracking.experiment={experiment}: it was made through a server, which alone knows where its "
                        "artifacts are; give the server's address as tracking.uri, or another tracking.experiment"
                    )
                # Each time, so that a store that may only be read is noticed before the first run.
                client.set_experiment_tag(found.experiment_id, KIND, "custom_model_development")
        return cls(uri, found.experiment_id)

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str | None = None) -> RunRecord:
        """Make a run in state RUNNING and return the handle that writes to it."""
        mark = uuid.uuid4().hex
        tags = {**tags, START: mark, **({"mlflow.parentRunId": parent_id} if parent_id else {})}
        tags = {key: _text(value, NOTE_LIMIT) for key, value in tags.items()}

        def create(client: Any) -> Any:
            found = client.search_runs([self.experiment_id], f"tags.`{START}` = '{mark}'")
            if found:
                return found[0]  # it was made, and only the answer was lost
            with _one_request():
                return client.create_run(self.experiment_id, tags=tags, run_name=_text(name, NAME_LIMIT))

        return RunRecord(self.client, self.client.retry(create).info.run_id)

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
        where = [self.experiment_id] if self.experiment_id else self._every()
        found = [_stored(run) for run in self._search(where, condition)]
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
            if error.__cause__ is not None and _code(error) not in ABSENT:
                raise  # whether the store has the run is not known
            raise UserError(f"{key}={run_id}: no such run in {self.uri}; `mlflow ui` lists what there is") from error

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
        """Give the local path of a copy of an artifact, or None where the run has none of that name.

        Raises:
            StoreError: where the store does not say whether it has it, or does not give it.
        """
        parent = path.rpartition("/")[0]
        there = any(entry.path == path for entry in self.client.list_artifacts(run_id, parent or None))
        with tempfile.TemporaryDirectory(prefix="vae_sweep-") as folder:
            yield Path(self.client.download_artifacts(run_id, path, folder)) if there else None


class RunRecord:
    """Writes to one run."""

    def __init__(self, client: RetryingClient, run_id: str) -> None:
        self.client = client
        self.run_id = run_id

    def without_retries(self) -> RunRecord:
        """Return a handle to the same run that does not wait for a store that fails."""
        return RunRecord(self.client.without_retries(), self.run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters, as text; of a continued run the ones that it lacks, since MLflow lets none change."""
        known = self.client.get_run(self.run_id).data.params
        entities = [Param(key, _text(value, PARAM_LIMIT)) for key, value in params.items() if key not in known]
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
        self.client.log_batch(self.run_id, tags=[RunTag(key, _text(value, NOTE_LIMIT)) for key, value in tags.items()])

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any]) -> None:
        """Attach the dataset as an input; ``digest`` identifies its content.

        MLflow looks for the dataset and then inserts it, so of two runs that start at once one may fail; its second
        try finds what the other one wrote.
        """
        dataset = Dataset(
            name=_text(name, NAME_LIMIT),
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

        MLflow's own ``log_table`` appends to what is there, so a later version, or a retry, would repeat the rows.
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


@contextmanager
def _refused(uri: str) -> Iterator[None]:
    """Turn what keeps a store from being opened into a UserError."""
    try:
        yield
    except (OSError, StoreError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        if getattr(cause, "error_code", "") in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            user = os.environ.get("MLFLOW_TRACKING_USERNAME") or "none given"
            raise UserError(
                f"tracking.uri={uri}: the server refuses this user ({user}); "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        behind = re.search(r"out-of-date database schema \(found version (\w+)", str(cause))
        if behind:
            raise _other_schema(uri, behind[1]) from error
        raise UserError(
            f"tracking.uri={uri}: cannot be opened ({first_line(cause)}); "
            "check that it exists and may be written, or give another tracking.uri"
        ) from error


def _check_schema(uri: str, path: Path) -> None:
    """Refuse a database of another version of MLflow; where tables are missing MLflow would change it unasked."""
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if found and found[0] != _get_latest_schema_revision():
                raise _other_schema(uri, found[0])


def _other_schema(uri: str, found: str) -> UserError:
    known = Path(mlflow.__file__).parent.glob(f"store/db_migrations/versions/{found}*")
    if not list(known):
        return UserError(
            f"tracking.uri={uri}: a newer MLflow than {mlflow.__version__} has changed this database; "
            "pip install -U mlflow"
        )
    path = sqlite_path(uri)
    name = shlex.quote(str(path))
    copy = f"cp {name} {shlex.quote(f'{path}.backup')}" if path else "a backup with the database's own tools"
    return UserError(
        f"tracking.uri={uri}: made by an older MLflow; take a copy first ({copy}), then run: "
        f"mlflow db upgrade {shlex.quote(uri)}"
    )


def _experiment(client: RetryingClient, name: str, location: str | None) -> Any:
    """The experiment of that name, made where there is none; its artifacts belong to ``location``, or to the server."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=location)
        except StoreError as error:
            if _code(error) != "RESOURCE_ALREADY_EXISTS":  # another machine was faster, or an answer was lost
                raise
        found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found


@contextmanager
def _one_request() -> Iterator[None]:
    """While inside, MLflow's HTTP requests of this process are not repeated inside MLflow."""
    variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ[variable]
    os.environ[variable] = "0"
    try:
        yield
    finally:
        os.environ[variable] = before


def hurry() -> None:
    """Let the requests of this process give up soon: whoever interrupts does not want to wait for a silent server."""
    os.environ.update({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"})


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
