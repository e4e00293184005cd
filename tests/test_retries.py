"""What may pass is tried again; what stays is said at once, in one line; what is retried happens once."""

from __future__ import annotations

import re
import sqlite3
import ssl
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from sqlalchemy import exc

from vae_sweep.base.errors import StoreError, UserError
from vae_sweep.tracking import retry, uris
from vae_sweep.tracking.retry import is_transient
from vae_sweep.tracking.store import Store
from vae_sweep.tracking.uris import sqlite_uri, store_uri

SMALL = ("-m", "model=linear", "params=tiny", "experiment=smoke", "training.max_epochs=1", "hydra/launcher=basic")


def answer(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("no", response=response)


def chained(outer: Exception, cause: Exception) -> Exception:
    outer.__cause__ = cause
    return outer


def of_database(cause: Exception, kind: type[exc.DBAPIError] = exc.OperationalError) -> exc.DBAPIError:
    return kind("INSERT", {}, cause)


def of_sqlite(code: int) -> exc.DBAPIError:
    cause = sqlite3.OperationalError("as it says")
    cause.sqlite_errorcode = code
    return of_database(cause)


class Postgres(Exception):
    def __init__(self, sqlstate: str | None) -> None:
        super().__init__("as it says")
        self.sqlstate = sqlstate


def away() -> MlflowException:
    return MlflowException("away for the time being", error_code=TEMPORARILY_UNAVAILABLE)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        ConnectionResetError(),
        TimeoutError(),
        requests.ConnectionError(),
        requests.ReadTimeout(),
        requests.exceptions.RetryError(),  # after many answers 5xx
        answer(429),
        answer(503),
        chained(MlflowException("API request failed with exception"), requests.ConnectTimeout()),
        RestException({"error_code": "INTERNAL_ERROR", "message": "500"}),
        away(),
        of_sqlite(sqlite3.SQLITE_BUSY),
        of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT),
        chained(MlflowException("x"), of_sqlite(sqlite3.SQLITE_LOCKED)),
        of_database(Postgres("57P01")),  # shutting down
        of_database(Postgres("40001")),
        of_database(Postgres(None)),  # no connection: there is no state yet
        of_database(Exception(2006, "server has gone away")),
        of_database(Exception("08S01", "communication link failure")),
    ],
    ids=repr,
)
def test_a_transient_failure_is_tried_again(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "denied"),
        FileNotFoundError(2, "gone"),
        OSError(28, "full"),
        UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"),
        chained(MlflowException("x"), UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates")),
        answer(403),
        answer(404),
        requests.exceptions.SSLError(),
        requests.exceptions.InvalidURL(),
        MlflowException("an INTERNAL_ERROR that no server said"),
        MlflowException("no such", error_code=RESOURCE_DOES_NOT_EXIST),
        RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "400"}),
        of_sqlite(sqlite3.SQLITE_ERROR),  # no such table
        chained(away(), of_sqlite(sqlite3.SQLITE_ERROR)),  # which MLflow calls unavailable for the time being
        of_database(Postgres("28P01")),  # wrong password
        of_database(Postgres("42P01")),  # no such table
        of_database(Exception(1054, "unknown column")),
        of_database(Postgres("23505"), exc.IntegrityError),
    ],
    ids=repr,
)
def test_a_lasting_failure_is_not_tried_again(error: Exception) -> None:
    assert not is_transient(error)


@pytest.fixture
def store(project: Path) -> Store:
    opened = Store.open(sqlite_uri(project / "mlflow.db"), project, "test")
    opened.client.retry_for = 60.0
    return opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RETRY_EVERY", 0.01)


def fail_once(monkeypatch: pytest.MonkeyPatch, name: str, before: bool, error: Exception) -> list[str]:
    """Let the first call of a method of MLflow's client end in ``error``, before it does anything or after it did."""
    method, calls = getattr(MlflowClient, name), []

    def failing(self: MlflowClient, *arguments: Any, **named: Any) -> Any:
        calls.append(name)
        if len(calls) == 1 and before:
            raise error
        result = method(self, *arguments, **named)
        if len(calls) == 1:
            raise error
        return result

    monkeypatch.setattr(MlflowClient, name, failing)
    return calls


