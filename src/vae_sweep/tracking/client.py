"""MLflow's client, with retries, and its errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from vae_sweep.base.errors import StoreError, escaped, first_line
from vae_sweep.base.signals import deferred_interrupts
from vae_sweep.tracking.retry import RetryingClient, is_transient
from vae_sweep.tracking.uris import is_database, with_secret

FAILURES = (MlflowException, OSError, SQLAlchemyError)  # what a client raises


def make_client(uri: str, retry_for: float = 0.0) -> RetryingClient:
    """Return MLflow's client for ``uri``, with retries for ``retry_for`` seconds.

    An interrupt waits for the end of a write to a database, but not for a server.

    Raises:
        StoreError: where the store cannot be opened.
    """
    guard = deferred_interrupts if is_database(uri) else nullcontext
    try:
        client = mlflow.MlflowClient(tracking_uri=with_secret(uri))
    except FAILURES as error:
        raise StoreError(f"the tracking store {uri} failed ({first_line(error)})") from error
    return RetryingClient(client, uri, FAILURES, is_transient, retry_for, guard)


def error_code(error: BaseException | None) -> str:
    """Return MLflow's code of an error, such as RESOURCE_DOES_NOT_EXIST; "" where it has none."""
    return getattr(error, "error_code", "")


def clipped(value: object, limit: int) -> str:
    """Return ``value`` as text that MLflow takes: at most ``limit`` characters, all of them UTF-8."""
    return escaped(value)[:limit]


@contextmanager
def without_http_retries() -> Iterator[None]:
    """Inside the block, MLflow's HTTP requests of this process are not repeated by MLflow."""
    variable = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    before = os.environ[variable]
    os.environ[variable] = "0"
    try:
        yield
    finally:
        os.environ[variable] = before


def shorten_timeouts() -> None:
    """Let the HTTP requests of this process fail within seconds: after an interrupt nobody waits for a server."""
    os.environ.update({"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"})


def versions() -> dict[str, str]:
    """Return the version of MLflow, for a run's tags."""
    return {"version.mlflow": mlflow.__version__}
