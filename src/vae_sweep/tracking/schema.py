"""The schema of a database: refused where it belongs to another version of MLflow."""

from __future__ import annotations

import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
from mlflow.store.db.utils import _get_latest_schema_revision

from vae_sweep.base.errors import UserError
from vae_sweep.tracking.uris import sqlite_path


def check_schema(uri: str, path: Path) -> None:
    """Check the SQLite database at ``path``: where tables are missing, MLflow would change it unasked.

    Raises:
        UserError: for a database of another version of MLflow.
    """
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if found and found[0] != _get_latest_schema_revision():
                raise _other_version(uri, found[0])


def schema_error(uri: str, error: BaseException) -> UserError | None:
    """Return what MLflow's ``error`` about a database of another version means; None for other errors."""
    found = re.search(r"out-of-date database schema \(found version (\w+)", str(error))
    return _other_version(uri, found[1]) if found else None


def use_write_ahead_log(path: Path) -> None:
    """Let parallel runs write to a SQLite database without waiting for readers; the file keeps the setting."""
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _other_version(uri: str, found: str) -> UserError:
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
