"""A whole sweep, three ways: ``python benchmarks/sweep.py``.

The 2x3 grid with a fixed number of epochs, by the real command in a project folder of its own, on pictures that are
prepared beforehand:

- cores: one single-threaded run on every core, as the project does by itself
- threads: one run after the other, each with as many threads as there are cores
- notebook: the loop of tutorials for the same cells, one after the other, with all threads: PIL pictures, a DataLoader
  with two workers, the validation loss after every epoch and the test loss at the end; no tracking, no figures

Without ``--full`` held-out metrics beside the loss are off, since a notebook has none; all else of a run counts.
A second table tells what a run loses by others beside it: the images per second of one run alone, and of as many at
once as there are cores (the same cell with several seeds, so that all end together).

``--full`` trains to the end: every cell by default early stopping, with all metrics, the notebook by the same rule. Its
second table has the losses, and its third what the runs' time went to, as they have recorded it.

What follows the options is handed to the project's command: ``python benchmarks/sweep.py --images 45000 seed=1``, or
``--full --ways cores,notebook dataset=folder dataset.path=/data/cifar10-jpeg dataset.name=cifar10-jpeg``.
"""

from __future__ import annotations

import argparse
import itertools
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader

import common
from common import Cost
from notebook import Pictures, array, notebook_epoch, notebook_loss
from vae_sweep.base.system import available_cores
from vae_sweep.datasets import ImageDataset
from vae_sweep.sweeps.preparation import prepare
from vae_sweep.training.stopping import EarlyStopping

WAYS = {
    "cores": "one single-threaded run per core",
    "threads": "one run at a time, all threads",
    "notebook": "notebook",
}
NOTEBOOK_WORKERS = 2


class Bench:
    """The grid and its prepared pictures below one folder."""

    def __init__(self, place: Path, options: argparse.Namespace, given: list[str]):
        self.place, self.models, self.params = place, options.models, options.params
        self.count = itertools.count()
        self.runs: list[Any] = []  # MLflow's, of the last sweep
        drawn = (
            () if any(word.startswith("dataset=") for word in given) else (*common.SHAPES, common.size(options.images))
        )
        epochs = options.epochs
        given = [re.sub("^dataset.path=(?=[^/~])", f"dataset.path={Path.cwd()}/", word) for word in given]
        short = (f"training.max_epochs={epochs}", f"training.patience={epochs + 1}", *common.NO_METRICS)
        self.overrides = [*drawn, f"paths.data={place / 'data'}", "training.device=cpu"]
        self.overrides += [*(() if options.full else short), *given]

    def prepared(self) -> ImageDataset:
        """Return the pictures, prepared on the first call."""
        return prepare(common.composed(*self.overrides), self.place)[0]

    def cells(self) -> list[DictConfig]:
        """Return the configuration of every cell."""
        chosen = itertools.product(self.models, self.params)
        return [common.composed(f"model={m}", f"params={p}", *self.overrides) for m, p in chosen]

    def product(self, *overrides: str) -> Cost:
        """Run the project's command and return what it took."""
        root = self.place / f"root{next(self.count)}"
        root.mkdir()
        line = common.vae_sweep("-m", *self.overrides, f"paths.root={root}", *overrides)
        cost = common.command(line, root, threads=None)
        self.runs = common.recorded(root)
        return cost

    def grid(self, *overrides: str) -> Cost:
        """Run the grid by the project's command and return what it took."""
        return self.product(f"model={','.join(self.models)}", f"params={','.join(self.params)}", *overrides)

    def notebook(self) -> Cost:
        """Train the grid as a notebook would, in a process of its own, and return what it took."""
        names = ["--models", ",".join(self.models), "--params", ",".join(self.params)]
        names += ["--full"]  # our overrides say when to stop
        line = [sys.executable, str(Path(__file__).resolve()), "--as-notebook", str(self.place), *names]
        return common.command([*line, *self.overrides], self.place, threads=None)

    def alone_and_beside(self, model: str, repetitions: int) -> tuple[float, float]:
        """Return the images per second of a run alone, and the mean over as many at once as there are cores."""
        found: dict[int, list[float]] = {1: [], available_cores(): []}
        for _ in range(repetitions):
            for runs, rates in found.items():
                seeds = ",".join(map(str, range(runs)))
                self.product(f"model={model}", f"params={self.params[0]}", f"seed={seeds}")
                rates.append(statistics.mean(run.data.metrics["images_per_s"] for run in self.runs))
        return statistics.median(found[1]), statistics.median(found[available_cores()])


