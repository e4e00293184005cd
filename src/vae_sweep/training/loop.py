"""The training loop. Randomness is a function of (seed, epoch, position); nothing but arithmetic is in the loop."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE
from vae_sweep.training.batches import Batches
from vae_sweep.training.device import autocast, denormals_flushed, memory_format_of, numerics, sum_dtype
from vae_sweep.training.evaluation import Averages, evaluate
from vae_sweep.training.objective import elbo_terms
from vae_sweep.training.randomness import Stream, generator, seeded

FINITE_CHECK_EVERY = 100  # steps between looks at the loss; each look waits for the device


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did. Losses in nats per image, averaged over images."""

    epoch: int  # counted from 1
    step: int  # optimizer updates so far
    images_seen: int  # training images so far, repeats counted
    train: Averages  # over the epoch's own updates, weights changing under way
    val: Averages  # after the epoch, fixed noise
    train_seconds: float  # wall time of the updates alone
    val_seconds: float  # wall time of the validation
    improved: bool  # val.loss is the lowest so far; these weights are kept
    snapshot: Callable[[], dict[str, Any]] = field(compare=False, repr=False)  # what fit() needs to go on from here


@dataclass
class EarlyStopping:
    """Stops after ``patience`` epochs in which the loss gained less than ``min_delta`` nats per image.

    A slow descent counts: the gain is measured from the last loss that counted as an improvement. The best epoch,
    whose weights are restored, is the one with the lowest loss of all, whether or not it counted.
    """

    patience: int
    min_delta: float
    best: float = float("inf")
    best_epoch: int = 0
    anchor: float = float("inf")  # the last loss that counted
    anchor_epoch: int = 0

    def update(self, epoch: int, loss: float) -> bool:
        """Take in the loss of one epoch; return whether it is the lowest so far."""
        if loss < self.anchor - self.min_delta:
            self.anchor, self.anchor_epoch = loss, epoch
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            return True
        return False

    def should_stop(self, epoch: int) -> bool:
        """Return whether ``epoch`` is the last."""
        return epoch - self.anchor_epoch >= self.patience


