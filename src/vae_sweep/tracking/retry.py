"""Retries of requests to a tracking store, and which failures are transient."""

from __future__ import annotations

import errno
import logging
import re
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import requests
from sqlalchemy import exc

from vae_sweep.base.errors import StoreError, first_line

log = logging.getLogger(__name__)

RETRY_EVERY = 5.0  # seconds
T = TypeVar("T")

# Transient failures; all others are final.
CODES = ("TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED")  # of MLflow
OF_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR)
OF_MYSQL = (1040, 1205, 1213, 2002, 2003, 2006, 2013)  # too many connections, deadlock, no or a lost connection
OF_SQL = ("08", "40", "53", "55", "57")  # SQLSTATE classes: connection, rollback, resources, in use, shutting down
OF_SYSTEM = (errno.EAGAIN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ESTALE)


def is_transient(error: BaseException | None) -> bool:
    """Return whether a failure of a store may pass by itself, by the innermost error of a known kind."""
    transient = False
    while error is not None and not isinstance(error, StoreError):  # of an earlier call
        known = _is_transient(error)
        transient = transient if known is None else known
        error = error.__cause__ or error.__context__
    return transient


def _is_transient(error: BaseException) -> bool | None:
    """Whether this error is transient; None for an error of another kind."""
    if isinstance(error, exc.DBAPIError):
        return _database_is_transient(error)
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    if isinstance(error, (requests.exceptions.SSLError, ssl.SSLError, UnicodeError)):
        return False
    if isinstance(error, requests.RequestException):
        lost = (requests.ConnectionError, requests.Timeout)
        return isinstance(error, (*lost, requests.exceptions.RetryError, requests.exceptions.ChunkedEncodingError))
    if isinstance(error, (ConnectionError, TimeoutError, socket.gaierror, exc.TimeoutError)):
        return True
    if isinstance(error, OSError):
        return error.errno in OF_SYSTEM
    code = getattr(error, "error_code", None)  # of MLflow; INTERNAL_ERROR from a server is HTTP 500, else any error
    return None if code is None else code in CODES or (code == "INTERNAL_ERROR" and hasattr(error, "json"))


def _database_is_transient(error: exc.DBAPIError) -> bool:
    cause: Any = error.orig
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", 0) & 0xFF in OF_SQLITE  # the rest of its bits are details
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or next(iter(cause.args), "")
    if isinstance(state, int):
        return state in OF_MYSQL
    if re.fullmatch("[0-9A-Z]{5}", str(state)):
        return state[:2] in OF_SQL
    refused = "authentication" in str(cause)
    return error.connection_invalidated or (isinstance(error, exc.OperationalError) and not refused)


class RetryingClient:
    """The methods of ``client``, retried for ``retry_for`` seconds after transient failures; they raise StoreError.

    Once a call has waited in vain, the next ones fail at once until one succeeds. ``failures`` are the errors that the
    client raises. Each try runs inside ``guard()``; an interrupt between two tries ends the wait.
    """

    # Not by tenacity: the guard, one warning per outage and StoreError around it need more lines than this loop.

    def __init__(
        self,
        client: Any,
        uri: str,
        failures: tuple[type[Exception], ...],
        is_transient: Callable[[Exception], bool],
        retry_for: float = 0.0,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._client, self._uri, self._failures, self._is_transient = client, uri, failures, is_transient
        self._guard = guard
        self.retry_for = retry_for
        self._is_down = False  # all retries of the last call were used up: the next calls do not wait again

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **named: self.retry(lambda client: getattr(client, name)(*arguments, **named))

    def retry(self, work: Callable[[Any], T]) -> T:
        """Return ``work(client)``; all of it is retried, also where it calls several methods."""
        started, warned = time.monotonic(), False
        while True:
            try:
                with self._guard():
                    result = work(self._client)
                self._is_down = False
                return result
            except self._failures as error:
                failure = StoreError(f"the tracking store {self._uri} failed ({first_line(error)})")
                left = 0.0 if self._is_down else self.retry_for - (time.monotonic() - started)
                transient = self._is_transient(error)
                if left <= 0 or not transient:
                    self._is_down = transient
                    raise failure from error
                if not warned:
                    log.warning("%s; retrying for up to %.0f s", failure, left)
                    warned = True
                time.sleep(min(RETRY_EVERY, left))

    def without_retries(self) -> RetryingClient:
        """Return the same client without retries."""
        return RetryingClient(self._client, self._uri, self._failures, self._is_transient, 0.0, self._guard)