def test_a_certificate_is_for_mlflow_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose environment variables may name a certificate that Python does not know."""

    def refused(*arguments: Any, **named: Any) -> None:
        raise URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr(uris.urllib.request, "urlopen", refused)
    uris.check_answers("https://127.0.0.1:5000")


def test_after_one_wait_in_vain_nothing_waits_until_the_store_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's last writes are several: each would wait as long again."""
    calls: list[bool] = []
    now = iter(range(1000))
    monkeypatch.setattr(retry.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(retry.time, "monotonic", lambda: float(next(now)))
    answers = False

    def ask(client: object) -> str:
        calls.append(answers)
        if not answers:
            raise ConnectionError
        return "done"

    client = retry.RetryingClient(object(), "uri", (OSError,), lambda error: True, retry_for=5.0)
    tries = []
    for answers in (False, False, True, False):
        calls.clear()
        if answers:
            assert client.retry(ask) == "done"
        else:
            with pytest.raises(StoreError):
                client.retry(ask)
        tries.append(len(calls))
    assert tries[0] == tries[3] > 3
    assert tries[1:3] == [1, 1]


@pytest.mark.parametrize(("before", "requests_made"), [(True, 2), (False, 1)])
def test_a_retried_request_makes_one_run(
    store: Store, monkeypatch, quick: None, before: bool, requests_made: int
) -> None:
    """Where the answer is lost the run is there: it is found, and not made again."""
    calls = fail_once(monkeypatch, "create_run", before, away())
    record = store.start_run("one", {"a": "b"})
    assert len(calls) == requests_made
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.info.run_id == record.run_id


@pytest.mark.parametrize("before", [True, False])
def test_a_retried_table_has_its_rows_once(store: Store, monkeypatch, quick: None, before: bool) -> None:
    record = store.start_run("one", {})
    fail_once(monkeypatch, "log_text", before, away())
    fail_once(monkeypatch, "log_batch", before, away())
    fail_once(monkeypatch, "log_table", before, away())
    for first in (1, 2):
        record.log_table({"x": [first, 2], "y": ["a", "b"]}, "table.json")
        with store.artifact(record.run_id, "table.json") as path:
            assert path is not None
            assert path.read_text().replace(" ", "") == f'{{"columns":["x","y"],"data":[[{first},"a"],[2,"b"]]}}'
    tables = store.client.get_run(record.run_id).data.tags["mlflow.loggedArtifacts"]
    assert tables == '[{"path": "table.json", "type": "table"}]'


def test_an_experiment_that_another_machine_just_made_is_used(project: Path, monkeypatch) -> None:
    made = MlflowException("exists", error_code=3001)  # RESOURCE_ALREADY_EXISTS
    fail_once(monkeypatch, "create_experiment", False, made)
    store = Store.open(sqlite_uri(project / "mlflow.db"), project, "test")
    assert store.client.get_experiment_by_name("test").experiment_id == store.experiment_id


def test_a_failing_store_is_not_taken_for_a_missing_artifact(store: Store, monkeypatch) -> None:
    store.client.retry_for = 0.0
    record = store.start_run("one", {})
    with store.artifact(record.run_id, "folder/a.txt") as path:
        assert path is None
    record.log_text("a", "folder/a.txt")
    with store.artifact(record.run_id, "folder/a.txt") as path:
        assert path is not None
        assert path.read_text() == "a"
    with store.artifact(record.run_id, "folder") as path:
        assert path is not None  # a folder is there, too
    for name, error in {"download_artifacts": PermissionError(13, "denied"), "list_artifacts": away()}.items():
        with monkeypatch.context() as broken:
            fail_once(broken, name, True, error)
            with pytest.raises(StoreError), store.artifact(record.run_id, "folder/a.txt"):
                pass
    with pytest.raises(UserError, match="no such run"):
        store.get("0" * 32)
    fail_once(monkeypatch, "get_run", True, MlflowException("of a kind that nobody knows"))
    with pytest.raises(StoreError, match="of a kind that nobody knows"):
        store.get(record.run_id)


def test_values_that_are_not_utf_8_are_recorded_escaped(store: Store) -> None:
    odd, shown = "b\udcffd", "b\\udcffd"
    record = store.start_run(odd, {"a": odd})
    began = time.monotonic()
    record.log_params({"path": odd})
    record.set_tags({"b": odd})
    record.log_dataset(odd, "0", odd, {})
    record.log_text(odd, "a.txt")
    assert time.monotonic() - began < 30  # none of them was tried again
    run = store.get(record.run_id)
    assert (run.name, run.params["path"], run.tags["a"], run.tags["b"]) == (shown,) * 4
    with store.artifact(record.run_id, "a.txt") as path:
        assert path is not None
        assert path.read_text() == shown


def test_an_experiment_made_through_a_server_is_refused_at_once(command, project: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    client.create_experiment("vae_sweep-smoke", artifact_location="mlflow-artifacts:/1")
    began = time.monotonic()
    done = command(*SMALL, cwd=project)
    assert time.monotonic() - began < 150
    assert done.returncode == 1
    said = (
        r"vae_sweep: tracking.experiment=vae_sweep-smoke: .*server.* as tracking\.uri, or another tracking.experiment\n"
    )
    assert re.fullmatch(said, done.stderr)


def test_the_database_of_an_older_mlflow_is_refused_with_commands_that_upgrade_it(command, tmp_path: Path) -> None:
    root = tmp_path / "what? it's 100%"
    root.mkdir()
    older = (  # as an earlier MLflow left it
        "import sys; from alembic import command; from mlflow.store.db.utils import *\n"
        "from mlflow.store.db.utils import _get_alembic_config, InitialBase\n"
        "engine = create_sqlalchemy_engine_with_retry(sys.argv[1]); InitialBase.metadata.create_all(engine)\n"
        "with engine.begin() as connection:\n"
        "    config = _get_alembic_config(str(engine.url)); config.attributes['connection'] = connection\n"
        "    command.upgrade(config, '0584bdc529eb')\n"
    )
    (root / "older.py").write_text(older, encoding="utf-8")
    made = command(store_uri(None, root), cwd=root, module="older")
    assert made.returncode == 0, made.stderr
    before = (root / "mlflow.db").read_bytes()
    done = command(*SMALL, cwd=root)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert (root / "mlflow.db").read_bytes() == before  # MLflow would have changed it unasked
    said = re.search(r"older MLflow; .*\((cp .*)\).*: (mlflow db upgrade .*)", done.stderr)
    assert said is not None
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    for line in said.groups():
        subprocess.run(["bash", "-c", line], check=True, capture_output=True, env={"PATH": path}, cwd=tmp_path)
    assert (root / "mlflow.db.backup").read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {root.name}
    Store.open(store_uri(None, root), root, "now it opens")


def test_the_database_of_a_newer_mlflow_is_refused(store: Store, project: Path) -> None:
    with closing(sqlite3.connect(project / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(UserError, match=r"a newer MLflow than .* has changed this database; pip install -U mlflow"):
        Store.open(store.uri, project, "test")


@pytest.mark.parametrize(
    "uri",
    ["databricks", "databricks://profile", "databricks-uc", "uc:http://host:8080", "plugin:anything", "plugin://x"],
)
def test_other_kinds_of_store_that_mlflow_knows_are_accepted(uri: str, monkeypatch) -> None:
    class Point:
        name = "plugin"

    monkeypatch.setattr(uris, "entry_points", lambda group: [Point()] if group == "mlflow.tracking_store" else [])
    uris._plugins.cache_clear()
    try:
        assert store_uri(uri, Path("/root")) == uri
        uris.check_answers(uri)
        assert uris.ui_command(uri, Path("/root")) == uri
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        assert store_uri("plugin://me:s3cret@host", Path("/root")) == "plugin://me:***@host"
        assert uris.with_secret("plugin://me:***@host") == "plugin://me:s3cret@host"
        with pytest.raises(UserError, match="MLflow no longer keeps runs in plain folders"):
            store_uri("mlruns", Path("/root"))
    finally:
        uris._plugins.cache_clear()
