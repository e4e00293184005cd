"""The tracking store: experiments and runs.

Runs are made with explicit ids through ``MlflowClient``, never through MLflow's global run stack, so several runs
may live in one process and a run may be written to from another one.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vae_sweep.base.errors import StoreError, UserError, first_line
from vae_sweep.base.files import atomic_write
from vae_sweep.base.locks import STORE_LOCK, one_at_a_time
from vae_sweep.tracking.client import clipped, error_code, make_client, without_http_retries
from vae_sweep.tracking.names import (
    ERROR,
    KIND,
    MACHINE,
    NAME_LIMIT,
    NOTE,
    NOTE_LIMIT,
    PARENT,
    PROJECT,
    RUN_KEY,
    START,
    linked,
)
from vae_sweep.tracking.record import RunRecord
from vae_sweep.tracking.relocate import relocate
from vae_sweep.tracking.retry import RetryingClient
from vae_sweep.tracking.schema import check_schema, schema_error, use_write_ahead_log
from vae_sweep.tracking.uris import check_answers, is_database, sqlite_path, store_uri

__all__ = ["NAME_LIMIT", "NOTE", "NOTE_LIMIT", "RunRecord", "Store", "StoredRun"]

NO_SUCH_RUN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # no run of this id, and an impossible id


@dataclass(frozen=True)
class StoredRun:
    """One run as the store has it; metrics are their last values."""

    run_id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    params: dict[str, str]
    metrics: dict[str, float]
    tags: dict[str, str]
    started: float | None = None  # seconds since 1970
    ended: float | None = None
    experiment_id: str = ""

    @property
    def parent_id(self) -> str:
        """The sweep that trained it; "" for a run without a sweep."""
        return self.tags.get(PARENT, "")

    def is_held_by_another(self, project: str) -> bool:
        """Return whether it is being trained, or was left so, in another project folder than ``project``."""
        return self.status == "RUNNING" and self.tags.get(PROJECT, project) != project


class Store:
    """One experiment of an MLflow store.

    All methods raise StoreError where the store fails for longer than ``retry_for`` seconds, or in a way that does not
    pass.
    """

    def __init__(self, uri: str, experiment_id: str, retry_for: float = 0.0) -> None:
        self.uri = uri
        self.experiment_id = experiment_id
        self.client = make_client(uri, retry_for)

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
            with _opening(uri):
                check_schema(uri, path)
                if path.parent == root:
                    relocate(path)
        return cls(uri, "")

    @classmethod
    def open(cls, uri: str, root: Path, experiment: str) -> Store:
        """Open the store and its experiment, and make them where they do not exist.

        Under a lock: several processes may not initialise an MLflow store at once.

        Raises:
            UserError: where the store cannot be reached or written.
        """
        check_answers(uri)
        lock = root / "mlruns" / STORE_LOCK
        path = sqlite_path(uri)
        with _opening(uri):
            lock.parent.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(lock):
                if path is not None and path.is_file():
                    check_schema(uri, path)
                client = make_client(uri)
                if path is not None:
                    use_write_ahead_log(path)
                    if path.parent == root:
                        relocate(path)
                found = _experiment(client, experiment, (root / "mlruns").as_uri() if is_database(uri) else None)
                location = urlsplit(found.artifact_location)
                if is_database(uri) and location.scheme == "mlflow-artifacts" and not location.netloc:
                    raise UserError(
                        f"tracking.experiment={experiment}: it was made through a server, which alone knows where its "
                        "artifacts are; give the server's address as tracking.uri, or another tracking.experiment"
                    )
                # Each time, so that a read-only store is found before the first run.
                client.set_experiment_tag(found.experiment_id, KIND, "custom_model_development")
        return cls(uri, found.experiment_id)

    def start_run(self, name: str, tags: Mapping[str, str], parent_id: str | None = None) -> RunRecord:
        """Create a run in state RUNNING and return its record."""
        mark = uuid.uuid4().hex
        tags = {**tags, START: mark, **({PARENT: parent_id} if parent_id else {})}
        tags = {key: clipped(value, NOTE_LIMIT) for key, value in tags.items()}

        def create(client: Any) -> Any:
            found = client.search_runs([self.experiment_id], f"tags.`{START}` = '{mark}'")
            if found:
                return found[0]  # it was created, and only the answer was lost
            with without_http_retries():
                return client.create_run(self.experiment_id, tags=tags, run_name=clipped(name, NAME_LIMIT))

        return RunRecord(self.client, self.client.retry(create).info.run_id)

    def reopen(self, run_id: str) -> RunRecord:
        """Set an ended run to RUNNING again and return its record."""
        record, run = self.record(run_id), self.client.get_run(run_id)
        if ERROR in run.data.tags:
            self.client.delete_tag(run_id, ERROR)
        folder = self.local_artifacts(run_id)
        if folder:
            for file in folder.rglob(".artifact.uploading.*"):  # of MLflow, in a process that was killed
                file.unlink(missing_ok=True)
        self.client.update_run(run_id, status="RUNNING")
        return record

    def newest(
        self, tags: Mapping[str, str], parent_id: str | None = None, status: str | None = None
    ) -> StoredRun | None:
        """Return the newest run with all of ``tags``, and of this sweep and status where given; or None."""
        wanted = {**tags, **({PARENT: parent_id} if parent_id else {})}
        conditions = [f"tags.`{key}` = '{value}'" for key, value in wanted.items()]
        condition = " AND ".join([*conditions, *([f"attributes.status = '{status}'"] if status else [])])
        where = [self.experiment_id] if self.experiment_id else self._all_experiments()
        found = [_stored(run) for run in self._search(where, condition)]
        return found[-1] if found else None

    def running(self) -> list[StoredRun]:
        """Return the runs of the experiment whose status is RUNNING."""
        return [_stored(run) for run in self._search([self.experiment_id], "attributes.status = 'RUNNING'")]

    def finished_keys(self, machine: str) -> set[str]:
        """Return the identities of the experiment's runs that are finished, on this kind of machine."""
        condition = f"tags.`{MACHINE}` = '{machine}' AND attributes.status = 'FINISHED'"
        return {run.data.tags.get(RUN_KEY, "") for run in self._search([self.experiment_id], condition)}

    def record(self, run_id: str) -> RunRecord:
        """Return the record of an existing run."""
        return RunRecord(self.client, run_id)

    def get(self, run_id: str, key: str = "run") -> StoredRun:
        """Return a run by its id, or by the first characters of its id; ``key`` is its name in error messages.

        Raises:
            UserError: where the store has no such run, or several.
        """
        try:
            if len(run_id) >= 32:
                return _stored(self.client.get_run(run_id))
            found = [run for run in self._search(self._all_experiments()) if run.info.run_id.startswith(run_id)]
            if len(found) > 1:
                names = ", ".join(run.info.run_id for run in found[:5])
                raise UserError(f"{key}={run_id}: several run ids begin with this ({names}); give more of the id")
            if not found:
                raise StoreError("no id begins with this")
            return _stored(found[0])
        except StoreError as error:
            if error.__cause__ is not None and error_code(error.__cause__) not in NO_SUCH_RUN:
                raise  # the store may have the run
            raise UserError(f"{key}={run_id}: no such run in {self.uri}; `mlflow ui` lists its runs") from error

    def children(self, parent_id: str) -> list[StoredRun]:
        """Return the runs of a sweep, oldest first: reused runs of other sweeps, then its own."""
        where = [self.experiment_id] if self.experiment_id else self._all_experiments()
        conditions = f"tags.`{linked(parent_id)}` = 'reused'", f"tags.`{PARENT}` = '{parent_id}'"
        return [_stored(run) for condition in conditions for run in self._search(where, condition)]

    def history(self, run_id: str, keys: Sequence[str]) -> list[dict[str, float]]:
        """Return one dict per epoch that has all metrics ``keys``, in order: ``epoch`` and these metrics."""
        epochs: dict[int, dict[str, float]] = {}
        for key in keys:
            for point in self.client.get_metric_history(run_id, key):
                epochs.setdefault(point.step, {"epoch": point.step})[key] = point.value
        return [epochs[step] for step in sorted(epochs) if len(epochs[step]) == len(keys) + 1]

    def local_artifacts(self, run_id: str) -> Path | None:
        """Return the folder of a run's artifacts; None where they are not on a disk of this machine."""
        artifacts = urlsplit(self.client.get_run(run_id).info.artifact_uri)
        return Path(unquote(artifacts.path)) if artifacts.scheme == "file" else None

    def share(self, run_id: str, file: Path) -> None:
        """Let ``file``, a copy of the run's artifact of that name, be the same bytes on disk, where one disk has both.

        They are two hard links: deleting or replacing either leaves the other.
        """
        folder = self.local_artifacts(run_id)
        if folder is not None:
            with suppress(OSError), atomic_write(file) as link:  # another disk, or one without hard links: two copies
                os.link(folder / file.name, link)

    @contextmanager
    def artifact(self, run_id: str, path: str) -> Iterator[Path | None]:
        """Give the local path of a copy of an artifact, or None where the run does not have it.

        Raises:
            StoreError: where the store cannot list or return it.
        """
        parent = path.rpartition("/")[0]
        there = any(entry.path == path for entry in self.client.list_artifacts(run_id, parent or None))
        with tempfile.TemporaryDirectory(prefix="vae_sweep-") as folder:
            yield Path(self.client.download_artifacts(run_id, path, folder)) if there else None

    def _all_experiments(self) -> list[str]:
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


@contextmanager
def _opening(uri: str) -> Iterator[None]:
    """Turn failures to open a store into UserErrors."""
    try:
        yield
    except (OSError, StoreError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        if error_code(cause) in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            user = os.environ.get("MLFLOW_TRACKING_USERNAME") or "none given"
            raise UserError(
                f"tracking.uri={uri}: the server refuses this user ({user}); "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            ) from error
        raise schema_error(uri, cause) or UserError(
            f"tracking.uri={uri}: cannot be opened ({first_line(cause)}); "
            "check that it exists and may be written, or give another tracking.uri"
        ) from error


def _experiment(client: RetryingClient, name: str, location: str | None) -> Any:
    """The experiment of that name, created where there is none; its artifacts go to ``location``, or to the server."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, artifact_location=location)
        except StoreError as error:
            if error_code(error.__cause__) != "RESOURCE_ALREADY_EXISTS":  # by another machine, or the answer was lost
                raise
        found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found


def _stored(run: Any) -> StoredRun:
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        started=run.info.start_time and run.info.start_time / 1000,
        ended=run.info.end_time and run.info.end_time / 1000,
        experiment_id=run.info.experiment_id,
    )
