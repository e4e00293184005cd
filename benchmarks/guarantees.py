"""What the guarantees cost: time per epoch with and without the state on disk and the metrics in the store.

    python benchmarks/guarantees.py [--images 4500] [--rounds 5]

Epochs with nothing, the state, the metrics and both take turns in one run, so that a machine that speeds up or slows
down meanwhile touches all of them. Medians; what an epoch over CIFAR-10's 45,000 training images would take is the
median training time scaled by the number of images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

import common
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.tracking.store import Store
from vae_sweep.training import state

CIFAR = 45_000  # training images
VARIANTS = ("neither", "state", "metrics", "both")
MODELS = ("fc", "conv")
PARAMS = "p1"


def measure(name: str, images: torch.Tensor, rounds: int, folder: Path) -> tuple[float, dict[str, float], float]:
    """Return the seconds of a plain epoch, of what each variant adds to it, and the megabytes of a state."""
    cfg = common.cell(name, PARAMS)
    store = Store.open(f"sqlite:///{folder / 'mlflow.db'}", folder, "guarantees")
    sender = EpochSender(store.start_run(name, {}), [], ())
    added: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    plain = []
    epochs = common.fit(cfg, common.built(cfg), images, images[: len(images) // 10], len(VARIANTS) * (rounds + 1))
    before = time.perf_counter()
    for metrics in epochs:
        begin = time.perf_counter()
        variant = VARIANTS[metrics.epoch % len(VARIANTS)]
        values = {f"{split}/{k}": v for split in ("train", "val") for k, v in getattr(metrics, split)._asdict().items()}
        if variant in ("metrics", "both"):
            sender.add(metrics.epoch, {"images_seen": metrics.images_seen, **values})
            sender.send()  # a run does not wait for this: a thread sends while the next epoch trains
        if variant in ("state", "both"):
            state.save(folder, {"history": sender.entries, "fit": metrics.snapshot()})
        end = time.perf_counter()
        if metrics.epoch > len(VARIANTS):  # the first of each warms up
            plain.append(begin - before)
            added[variant].append(end - begin)
        before = end
    size = (folder / "state.pt").stat().st_size / 1e6
    return median(plain), {variant: median(times) for variant, times in added.items()}, size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4500, help="training images of an epoch here")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each variant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8)
    print(f"One thread, {PARAMS}, {options.rounds} epochs of each variant.\n")
    print("| model | state, MB | epoch of 45,000 images, s | + state, s | + metrics, s | + both, s | both, share |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in MODELS:
        with tempfile.TemporaryDirectory() as folder:
            plain, added, size = measure(name, images, options.rounds, Path(folder))
        epoch = plain * CIFAR / options.images
        costs = " | ".join(f"{added[variant]:.3f}" for variant in VARIANTS[1:])
        print(f"| {name} | {size:.0f} | {epoch:.1f} | {costs} | {added['both'] / epoch:.2%} |", flush=True)


if __name__ == "__main__":
    main()
