"""Let the runs of a moved project folder find their artifacts: ``python -m vae_sweep.relocate``.

Every command of this package does so by itself; this one is for looking at a moved project with ``mlflow ui`` alone.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.options import option, run_command
from vae_sweep.tracking.relocate import relocate


@dataclass
class Options:
    """Let the runs of a moved project folder find their artifacts; all other commands do so by themselves."""

    folder: str = option("project folder that was moved or copied, with mlflow.db and mlruns/", ".", positional=True)


def main() -> None:
    """Entry point of ``python -m vae_sweep.relocate``."""

    def work(options: Options) -> None:
        root = resolve_path(Path.cwd(), options.folder, "folder")
        database = root / "mlflow.db"
        if not database.is_file():
            raise UserError(f"{root}: no mlflow.db here; give the folder that holds mlflow.db and mlruns/")
        try:
            changed = relocate(database)
        except sqlite3.Error as error:
            raise UserError(
                f"{database}: cannot be changed ({error}); is it a store of MLflow that you may write?"
            ) from error
        print(f"{changed} runs now find their artifacts in {root / 'mlruns'}" if changed else "nothing to change")

    run_command("relocate", Options, work)


if __name__ == "__main__":
    main()
