"""What the tests of the real command share: its environment, and what it leaves in the store."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

ENDLESS = ("training.max_epochs=100000", "training.patience=100000")
TIMINGS = ("wall_time_s", "train_time_s", "images_per_s")


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HYDRA_"))}


def rows(root: Path) -> list[tuple[str, str, int, float]]:
    """Every metric row of every run but the sweep's own, duplicates included, without timings."""
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return connection.execute(
            "SELECT runs.name, metrics.key, metrics.step, metrics.value "
            "FROM metrics JOIN runs USING (run_uuid) JOIN tags USING (run_uuid) "
            "WHERE tags.key = 'vae_sweep.role' AND tags.value = 'run' "
            f"AND metrics.key NOT IN {TIMINGS} ORDER BY 1, 2, 3, 4"
        ).fetchall()


def statuses(root: Path) -> dict[str, str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return dict(connection.execute("SELECT name, status FROM runs").fetchall())
