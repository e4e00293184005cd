"""Let the runs of a moved project folder find their artifacts: ``python -m vae_sweep.relocate``.

Every command of this package does so by itself; this one is for looking at a moved project with ``mlflow ui`` alone.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from vae_sweep.base.errors import UserError
from vae_sweep.base.process import set_up
from vae_sweep.base.system import resolve_path
from vae_sweep.config.messages import user_message
from vae_sweep.tracking.relocate import relocate

USAGE = """\
usage: python -m vae_sweep.relocate [folder]

  folder   the project folder that was moved or copied; without it the current one
"""


def main() -> None:
    """Entry point of ``python -m vae_sweep.relocate``."""
    arguments = sys.argv[1:]
    try:
        set_up()
        if {"-h", "--help"} & set(arguments) or len(arguments) > 1:
            print(USAGE)
            sys.exit(0 if len(arguments) == 1 else 2)
        root = resolve_path(Path.cwd(), arguments[0] if arguments else ".", "folder")
        database = root / "mlflow.db"
        if not database.is_file():
            raise UserError(f"{root}: no mlflow.db here; give the folder that holds mlflow.db and mlruns/")
        try:
            changed = relocate(database)
        except sqlite3.Error as error:
            raise UserError(
                f"{database}: cannot be changed ({error}); is it a store of MLflow that you may write?"
            ) from error
    except UserError as error:
        sys.exit(user_message(error))
    print(f"{changed} runs now find their artifacts in {root / 'mlruns'}" if changed else "nothing to change")


if __name__ == "__main__":
    main()