def as_notebook(bench: Bench) -> None:
    """Train every cell in this process, as tutorials do."""
    torch.set_num_threads(available_cores())
    splits = {name: Pictures(array(torch.from_numpy(split.images))) for name, split in bench.prepared().splits.items()}
    for cfg in bench.cells():
        loaders = {
            name: DataLoader(split, cfg.params.batch_size, shuffle=name == "train", num_workers=NOTEBOOK_WORKERS)
            for name, split in splits.items()
        }
        model = common.built(cfg)
        optimizer = torch.optim.Adam(model.parameters(), lr=cfg.params.lr)
        stopping = EarlyStopping(cfg.training.patience, cfg.training.min_delta)
        for epoch in range(1, cfg.training.max_epochs + 1):
            train, val = notebook_epoch(model, loaders["train"], optimizer), notebook_loss(model, loaders["val"])
            print(f"{cfg.model.name} {epoch}: train {train:.2f}, val {val:.2f}")
            stopping.update(epoch, val)
            if stopping.should_stop(epoch):
                break
        print(f"{cfg.model.name}: test {notebook_loss(model, loaders['test']):.2f}")


def compare(bench: Bench, ways: Sequence[str], repetitions: int) -> None:
    """Print the wall times of the grid."""
    work = {
        "cores": lambda: bench.grid(),
        "threads": lambda: bench.grid("hydra/launcher=basic", f"training.threads={available_cores()}"),
        "notebook": bench.notebook,
    }
    costs = common.interleaved({name: work[name] for name in ways}, repetitions, warm_up=0)
    rows = []
    for name in ways:
        cost = common.median(costs[name])
        shown = f"{common.ratio(costs[ways[0]], costs[name]).wall:.2f}"
        rows.append([WAYS[name], shown, f"{cost.wall:.1f}", f"{cost.core:.1f}"])
    common.table(["way", f"{ways[0]} / this, wall", "wall, s", "core, s"], rows)


def trained(runs: Sequence[Any]) -> None:
    """Print what the runs of a sweep reached, and which parts their time had."""
    rows: list[list[str]] = []
    parts: defaultdict[str, float] = defaultdict(float)
    for run in runs:
        found = {name: run.data.metrics[name] for name in ("epochs", "best/val_loss", "test/loss", "wall_time_s")}
        rows.append([f"{run.data.params['model.name']} {run.data.params['params.name']}"])
        rows[-1] += [f"{value:.{digits}f}" for value, digits in zip(found.values(), (0, 2, 2, 0), strict=True)]
        took, measuring = (common.listed(run, f"vae_sweep.{tag}") for tag in ("time_s", "measuring_s"))
        took["closed form's metrics"] = took.pop("metrics") - sum(measuring.values())  # measured, or waited for
        took["other"] = found["wall_time_s"] - sum(took.values()) - sum(measuring.values())
        for name, value in (took | measuring).items():
            parts[name] += value
    common.table(["run", "epochs", "val loss", "test loss", "wall, s"], rows)
    total = sum(parts.values())
    largest = sorted(parts.items(), key=lambda part: -part[1])
    common.table(["part", "s", "share"], [[name, f"{took:.0f}", f"{took / total:.1%}"] for name, took in largest])


def main() -> None:
    parser = common.arguments(__doc__, repetitions=1)
    parser.add_argument("--images", type=int, default=45_000, help="to train on; default 45000")
    parser.add_argument("--epochs", type=int, default=2, help="of every cell; default 2")
    parser.add_argument("--full", action="store_true", help="early stopping and all metrics, instead of --epochs")
    parser.add_argument("--models", type=common.names, default=["fc", "conv"])
    parser.add_argument("--params", type=common.names, default=["p1", "p2", "p3"])
    parser.add_argument(
        "--ways", type=common.names, default=[*WAYS], help=f"of {','.join(WAYS)}; the first is compared"
    )
    parser.add_argument("--folder", help="where the project folders are made; default: the system's temporary one")
    parser.add_argument("--as-notebook", metavar="PLACE", help="only train as a notebook, on pictures prepared there")
    options, given = parser.parse_known_args()
    if options.as_notebook:
        as_notebook(Bench(Path(options.as_notebook), options, given))
        return
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as place:
        bench = Bench(Path(place), options, given)
        data = bench.prepared()
        sizes = ", ".join(f"{len(split):,} {name}" for name, split in data.splits.items())
        cells = len(options.models) * len(options.params)
        epochs = "until early stopping" if options.full else options.epochs
        print(f"Cells: {cells}, epochs of each: {epochs}; images: {sizes}; cores: {available_cores()}.\n")
        compare(bench, options.ways, options.repetitions)
        if options.full and bench.runs:
            trained(bench.runs)
        if "cores" in options.ways and not options.full:
            rows = []
            for model in options.models:
                alone, beside = bench.alone_and_beside(model, options.repetitions)
                rows.append([f"{model} {options.params[0]}", f"{beside / alone:.2f}", f"{beside:.0f}", f"{alone:.0f}"])
            runs = f"one of {available_cores()} at once"
            common.table(["cell", "efficiency", f"{runs}, images/s", "alone, images/s"], rows)
    common.closing()


if __name__ == "__main__":
    main()
