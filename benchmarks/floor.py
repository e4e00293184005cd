"""What the training loop costs beside its arithmetic: ``python benchmarks/floor.py``.

The floor is forward pass, loss, backward pass and fused Adam on one batch that stays where it is. Against it stands the
project's own loop, ``training.fit``, over an array of images: its updates alone (shuffling, gathering a batch,
conversion to float and noise come on top of the floor), and the whole of it with validation on a ninth as many images.
Arithmetic is counted in matrix products and convolutions, and compared with the best of a few plain matrix products.

One thread; core time on a CPU, wall time on a GPU. ``--profile`` shows where the time of the loop goes instead.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import common
from common import Cost, clock
from vae_sweep.sweeps.preparation import objective_of
from vae_sweep.training.device import memory_format_of, numerics
from vae_sweep.training.evaluation import to_float
from vae_sweep.training.objective import elbo_terms

GEMM_SIZES = (1024, 2048, 4096)
VAL_SHARE = 1 / 9  # validation images per training image where a tenth is held out


def stepper(
    cfg: DictConfig, images: torch.Tensor, device: torch.device, settings: dict[str, Any]
) -> Callable[[], None]:
    """Return a function that makes one update on the first batch of ``images``."""
    model = common.built(cfg)
    memory_format = memory_format_of(model, device, settings["channels_last"])
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    forward = torch.compile(model) if settings["compile"] else model
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.params.lr, fused=True)
    x = to_float(images[: cfg.params.batch_size].to(device), memory_format)  # (B, C, H, W)
    noise = torch.randn(len(x), cfg.params.latent_dim, device=device)

    rounded = settings["precision"] == "bfloat16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
            reconstruction, posterior = forward(x, noise)
        if rounded:
            reconstruction, posterior = reconstruction.float(), posterior.float()
        loss = elbo_terms(reconstruction, x, posterior, objective_of(cfg)).loss.mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def seconds(cost: Cost, device: torch.device) -> float:
    """Return the time that counts on ``device``: another process on the same CPU core does not change core time."""
    return cost.wall if device.type == "cuda" else cost.core


def peak(device: torch.device, dtype: torch.dtype, tries: int = 3) -> float:
    """Return the floating-point operations per second of the best matrix product."""
    best = 0.0
    for n in GEMM_SIZES:
        a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        repeats = 50 if device.type == "cuda" else 1
        for _ in range(tries):
            before = clock(device)
            for _ in range(repeats):
                torch.mm(a, b)
            best = max(best, 2 * n**3 * repeats / seconds(clock(device) - before, device))
    return best


def measure(
    cfg: DictConfig, images: torch.Tensor, device: torch.device, settings: dict[str, Any], repetitions: int
) -> tuple[dict[str, list[Cost]], float]:
    """Return the costs per image of floor, updates and whole loop, and the operations of a step per image."""
    batch = cfg.params.batch_size
    steps = max(1, len(images) // batch)
    train = images[: steps * batch]  # whole batches, as the floor has
    step = stepper(cfg, images, device, settings)
    with FlopCounterMode(display=False) as counter:
        stepper(cfg, images, device, settings | {"compile": False})()
    epochs = repetitions + 1
    settings_of_fit: dict[str, Any] = {"device": device, **settings}
    whole = common.epochs_of(cfg, train, images[: max(1, round(len(train) * VAL_SHARE))], epochs, **settings_of_fit)
    training = common.fit(cfg, common.built(cfg), train, images[:1], epochs, **settings_of_fit)

    def floor() -> Cost:
        with numerics(settings["precision"]):  # as the loop's
            before = clock(device)
            for _ in range(steps):
                step()
            return (clock(device) - before) / len(train)

    def updates() -> Cost:
        before = clock(device)
        metrics = next(training)
        return Cost(metrics.train_seconds, (clock(device) - before).core) / len(train)

    ways = {"floor": floor, "updates": updates, "whole": lambda: whole() / len(train)}
    return common.interleaved(ways, repetitions), counter.get_total_flops() / batch


def show_profile(cfg: DictConfig, images: torch.Tensor, device: torch.device, settings: dict[str, Any]) -> None:
    """Print the operations in which one epoch of the project's loop, after a first one, spends its time."""
    epochs = common.fit(cfg, common.built(cfg), images, images[:1], 2, device=device, **settings)
    next(epochs)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities) as profiler:
        next(epochs)
    print(f"{cfg.model.name} {cfg.params.name}: one epoch of {len(images):,} images")
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=50))


def main() -> None:
    parser = common.arguments(__doc__, repetitions=7)
    parser.add_argument("--images", type=int, default=4608, help="of one repetition; default 4608")
    parser.add_argument("--models", type=common.names, default=["fc", "conv"])
    parser.add_argument("--params", type=common.names, default=["p1", "p2", "p3"])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default="auto", help="auto: on a CPU")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--profile", action="store_true", help="print the top operations of each model instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = options.device
    settings = {"compile": options.compile, "channels_last": options.channels_last, "precision": options.precision}
    images = common.pictures(options.images)
    cells = [common.cell(model, params) for model in options.models for params in options.params]
    if options.profile:
        for model in options.models:
            show_profile(common.cell(model, options.params[0]), images, device, settings)
        return
    best = peak(device, getattr(torch, options.precision))
    rows = []
    for cfg in cells:
        costs, flops = measure(cfg, images, device, settings, options.repetitions)
        ratios = [seconds(common.ratio(costs[way], costs["floor"]), device) for way in ("updates", "whole")]
        middle = {way: common.median(costs[way]) for way in costs}
        speed = flops / seconds(middle["floor"], device)
        line = [f"{cfg.model.name} {cfg.params.name}", *(f"{value:.3f}" for value in ratios)]
        line += [f"{1e6 * value:.0f}" for cost in middle.values() for value in (cost.core, cost.wall)]
        rows.append([*line, f"{flops / 1e6:.1f}", f"{speed / 1e9:.1f}", f"{speed / best:.0%}"])
    kind = "wall" if device.type == "cuda" else "core"
    switches = [name for name, on in settings.items() if on is True]
    print(f"Device {' '.join([str(device), *switches])}; ratios in {kind} time, times in us per training image.")
    print(f"Best {options.precision} matrix product of {GEMM_SIZES}: {best / 1e9:.1f} GFLOP/s.\n")
    times = [f"{way}, {name}" for way in ("floor", "updates", "whole loop") for name in ("core", "wall")]
    head = ["cell", "updates / floor", "whole loop / floor", *times, "MFLOP an image", "floor, GFLOP/s", "of peak"]
    common.table(head, rows)
    common.closing()


if __name__ == "__main__":
    main()
