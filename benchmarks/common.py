"""What the benchmarks share: cells as a sweep configures them, two clocks, repetitions that take turns, tables.

``wall`` is elapsed time; ``core`` is CPU time of this process and of those children that it has waited for, both in
seconds. A ratio is the median of the ratios within each repetition, so that a machine that slows down meanwhile slows
both sides of it.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vae_sweep import models
from vae_sweep.base.system import available_cores
from vae_sweep.cli import config_dir
from vae_sweep.config import schema
from vae_sweep.datasets.shapes import draw_factors, render
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.preparation import resolve_choices
from vae_sweep.sweeps.record import train_settings
from vae_sweep.training import loop, randomness

SHAPE = (3, 32, 32)  # of the pictures, (C, H, W)
SHAPES = ("dataset=shapes", f"dataset.image_size={SHAPE[-1]}")
DRAWN = 10_000  # pictures that differ; more are repeats of them
VAL_FRACTION = 0.1  # share of the images that a run holds out, as conf/dataset has it
NO_METRICS = ("metrics.iwae_samples=0", "metrics.gmm_components=0", "metrics.ssim_images=0", "metrics.features=none")


@dataclass(frozen=True)
class Cost:
    """What some work took, or what the clocks show."""

    wall: float  # s
    core: float  # s

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.core - other.core)

    def __truediv__(self, n: float) -> Cost:
        return Cost(self.wall / n, self.core / n)


def clock(device: torch.device | None = None) -> Cost:
    """Return what the clocks show, once ``device`` has done all that it was given."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)


def timed(work: Callable[[], object]) -> Cost:
    """Return what a call of ``work`` takes."""
    before = clock()
    work()
    return clock() - before


def interleaved(ways: Mapping[str, Callable[[], Cost]], repetitions: int, warm_up: int = 1) -> dict[str, list[Cost]]:
    """Return the costs of each way, by repetition; the ways take turns, each time beginning with another one.

    ``warm_up``: rounds before the first that counts.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for repetition in range(-warm_up, repetitions):
        first = repetition % len(ways)
        for name in [*ways][first:] + [*ways][:first]:
            cost = ways[name]()
            if repetition >= 0:
                costs[name].append(cost)
    return costs


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of both clocks."""
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.core for c in costs))


def ratio(costs: Sequence[Cost], to: Sequence[Cost]) -> Cost:
    """Return the medians over the repetitions of ``costs`` in units of ``to``."""
    return median([Cost(a.wall / b.wall, a.core / b.core) for a, b in zip(costs, to, strict=True)])


def composed(*overrides: str) -> DictConfig:
    """Return the configuration that the command would have with these overrides, started in this folder."""
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("config", list(overrides))
    if OmegaConf.is_interpolation(cfg.paths, "root"):
        cfg.paths.root = str(Path.cwd())  # what the command itself asks Hydra for
    resolve_choices(cfg)
    return cfg


def cell(model: str, params: str, *overrides: str) -> DictConfig:
    """Return the configuration of one cell of a sweep."""
    return composed(f"model={model}", f"params={params}", *SHAPES, *overrides)


def size(images: int) -> str:
    """Return the override that makes dataset=shapes train on so many pictures, with those of validation beside them."""
    return f"dataset.n_train={round(images / (1 - VAL_FRACTION))}"


def built(cfg: DictConfig) -> VAE:
    """Return the model of a cell, its weights drawn with the cell's seed."""
    randomness.seed_weights(cfg.seed)
    return models.create(cfg.model, SHAPE, cfg.params.latent_dim)


def fit(
    cfg: DictConfig, model: VAE, train: torch.Tensor, val: torch.Tensor, epochs: int, **settings: Any
) -> Iterator[loop.EpochMetrics]:
    """Train ``model`` as the cell ``cfg`` would be, for exactly ``epochs`` epochs; ``settings`` replace the cell's."""
    device = settings.pop("device", None)
    cell = train_settings(cfg)
    return loop.fit(model, train, val, replace(cell, max_epochs=epochs, patience=epochs + 1, **settings), device)


def epochs_of(
    cfg: DictConfig, images: torch.Tensor, val: torch.Tensor, epochs: int, **settings: Any
) -> Callable[[], Cost]:
    """Return a function each call of which trains one more epoch, up to ``epochs``, and returns what that took."""
    metrics = fit(cfg, built(cfg), images, val, epochs, **settings)
    return lambda: timed(lambda: next(metrics))


def pictures(n: int) -> torch.Tensor:
    """Return coloured shapes, uint8 (n, 3, 32, 32), each with memory of its own."""
    drawn = torch.from_numpy(render(draw_factors(min(n, DRAWN), seed=0, stream=0), SHAPE[1]))
    return drawn.repeat(-(-n // len(drawn)), 1, 1, 1)[:n]


def command(arguments: Sequence[str], cwd: Path, threads: int | None = 1) -> Cost:
    """Run a command to its end and return what it and its children took; what it prints is kept to itself.

    ``threads``: OMP_NUM_THREADS for it; None leaves it unset, as on a user's machine. It sees no tracking server: that
    might have finished the runs already.

    Raises:
        SystemExit: with the end of what it printed, where it fails.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_NUM", "MLFLOW_"))}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    before = clock()
    done = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    cost = clock() - before
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return cost


def vae_sweep(*arguments: str) -> list[str]:
    """Return the project's command with these arguments."""
    return [sys.executable, "-m", "vae_sweep", *arguments]


def recorded(root: Path) -> list[Any]:
    """Return MLflow's runs of all cells in the store of the project folder ``root``, oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(everywhere, "tags.`vae_sweep.role` = 'run'", order_by=["attributes.start_time ASC"])


def listed(run: Any, tag: str) -> dict[str, float]:
    """Return the parts, in seconds, that a run has written into one of its tags; none where it has no such tag."""
    return {part: float(seconds) for part, seconds in re.findall(r"(\w+) ([\d.]+)", run.data.tags.get(tag, ""))}


def arguments(doc: str | None, repetitions: int) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have; ``doc`` is shown by --help."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=repetitions, help=f"that count; default {repetitions}")
    return parser


def names(text: str) -> list[str]:
    """Return the parts of a list with commas, as an option takes it."""
    return text.split(",")


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas, as an option takes it."""
    return [int(part) for part in names(text)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table, its first column to the left."""
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def closing(*peers: str) -> None:
    """Print what was measured on and with; ``peers`` are more packages whose versions matter."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    packages = ", ".join(f"{name} {version(name)}" for name in ("vae-sweep", "torch", "mlflow", *peers))
    print(f"{cpu}, {available_cores()} cores{gpu}; Python {platform.python_version()}, {packages}", flush=True)
