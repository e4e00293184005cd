"""What the tests of the real command share: how it is started, and what it leaves in the store."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

TIMEOUT = 300.0  # seconds
BASIC = "hydra/launcher=basic"  # cells one after another in one process: workers would import everything again
ENDLESS = ("training.max_epochs=100000", "training.patience=100000")
TIMINGS = ("wall_time_s", "train_time_s", "images_per_s", "cpu_time_s", "peak_memory_mb")
READ_AT_START = ("PYTHON", "LC_", "LANG", "MPLBACKEND")  # of the environment, by Python or by an import
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # on busy cores two wait for each other

LOGGED = {"VAE_SWEEP_PROGRESS": "log"}  # every epoch is a line, to wait for; progress=... shows anything else


def clean_environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HYDRA_")) and k != "COLUMNS"}
    return kept | ONE_THREAD | LOGGED


def run_process(
    *arguments: str, cwd: Path, module: str = "vae_sweep", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m module arguments`` in a folder, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=TIMEOUT,
    )


@contextmanager
def heeded_signals() -> Iterator[None]:
    """What starts inside heeds Ctrl-C and a closed terminal, also where pytest is a background job or under nohup."""
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


class Preloaded:
    """Runs commands as :func:`run_process` does, in forks of one process that has the libraries imported."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("preloaded.py"))],
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(
        self, *arguments: str, cwd: Path, module: str = "vae_sweep", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        assert not [key for key in environment if key.startswith(READ_AT_START)], "this needs a process of its own"
        stdout, stderr = (Path(self.folder.name, name) for name in ("stdout", "stderr"))
        asked = {
            "module": module,
            "arguments": arguments,
            "cwd": str(cwd),
            "environment": clean_environment() | environment,
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(f"{json.dumps(asked)}\n")
        self.server.stdin.flush()
        pid = int(self.server.stdout.readline())
        timer = threading.Timer(TIMEOUT, os.kill, (pid, signal.SIGKILL))
        timer.start()
        code = int(self.server.stdout.readline())
        timer.cancel()
        shown = [path.read_text(encoding="utf-8", errors="surrogateescape") for path in (stdout, stderr)]
        return subprocess.CompletedProcess(list(arguments), code, *shown)

    def close(self) -> None:
        self.server.communicate(timeout=TIMEOUT)
        self.folder.cleanup()


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
