"""The MLflow UI of this folder: ``python -m vae_sweep.ui``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep.api import find_sweep
from vae_sweep.base.errors import UserError
from vae_sweep.base.signals import interrupt
from vae_sweep.config.options import option, run_command

if TYPE_CHECKING:
    from vae_sweep.tracking.store import Store

GRACE = 10.0  # seconds


@dataclass
class Options:
    """Start the MLflow UI on the runs of this folder, and print the pages to look at first; Ctrl-C stops it."""

    sweep: str = option("id of the sweep to show, or its beginning, or last", "last")
    port: int = option("where the UI answers", 5000)
    uri: str | None = option("tracking store; null: as in training, seen from this folder", None)


def main() -> None:
    """Entry point of ``python -m vae_sweep.ui``."""
    run_command("ui", Options, lambda options: show(options, Path.cwd()))


def show(options: Options, root: Path) -> None:
    """Print the pages, and serve them until Ctrl-C; a store behind a server has a UI already.

    Raises:
        UserError: where there is no sweep, or the port is taken.
    """
    from vae_sweep.tracking.store import Store
    from vae_sweep.tracking.uris import is_database

    store = Store.existing(options.uri, root, f"sweep={options.sweep}: no runs are stored here")
    served = is_database(store.uri)
    server = f"http://127.0.0.1:{options.port}" if served else store.uri
    if served:
        _check_free(options.port)
    title, known = _pages(store, options.sweep, server)
    print(f"{title}:")
    for what, address in known.items():
        print(f"  {what:<14} {address}")
    if served:
        print("The UI starts; its pages answer within half a minute. Ctrl-C stops it.", flush=True)
        _serve(store.uri, options.port, root)


def _pages(store: Store, asked: str, server: str) -> tuple[str, dict[str, str]]:
    """What the pages show, and where each is: those of a sweep, or of all runs where there is no sweep yet."""
    from vae_sweep.tracking.names import ROLE
    from vae_sweep.tracking.pages import home, pages

    if asked == "last" and not store.newest({ROLE: "sweep"}) and (run := store.newest({ROLE: "run"})):
        return "No sweep yet, only runs alone", {"all runs": home(server, run.experiment_id)}
    sweep = find_sweep(store, asked)
    return f"{sweep.name} ({sweep.run_id})", pages(server, sweep, store.children(sweep.run_id))


def _serve(uri: str, port: int, root: Path) -> None:
    """Run the MLflow UI until Ctrl-C or SIGTERM, and end its processes with this one."""
    from vae_sweep.tracking.uris import with_secret

    signal.signal(signal.SIGTERM, interrupt)
    line = f"-m mlflow ui --workers 1 --host 127.0.0.1 --port {port} --uvicorn-opts".split()
    quiet = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes instead of 15
        "PYTHONWARNINGS": "ignore",
    }
    store = {"MLFLOW_BACKEND_STORE_URI": with_secret(uri)}  # where `ps` does not show its password
    command = [sys.executable, *line, "--log-level=warning"]
    with subprocess.Popen(command, env=os.environ | quiet | store, cwd=root, start_new_session=True) as server:
        try:
            code = server.wait()
        except KeyboardInterrupt:
            _end(server)
            return
    if code:
        raise UserError(f"the MLflow UI ended with status {code}; the lines above say why")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server and its processes; by force where that takes longer than :data:`GRACE`, as while it starts."""
    grouped = hasattr(os, "killpg")
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM) if grouped else server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL) if grouped else server.kill()


def _check_free(port: int) -> None:
    if not 1 <= port <= 65535:
        raise UserError(f"port={port}: must be a whole number from 1 to 65535")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port={port}: something answers there already; give another port, such as port={port + 1}")


if __name__ == "__main__":
    main()
