"""How near each convolution of ``conv`` comes to the speed of a matrix product, and what other ways to compute it take.

    python benchmarks/layers.py

One thread, batches of 64, images of 3x32x32, channels last. A time is the lower quartile of 30, forward and backward.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import statistics
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import common

BATCH = 64
PLAIN = [(3, 32, 32), (32, 64, 16), (64, 128, 8)]  # channels in and out, side of the input
TRANSPOSED = [(128, 64, 4), (64, 32, 8), (32, 3, 16)]


class Unshuffled(nn.Module):
    """The first layer, each 2x2 pixels as channels of one: a 2x2 convolution of 12 channels."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(4 * n_in, n_out, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(F.pixel_unshuffle(F.pad(x, (1, 1, 1, 1)), 2))


class Shuffled(nn.Module):
    """A transposed layer as a 3x3 convolution whose channels are moved to 2x2 pixels: 2.25 times the arithmetic."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(n_in, 4 * n_out, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.layer(x), 2)


class Folded(nn.Module):
    """A transposed layer as one matrix product and ``fold``."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_in, 16 * n_out, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, channels, side, _ = x.shape
        patches = self.layer(x.permute(0, 2, 3, 1).reshape(n, side * side, channels)).transpose(1, 2)
        return F.fold(patches.contiguous(), (2 * side, 2 * side), 4, padding=1, stride=2)


def seconds(work: Callable[[], object]) -> float:
    for _ in range(5):
        work()
    return statistics.quantiles((common.timed(work).wall for _ in range(30)), n=4)[0]


def passes(layer: nn.Module, n_in: int, side: int, gradient: bool) -> float:
    """Seconds of one forward and one backward pass; ``gradient``: also that of the input."""
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(BATCH, n_in, side, side).to(memory_format=torch.channels_last).requires_grad_(gradient)
    with torch.no_grad():
        outer = torch.randn_like(layer(x))
    return seconds(lambda: layer(x).backward(outer))


def main() -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    square = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / seconds(lambda: square @ square)
    rows = []
    for n_in, n_out, side in [*PLAIN, *TRANSPOSED]:
        transposed = n_in > n_out
        flops = 2 * BATCH * n_in * n_out * 16 * (side if transposed else side // 2) ** 2
        kind = nn.ConvTranspose2d if transposed else nn.Conv2d
        ways: dict[str, nn.Module] = {"as it is": kind(n_in, n_out, 4, 2, 1)}
        if transposed:
            ways |= {"3x3 and shuffle": Shuffled(n_in, n_out), "product and fold": Folded(n_in, n_out)}
        elif n_in == 3:
            ways["unshuffle and 2x2"] = Unshuffled(n_in, n_out)
        for name, layer in ways.items():
            took = passes(layer, n_in, side, gradient=n_in != 3)
            share = flops * (2 if n_in == 3 else 3) / took / peak
            rows.append([f"{n_in} to {n_out} at {side}x{side}, {name}", f"{1e3 * took:.2f}", f"{share:.2f}"])
    print(f"matrix product of 1024x1024: {peak / 1e9:.0f} GFLOP/s\n")
    common.table(["layer", "ms a batch", "of that speed"], rows)
    common.closing()


if __name__ == "__main__":
    main()