def one_cycle(optimizer: torch.optim.Optimizer, lr: float, steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule that raises the learning rate from lr / 25 to lr in 30 % of ``steps``, then lowers it to 0.

    Both along a cosine, one step for each update (Smith & Topin 2018); Adam's betas stay what they are.
    """
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.3, cycle_momentum=False)


def fit(
    model: VAE,
    train: torch.Tensor,  # uint8 (N, C, H, W)
    val: torch.Tensor,  # uint8 (M, C, H, W)
    *,
    batch_size: int,  # images per update; the last batch of an epoch may be smaller
    lr: float,  # Adam's learning rate; of one_cycle the highest
    seed: int,  # drives shuffling, posterior noise, and what the model draws from a global generator
    max_epochs: int,
    patience: int,  # epochs
    min_delta: float,  # nats per image
    schedule: str = "constant",  # or "one_cycle": see :func:`one_cycle`; it is never stopped early
    mirror: bool = False,  # show half of the images, drawn anew every epoch, with left and right exchanged
    beta: float = 1.0,
    reduction: str = "sum",
    device: torch.device | None = None,
    channels_last: bool | str = "auto",  # memory format of convolutions, where there are any; auto: on a CPU
    compile: bool = False,
    precision: str = "float32",  # or "tf32", "bfloat16": of products in training; loss and validation stay float32
    state: dict[str, Any] | None = None,  # a snapshot to continue from; None starts at the first epoch
) -> Iterator[EpochMetrics]:
    """Train ``model`` in place, yielding after every epoch; at the end it holds the weights of the best epoch.

    Continued from the snapshot of any epoch, the rest is the same to the last bit as without the interruption.

    Raises:
        UserError: when the loss stops being finite, with epoch, step and learning rate.
    """
    device = device or torch.device("cpu")
    memory_format = memory_format_of(model, device, channels_last)
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    batches, val = Batches(train, device, memory_format), val.to(device)
    forward = torch.compile(model) if compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=device.type in ("cpu", "cuda"))
    n, first, step = len(train), 1, 0
    steps_per_epoch = -(-n // batch_size)
    cycle = one_cycle(optimizer, lr, max_epochs * steps_per_epoch) if schedule == "one_cycle" else None
    stopping = EarlyStopping(max_epochs if cycle else patience, min_delta)
    best_weights = copy.deepcopy(model.state_dict())
    if state is not None:
        first, step = state["epoch"] + 1, state["step"]
        model.load_state_dict(state["weights"])
        optimizer.load_state_dict(state["optimizer"])  # its learning rate with it
        if cycle:
            cycle.load_state_dict(state["cycle"])
        best_weights = {key: tensor.to(device, copy=True) for key, tensor in state["best_weights"].items()}
        stopping = EarlyStopping(**state["stopping"])
        if stopping.should_stop(state["epoch"]):
            first = max_epochs + 1

    for epoch in range(first, max_epochs + 1):
        order = batches.order(torch.randperm(n, generator=generator(seed, Stream.SHUFFLE, epoch)))
        noise_source = generator(seed, Stream.NOISE, epoch, device)
        mirrored = torch.rand(n, generator=generator(seed, Stream.MIRROR, epoch)).lt(0.5).to(device) if mirror else None
        sums = torch.zeros(3, dtype=sum_dtype(device), device=device)
        losses = torch.zeros(steps_per_epoch, device=device)
        model.train()
        started = time.perf_counter()
        with denormals_flushed(), numerics(precision), seeded(seed, Stream.TRAINING, epoch, device):
            for i in range(steps_per_epoch):
                part = slice(i * batch_size, (i + 1) * batch_size)
                x = batches.take(order[part])  # (B, C, H, W)
                if mirrored is not None:
                    x = torch.where(mirrored[part].view(-1, 1, 1, 1), x.flip(3), x)
                noise = torch.randn(len(x), model.latent_dim, generator=noise_source, device=device)  # (B, L)
                with autocast(device, precision):
                    reconstruction, posterior = forward(x, noise)
                if precision == "bfloat16":
                    reconstruction, posterior = reconstruction.float(), posterior.float()
                terms = elbo_terms(reconstruction, x, posterior, beta, reduction)
                loss = terms.loss.mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if cycle:
                    cycle.step()
                losses[i] = loss.detach()
                sums += torch.stack([term.detach().sum(dtype=sums.dtype) for term in terms])
                if (i + 1) % FINITE_CHECK_EVERY == 0 or i + 1 == steps_per_epoch:
                    _check_finite(losses[: i + 1], epoch, step - i, lr)
                step += 1
        seconds = time.perf_counter() - started
        val_averages = evaluate(model, val, beta=beta, reduction=reduction)
        val_seconds = time.perf_counter() - started - seconds
        if not np.isfinite(val_averages.loss):
            raise UserError(_diverged("validation loss", val_averages.loss, epoch, step, lr))
        improved = stopping.update(epoch, val_averages.loss)
        if improved:
            best_weights = copy.deepcopy(model.state_dict())
        train_averages = Averages(*(sums / n).tolist())

        def snapshot(
            epoch: int = epoch, step: int = step, improved: bool = improved, best: dict[str, Any] = best_weights
        ) -> dict[str, Any]:
            weights = model.state_dict()
            return {
                "epoch": epoch,
                "step": step,
                "weights": weights,
                "optimizer": optimizer.state_dict(),
                "cycle": cycle and cycle.state_dict(),
                "best_weights": weights if improved else best,  # the same tensor is written once
                "stopping": asdict(stopping),
            }

        times = (seconds, val_seconds)
        yield EpochMetrics(epoch, step, epoch * n, train_averages, val_averages, *times, improved, snapshot)
        if stopping.should_stop(epoch):
            break
    model.to(memory_format=torch.contiguous_format)  # as loaded from a checkpoint
    model.load_state_dict(best_weights)


def _check_finite(losses: torch.Tensor, epoch: int, first_step: int, lr: float) -> None:
    """Raise for the first of an epoch's per-step losses that is not finite; ``first_step`` counts those before."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        i = int(bad[0])
        raise UserError(_diverged("training loss", float(losses[i]), epoch, first_step + i + 1, lr))


def _diverged(what: str, value: float, epoch: int, step: int, lr: float) -> str:
    return (
        f"the {what} became {value} in epoch {epoch} at step {step} with params.lr={lr:g}; "
        "a smaller learning rate usually mends this"
    )
