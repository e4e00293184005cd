"""Every random stream of a run: each is a function of (seed, stream, epoch), and of nothing that happened before."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum, unique

import numpy as np
import torch


@unique
class Stream(IntEnum):
    """Independent random streams of one seed. A number decides what is drawn: it is never given to another stream."""

    WEIGHTS = 0
    SHUFFLE = 1  # order of the training images, drawn anew every epoch
    NOISE = 2  # of the posterior, in training
    SAMPLES = 3
    INTERPOLATIONS = 4
    MIRROR = 5  # which training images are mirrored, drawn anew every epoch
    TRAINING = 6  # the global generators while an epoch trains: dropout, and whatever else a model draws by itself
    INFERENCE = 7  # the global generators in evaluation, figures and metrics
    LINEAR = 8  # samples of the closed-form linear VAE


def generator(seed: int, stream: int, epoch: int = 0, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a generator that depends on nothing but its arguments."""
    return torch.Generator(device).manual_seed(_number(seed, stream, epoch))


def seed_weights(seed: int) -> None:
    """Make the next modules draw the weights of ``seed``: call it right before they are made."""
    torch.manual_seed(_number(seed, Stream.WEIGHTS, 0))


@contextmanager
def seeded(seed: int, stream: Stream, epoch: int = 0, device: torch.device | None = None) -> Iterator[None]:
    """While inside, the global generators start from (seed, stream, epoch); then they are as they were before.

    Those of PyTorch (of the CPU and of ``device``), of NumPy and of Python: a model may draw from any of them.
    """
    number = _number(seed, stream, epoch)
    devices = [device] if device is not None and device.type != "cpu" else []
    with torch.random.fork_rng(devices, device_type=devices[0].type if devices else "cpu"):
        python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def _number(seed: int, stream: int, epoch: int) -> int:
    """Return what a generator of 64 bits starts from."""
    return int(np.random.SeedSequence((seed, stream, epoch)).generate_state(1, np.uint64)[0]) & (2**63 - 1)
