"""Does a store lose rows when many runs write at once? Eight cells of one sweep, trained in parallel, on every store.

    python tests/torture/writers.py --store sqlite --store postgresql://user:password@127.0.0.1:5433/mlflow

The cells are tiny and their epochs short, so that the store is the bottleneck. Credentials of a server come from
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. Prints a Markdown table; the exit code is 0 if and only if no row
is lost or there twice, no error was logged and every run is finished.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
import numpy as np

PER_EPOCH = ["images_seen", *(f"{split}/{term}" for split in ("train", "val") for term in ("loss", "recon", "kl"))]
ERRORS = re.compile(r"database is locked|deadlock|Traceback|\]\[(?:WARNING|ERROR)\]|^\S+ \S+ (?:WARNING|ERROR) ", re.I)


@dataclass(frozen=True)
class Result:
    """What one sweep left in its store."""

    code: int
    finished: int
    expected: int
    found: int
    duplicate: int
    lost: int
    errors: list[str]
    epoch_s: float
    worst_s: float
    total_s: float


def main() -> None:
    """Run the sweep on every store; print one row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", help="sqlite, or a tracking URI; may be repeated (sqlite)")
    parser.add_argument("--cells", type=int, default=8, help="cells of the sweep, one seed each (%(default)s)")
    parser.add_argument("--jobs", type=int, default=8, help="cells trained at once (%(default)s)")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each cell (%(default)s)")
    parser.add_argument("--images", type=int, default=64, help="training images (%(default)s)")
    parser.add_argument("--keep", type=Path, help="leave the sweeps' folders here")
    given = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        print("| store | cells finished | rows expected | found | duplicate | lost | errors ", end="")
        print("| s per epoch, mean (longest) | s in all |\n|" + " --- |" * 9, flush=True)
        for number, store in enumerate(given.store or ["sqlite"]):
            root = (given.keep or Path(temporary)).resolve() / str(number)
            root.mkdir(parents=True)
            result = measure(store, root, given.cells, given.jobs, given.epochs, given.images)
            shown = re.sub(r"//.*@", "//", store).partition("?")[0]
            print(
                f"| {shown} | {result.finished} of {given.cells} | {result.expected} | {result.found} "
                f"| {result.duplicate} | {result.lost} | {len(result.errors)} "
                f"| {result.epoch_s:.2f} ({result.worst_s:.1f}) | {result.total_s:.0f} |",
                flush=True,
            )
            for line in result.errors[:5]:
                print(f"  {line[:160]}", file=sys.stderr)
            clean = not (result.lost or result.duplicate or result.errors or result.code)
            good = good and clean and result.finished == given.cells
    sys.exit(0 if good else 1)


def measure(store: str, root: Path, cells: int, jobs: int, epochs: int, images: int) -> Result:
    """Run the sweep on ``store`` and count the metric rows of its cells."""
    uri = f"sqlite:///{root / 'mlflow.db'}" if store == "sqlite" else store
    experiment = f"torture-{secrets.token_hex(4)}"
    command = [
        *(sys.executable, "-m", "vae_sweep", "-m", "model=linear", "params=tiny", "dataset=shapes"),
        *(f"seed={','.join(map(str, range(cells)))}", f"hydra.launcher.n_jobs={jobs}"),
        *(f"dataset.n_train={images}", "dataset.n_test=32", "evaluation.n_samples=4"),
        *(f"training.max_epochs={epochs}", "training.patience=100000", f"tracking.experiment={experiment}"),
    ]
    started = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=root,
        env=os.environ | {"MLFLOW_TRACKING_URI": uri, "VAE_SWEEP_PROGRESS": "log"},
        capture_output=True,
        text=True,
    )
    total = time.perf_counter() - started
    output = done.stdout + done.stderr
    (root / "output.txt").write_text(output)
    errors = [line for line in output.splitlines() if ERRORS.search(line)]

    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], "tags.`vae_sweep.role` = 'run'", max_results=1000) if found else []
    rows: Counter[tuple[str, str, int]] = Counter()
    gaps: list[float] = []
    final: set[str] = set()
    for run in runs:
        final |= run.data.metrics.keys() - set(PER_EPOCH)
        for key in run.data.metrics:
            points = client.get_metric_history(run.info.run_id, key)
            rows.update((run.info.run_name, key, point.step) for point in points)
            if key == PER_EPOCH[0]:
                gaps += list(np.diff(sorted(point.timestamp for point in points)) / 1000)
    names = sorted({run.info.run_name for run in runs})
    wanted = {(name, key, step) for name in names for key in PER_EPOCH for step in range(1, epochs + 1)}
    wanted |= {(name, key, 0) for name in names for key in final}
    missing = cells - len(names)
    each = epochs * len(PER_EPOCH) + len(final)
    return Result(
        code=done.returncode,
        finished=sum(run.info.status == "FINISHED" for run in runs),
        expected=cells * each,
        found=sum(rows.values()),
        duplicate=sum(count - 1 for count in rows.values()),
        lost=len(wanted - rows.keys()) + missing * each,
        errors=errors,
        epoch_s=float(np.mean(gaps)) if gaps else float("nan"),
        worst_s=max(gaps, default=float("nan")),
        total_s=total,
    )


if __name__ == "__main__":
    main()
