"""Whether a local store has changed, asked without MLflow: its import takes two seconds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing

from vae_sweep.tracking.uris import sqlite_path

TABLES = ("runs", "params", "tags", "latest_metrics")  # of MLflow, by run_uuid


def digest_of_runs(uri: str, run_ids: Sequence[str]) -> str | None:
    """Return a hash of all that a SQLite file says of these runs; None for any other store."""
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        return None
    rows = []
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=20, uri=True)) as connection:
            for table in TABLES:
                query = f"SELECT * FROM {table} WHERE run_uuid IN (SELECT value FROM json_each(?))"
                rows += sorted(map(repr, connection.execute(query, [json.dumps(list(run_ids))])))
    except sqlite3.Error:
        return None
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
