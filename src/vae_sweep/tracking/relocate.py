"""Artifact paths of a moved or copied project folder: MLflow stores absolute ones, which are rewritten here."""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

log = logging.getLogger(__name__)

PATHS = (  # tables and columns of MLflow with artifact paths
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def relocate(database: Path) -> int:
    """Point the runs of ``database`` whose artifacts are in ``mlruns`` beside it there; return how many changed.

    An existing artifact folder outside the project stays, unless runs of it have artifacts here.

    Raises:
        sqlite3.Error: where the store cannot be read or written.
    """
    here = database.parent / "mlruns"
    new, changed = here.as_uri(), 0
    with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
        columns = {table: _columns(connection, table) for table, _ in PATHS}
        if not {"experiment_id", "artifact_uri", "run_uuid"} <= columns["runs"]:
            return 0  # an empty store
        for number, old in connection.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            if old == new or not str(old).startswith("file:") or not str(old).endswith("/mlruns"):
                continue
            runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (number,)).fetchall()
            there = Path(unquote(urlsplit(old).path))
            if there.is_dir() and not any((here / run).is_dir() for (run,) in runs):
                continue
            for table, column in PATHS:
                if column not in columns[table]:
                    continue
                done = connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
                changed += done.rowcount if table == "runs" else 0
    if changed:
        log.info(
            "the project folder has moved to %s: the artifacts of %d runs are looked for here", here.parent, changed
        )
    return changed


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
