"""How training scales: ``python benchmarks/scaling.py``.

- batch, latents, images: time per training image of an epoch of p1, by batch size, by number of latents, and by number
  of images in memory; one thread
- jobs: the same beside other jobs, each a process of its own with one thread, all on one prepared set of pictures;
  and what each job has in memory beyond a process that did ``import torch`` and one update of a single weight by
  Adam, with as many of those side by side. Resident memory counts a page in full in every process that has it;
  proportional memory (PSS) divides it by the number of processes. The pictures are mapped from one file: with n jobs
  their proportional size is 1/n of the resident one, and no page of them has been changed, which would make it the
  process's own. A job here has all modules of a real one and trains; it does not measure held-out metrics. Needs
  Linux.

Ratios are to the first value of each question. Times include validation on a ninth as many images only for jobs.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import multiprocessing
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

import common
from common import Cost
from vae_sweep import datasets
from vae_sweep.sweeps.source import source

QUESTIONS = ("batch", "latents", "images", "jobs")
PARAMS = "p1"
# There until its input ends. The update is a notebook's: with an optimizer PyTorch imports its compiler.
TORCH = """
import torch
weights = torch.nn.Parameter(torch.zeros(1))
optimizer = torch.optim.Adam([weights], fused=True)
weights.sum().backward()
optimizer.step()
print(flush=True)
input()
"""


@dataclass(frozen=True)
class Memory:
    """Of a process, or of one file that it has mapped; MB."""

    resident: float
    proportional: float
    changed: float  # its own: of a mapped file, the pages that this process has written to

    @classmethod
    def parse(cls, smaps: str) -> Memory:
        """Read what ``/proc/PID/smaps`` or ``smaps_rollup`` says, all mappings added up."""
        keys = ("Rss", "Pss", "Anonymous")
        found = [sum(map(int, re.findall(rf"^{key}:\s+(\d+) kB", smaps, re.MULTILINE))) for key in keys]
        return cls(*(1024 * kilobytes / 1e6 for kilobytes in found))

    @classmethod
    def of_process(cls, pid: int | str) -> Memory:
        return cls.parse(Path(f"/proc/{pid}/smaps_rollup").read_text())

    @classmethod
    def of_file(cls, name: str) -> Memory:
        """Return what this process has of the mapped file ``name``."""
        mappings = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        return cls.parse("".join(mapping for mapping in mappings if mapping.partition("\n")[0].endswith(f"/{name}")))


def mean(values: Sequence[Memory]) -> Memory:
    return Memory(*(statistics.mean(getattr(value, f) for value in values) for f in Memory.__dataclass_fields__))


@dataclass(frozen=True)
class Job:
    """What one of several jobs took for an epoch, and has in memory after it."""

    cost: Cost  # per training image
    memory: Memory
    pictures: Memory


def prepared(cfg: DictConfig, place: Path) -> datasets.ImageDataset:
    return datasets.load(source(cfg.dataset, place), place / "cache")


def job(barrier: Barrier, results: Any, cfg: DictConfig, place: Path) -> None:
    """Train two epochs, of which the second is timed, then look at the memory while all jobs are still there."""
    import vae_sweep.sweeps.execute  # noqa: F401 (all that a real job has in memory)

    torch.set_num_threads(1)
    try:
        data = prepared(cfg, place)
        train, val = (torch.from_numpy(split.images) for split in (data.train, data.val))
        epoch = common.epochs_of(cfg, train, val, epochs=2)
        epoch()
        barrier.wait()
        cost = epoch() / len(train)
        barrier.wait()
        results.put(Job(cost, Memory.of_process("self"), Memory.of_file("train.npy")))
        barrier.wait()
    except BaseException:
        barrier.abort()  # the others would wait for ever
        raise


def side_by_side(n: int, cfg: DictConfig, place: Path) -> list[Job]:
    """Return what ``n`` jobs say that run at once.

    Raises:
        SystemExit: where one of them fails.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(n), context.Queue()
    processes = [context.Process(target=job, args=(barrier, results, cfg, place)) for _ in range(n)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit(f"one of {n} jobs failed")
    return [results.get() for _ in processes]


def only_torch(n: int) -> Memory:
    """Return the mean over ``n`` processes that are there at once and have used PyTorch alone."""
    line = [sys.executable, "-c", TORCH]
    processes = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()  # it has imported
    found = [Memory.of_process(process.pid) for process in processes]
    for process in processes:
        process.communicate("\n")
    return mean(found)


def show(head: Sequence[str], costs: dict[str, dict[str, list[Cost]]]) -> None:
    """Print the costs per image of each model's ways, and their ratios to the first."""
    rows = []
    for model, ways in costs.items():
        first = next(iter(ways.values()))
        for name, each in ways.items():
            share, cost = common.ratio(each, first), common.median(each)
            shown = [f"{share.core:.2f}", f"{share.wall:.2f}", f"{1e6 * cost.core:.0f}", f"{1e6 * cost.wall:.0f}"]
            rows.append([model, name, *shown])
    common.table([*head, "to the first, core", "to the first, wall", "core, us an image", "wall, us an image"], rows)


def over(key: str, values: Sequence[int], models: Sequence[str], images: int, repetitions: int) -> None:
    """Print the cost per image by the values of ``params.key``."""
    train = common.pictures(images)
    costs = {}
    for model in models:
        cells = {str(value): common.cell(model, PARAMS, f"params.{key}={value}") for value in values}
        ways = {name: per_image(cfg, train, repetitions + 1) for name, cfg in cells.items()}
        costs[model] = common.interleaved(ways, repetitions)
    show(["model", key], costs)


def over_images(sizes: Sequence[int], models: Sequence[str], repetitions: int) -> None:
    """Print the cost per image by the number of images in memory."""
    costs = {}
    for model in models:
        cfg = common.cell(model, PARAMS)
        ways = {f"{size:,}": per_image(cfg, common.pictures(size), repetitions) for size in sizes}
        costs[model] = common.interleaved(ways, repetitions, warm_up=0)
    show(["model", "images"], costs)


def per_image(cfg: DictConfig, train: torch.Tensor, epochs: int) -> Callable[[], Cost]:
    epoch = common.epochs_of(cfg, train, train[:1], epochs)
    return lambda: epoch() / len(train)


def over_jobs(counts: Sequence[int], models: Sequence[str], images: int, repetitions: int) -> None:
    """Print the cost per image and the memory by the number of jobs."""
    costs = {}
    rows = []
    bare = {n: only_torch(n) for n in counts}
    with tempfile.TemporaryDirectory() as place:
        for model in models:
            cfg = common.cell(model, PARAMS, common.size(images))
            prepared(cfg, Path(place))
            found: dict[int, list[Job]] = {n: [] for n in counts}

            def run(n: int, cfg: DictConfig = cfg, found: dict[int, list[Job]] = found) -> Cost:
                jobs = side_by_side(n, cfg, Path(place))
                found[n] += jobs
                return Cost(*(statistics.mean(getattr(job.cost, kind) for job in jobs) for kind in ("wall", "core")))

            ways = {str(n): lambda n=n: run(n) for n in counts}
            costs[model] = common.interleaved(ways, repetitions, warm_up=0)
            for n, jobs in found.items():
                memory, pictures = mean([job.memory for job in jobs]), mean([job.pictures for job in jobs])
                beyond = [memory.resident - bare[n].resident, memory.proportional - bare[n].proportional]
                shown = [*beyond, bare[n].resident, pictures.resident, pictures.proportional, pictures.changed]
                rows.append([model, str(n), *(f"{megabytes:.0f}" for megabytes in shown)])
    show(["model", "jobs at once"], costs)
    head = ["model", "jobs at once", "resident beyond PyTorch, MB", "proportional beyond it, MB"]
    head += ["PyTorch alone, resident, MB", "training pictures, resident, MB", "proportional, MB", "changed, MB"]
    common.table(head, rows)


def main() -> None:
    parser = common.arguments(__doc__, repetitions=3)
    parser.add_argument("--questions", type=common.names, default=[*QUESTIONS], help=f"of {','.join(QUESTIONS)}")
    parser.add_argument("--models", type=common.names, default=["fc", "conv"])
    parser.add_argument("--images", type=int, default=4096, help="of an epoch of batch and latents; default 4096")
    parser.add_argument("--batches", type=common.numbers, default=[16, 32, 64, 128, 256, 512])
    parser.add_argument("--latents", type=common.numbers, default=[16, 64, 128, 256, 512])
    parser.add_argument("--sizes", type=common.numbers, default=[10_000, 50_000, 200_000], help="numbers of images")
    parser.add_argument("--jobs", type=common.numbers, default=[1, 2, 4], help="numbers of jobs at once")
    parser.add_argument("--job-images", type=int, default=45_000, help="that each job trains on; default 45000")
    options = parser.parse_args()
    torch.set_num_threads(1)
    repetitions = options.repetitions
    if "batch" in options.questions:
        over("batch_size", options.batches, options.models, options.images, repetitions)
    if "latents" in options.questions:
        over("latent_dim", options.latents, options.models, options.images, repetitions)
    if "images" in options.questions:
        over_images(options.sizes, options.models, repetitions)
    if "jobs" in options.questions:
        over_jobs(options.jobs, options.models, options.job_images, repetitions)
    common.closing()


if __name__ == "__main__":
    main()
