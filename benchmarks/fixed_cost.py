"""What the command costs beside training: ``python benchmarks/fixed_cost.py``.

First imports, the commands that train nothing, and one run that trains almost nothing: with nothing prepared, with its
pictures in the cache, and when it is finished already. Then one write of an epoch's metrics into a new SQLite store.
Last one run with all metrics as the configuration has them: which part of its wall time is training, and what it
recorded of the rest (its tags). Its pictures are prepared beforehand.

``--imports`` shows in which packages the imports of a run spend their time instead. One thread; all times in seconds.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
from common import Cost, vae_sweep
from vae_sweep.sweeps.preparation import prepare
from vae_sweep.tracking.store import Store

RUN_MODULES = "vae_sweep.cli, vae_sweep.sweeps.execute, vae_sweep.report.publish"  # what one run imports
IMPORTS = ("pass", "import torch", "import mlflow", "import vae_sweep", "import vae_sweep.cli", f"import {RUN_MODULES}")
NOTHING = (
    *("model=fc", "params=tiny", "dataset=shapes", "dataset.n_train=100", "dataset.n_test=50", "training.device=cpu"),
    *("training.max_epochs=1", *common.NO_METRICS),
)
EPOCH = [f"{split}/{term}" for split in ("train", "val") for term in ("loss", "recon", "kl")] + ["images_seen"]


def starts(place: Path) -> dict[str, Callable[[], Cost]]:
    """Return the commands whose time is almost all start-up; every call begins with nothing left by the one before."""
    count = itertools.count()

    def run(before: int, *overrides: str) -> Cost:
        root = place / f"root{next(count)}"
        root.mkdir()
        line = vae_sweep(*NOTHING, f"paths.root={root}", *overrides)
        return [common.command(line, root) for _ in range(before + 1)][-1]

    python = [sys.executable, "-c"]
    ways = {
        f"python -c '{code if len(code) < 40 else 'import all that a run needs'}'": [*python, code] for code in IMPORTS
    }
    ways |= {f"python -m vae_sweep {words}": vae_sweep(*words.split()) for words in ("--help", "--cfg job")}
    found = {name: lambda line=line: common.command(line, place) for name, line in ways.items()}
    return found | {
        "a run of 1 epoch of 90 images, the first in its folder": lambda: run(0),
        "the same again (resume=false), pictures in the cache": lambda: run(1, "resume=false"),
        "the same again, finished already": lambda: run(1),
    }


def tracking(place: Path, epochs: int) -> tuple[float, float]:
    """Return the medians of what an epoch's metrics take in a new SQLite store, and in one that has them all; s."""
    record = Store.open(f"sqlite:///{place / 'tracking.db'}", place, "fixed").start_run("run", {})
    took = []
    for epoch in range(epochs):
        before = time.perf_counter()
        record.log_metrics(dict.fromkeys(EPOCH, float(epoch)), epoch)
        took.append(time.perf_counter() - before)
    half = len(took) // 2
    return statistics.median(took[:half]), statistics.median(took[half:])


def default_run(place: Path, overrides: list[str]) -> list[list[str]]:
    """Return rows that part the wall time of one run with all metrics."""
    root = place / "default"
    root.mkdir()
    line = [f"paths.root={root}", *overrides]
    prepare(common.composed(*line), root)
    wall = common.command(vae_sweep(*line), root).wall
    run = common.recorded(root)[-1]
    parts = common.listed(run, "vae_sweep.time_s")
    rest = wall - parts["training"]
    rows = [["the process", "100%", f"{wall:.1f}"], ["all but training", *shown(rest, wall)]]
    rows.append(["all but training and validation", *shown(rest - parts["validation"], wall)])
    rows += [[name, *shown(seconds, wall)] for name, seconds in parts.items()]
    rows.append(["start and end of the process", *shown(wall - sum(parts.values()), wall)])
    measuring = common.listed(run, "vae_sweep.measuring_s")
    return rows + [[f"of metrics: {name}", *shown(seconds, wall)] for name, seconds in measuring.items()]


def shown(seconds: float, of: float) -> list[str]:
    return [f"{seconds / of:.1%}", f"{seconds:.1f}"]


def show_imports() -> None:
    """Print the packages whose modules took longest to import, themselves alone, when a run starts."""
    line = [sys.executable, "-X", "importtime", "-c", f"import {RUN_MODULES}"]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stderr
    found: Counter[str] = Counter()
    for own, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", printed):
        found[name.partition(".")[0]] += int(own)
    rows = [[name, f"{own / found.total():.1%}", f"{own / 1e6:.2f}"] for name, own in found.most_common(15)]
    common.table(["package", "share", "s"], [["all", "100%", f"{found.total() / 1e6:.2f}"], *rows])


def main() -> None:
    parser = common.arguments(__doc__, repetitions=5)
    parser.add_argument("--epochs", type=int, default=20, help="of the run with all metrics; default 20")
    parser.add_argument("--images", type=int, default=45_000, help="that it trains on; default 45000")
    parser.add_argument("--models", type=common.names, default=["fc", "conv"], help="of the run with all metrics")
    parser.add_argument("--imports", action="store_true", help="show the packages that a run imports instead")
    options, given = parser.parse_known_args()
    if options.imports:
        show_imports()
        common.closing()
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        costs = common.interleaved(starts(place), options.repetitions)
        first = common.median(costs["python -c 'import torch'"])
        rows: list[list[Any]] = []
        for name, each in costs.items():
            cost = common.median(each)
            rows.append([name, f"{cost.wall / first.wall:.2f}", f"{cost.wall:.2f}", f"{cost.core:.2f}"])
        common.table(["command", "times import torch, wall", "wall, s", "core, s"], rows)
        took = " s, after 100 epochs ".join(f"{seconds:.4f}" for seconds in tracking(place, 200))
        print(f"An epoch's {len(EPOCH)} metrics into SQLite: {took} s.\n")
        for model in options.models:
            line = [f"model={model}", *common.SHAPES, common.size(options.images)]
            line += [f"training.max_epochs={options.epochs}", f"training.patience={options.epochs + 1}"]
            print(f"model={model}, {options.images:,} images, {options.epochs} epochs:\n")
            head = ["part", "share of the wall time", "s"]
            common.table(head, default_run(Path(tempfile.mkdtemp(dir=place)), [*line, "training.device=cpu", *given]))
    common.closing()


if __name__ == "__main__":
    main()
