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
from vae_sweep.training.adam import Adam, one_cycle
from vae_sweep.training.batches import Batches
from vae_sweep.training.device import autocast, denormals_flushed, memory_format_of, numerics, sum_dtype
from vae_sweep.training.evaluation import Averages, evaluate
from vae_sweep.training.objective import ELBO, Objective, elbo_terms
from vae_sweep.training.randomness import Stream, generator, seeded
from vae_sweep.training.stopping import EarlyStopping

FINITE_CHECK_EVERY = 100  # steps between looks at the loss; each look waits for the device


@dataclass(frozen=True)
class TrainSettings:
    """How to train: what a configuration's ``params``, ``objective`` and ``training`` say."""

    batch_size: int  # images per update; the last batch of an epoch may be smaller
    lr: float  # Adam's learning rate; of one_cycle the peak
    seed: int  # drives shuffling, posterior noise, and what the model draws from a global generator
    max_epochs: int
    patience: int  # epochs
    min_delta: float  # nats per image of the loss
    schedule: str = "constant"  # or "one_cycle" (:func:`vae_sweep.training.adam.one_cycle`): never stopped early
    mirror: bool = False  # flip half of the images left to right, drawn anew every epoch
    objective: Objective = ELBO
    warmup: float = 0.0  # epochs in which the weight of the KL term rises from 0 to beta
    clip_grad_norm: float | None = None  # the gradient's norm, at most
    channels_last: bool | str = "auto"  # memory format of convolutions, where there are any; auto: on a CPU
    compile: bool | str = False  # or a mode of torch.compile
    precision: str = "float32"  # or "tf32", "bfloat16": of matrix products in training; loss and validation: float32


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
    snapshot: Callable[[], dict[str, Any]] = field(compare=False, repr=False)  # to call before the next epoch starts


def fit(
    model: VAE,
    train: torch.Tensor,  # uint8 (N, C, H, W)
    val: torch.Tensor,  # uint8 (M, C, H, W)
    settings: TrainSettings,
    device: torch.device | None = None,  # None: the CPU
    snapshot: dict[str, Any] | None = None,  # to continue from; None starts at the first epoch
) -> Iterator[EpochMetrics]:
    """Train ``model`` in place, yielding after every epoch; at the end it holds the weights of the best epoch.

    With ``variance="learned"`` it gets a parameter more, see :meth:`VAE.learn_variance`.

    A training that continues from the snapshot of any epoch is bit-identical to one that was not interrupted.

    Raises:
        UserError: when the loss stops being finite, with epoch, step and learning rate.
    """
    device = device or torch.device("cpu")
    if settings.objective.variance == "learned":
        model.learn_variance()
    memory_format = memory_format_of(model, device, settings.channels_last)
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    batches, val, n = Batches(train, device, memory_format), val.to(device), len(train)
    state = _State(model, settings, n)
    if snapshot is not None:
        state.load(snapshot)
    while state.epoch < settings.max_epochs and not state.stopping.should_stop(state.epoch):
        state.epoch += 1
        started = time.perf_counter()
        train_averages = _train_epoch(state, batches, settings)
        trained = time.perf_counter()
        val_averages = evaluate(model, val, settings.objective)
        if not np.isfinite(val_averages.loss):
            raise UserError(_diverged("validation loss", val_averages.loss, state.epoch, state.step, settings.lr))
        improved = state.end_epoch(val_averages.loss)
        yield EpochMetrics(
            *(state.epoch, state.step, state.epoch * n, train_averages, val_averages),
            *(trained - started, time.perf_counter() - trained, improved, state.snapshot),
        )
    model.to(memory_format=torch.contiguous_format)  # as loaded from a checkpoint
    model.load_state_dict(state.best_weights)
    model.eval()


class _State:
    """All that changes while a model is trained; a snapshot holds it."""

    def __init__(self, model: VAE, settings: TrainSettings, n_images: int) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        mode = settings.compile if isinstance(settings.compile, str) else None
        self.forward = torch.compile(model, mode=mode) if settings.compile else model
        self.steps_per_epoch = -(-n_images // settings.batch_size)
        self.optimizer = Adam(model.parameters())
        self.cycle = settings.max_epochs * self.steps_per_epoch if settings.schedule == "one_cycle" else None  # updates
        patience = settings.max_epochs if self.cycle else settings.patience
        self.stopping = EarlyStopping(patience, settings.min_delta, settings.warmup)
        self.best_weights = copy.deepcopy(model.state_dict())
        self.epoch = self.step = 0  # finished so far

    def load(self, snapshot: dict[str, Any]) -> None:
        """Continue where the snapshot was made."""
        self.epoch, self.step = snapshot["epoch"], snapshot["step"]
        self.model.load_state_dict(snapshot["weights"])
        self.optimizer.load_state_dict(snapshot["optimizer"])
        self.best_weights = {key: value.to(self.device, copy=True) for key, value in snapshot["best_weights"].items()}
        self.stopping = EarlyStopping(**snapshot["stopping"])

    def warmed(self, warmup: float) -> float:
        """Return the share of beta that the next update has after ``warmup`` epochs of linear rise: 1 without any."""
        return min((self.step + 1) / (warmup * self.steps_per_epoch), 1.0) if warmup else 1.0

    def end_epoch(self, val_loss: float) -> bool:
        """Keep the weights where they are the best so far; return whether they are."""
        improved = self.stopping.update(self.epoch, val_loss)
        if improved:
            self.best_weights = copy.deepcopy(self.model.state_dict())
        return improved

    def snapshot(self) -> dict[str, Any]:
        """Return what :meth:`load` needs: the tensors themselves, no copies."""
        weights = self.model.state_dict()
        return {
            "epoch": self.epoch,
            "step": self.step,
            "weights": weights,
            "optimizer": self.optimizer.state_dict(),
            # The same tensor is written once.
            "best_weights": weights if self.stopping.best_epoch == self.epoch else self.best_weights,
            "stopping": asdict(self.stopping),
        }


def _train_epoch(state: _State, batches: Batches, settings: TrainSettings) -> Averages:
    """Update the weights on every training image once; return the averages over the images."""
    seed, epoch, size, device = settings.seed, state.epoch, settings.batch_size, state.device
    n = len(batches)
    order = batches.order(torch.randperm(n, generator=generator(seed, Stream.SHUFFLE, epoch)))
    noise_source = generator(seed, Stream.NOISE, epoch, device)
    mirrored = None
    if settings.mirror:
        mirrored = torch.rand(n, generator=generator(seed, Stream.MIRROR, epoch)).lt(0.5).to(device)
    sums = torch.zeros(3, dtype=sum_dtype(device), device=device)
    losses = torch.zeros(state.steps_per_epoch, device=device)
    state.model.train()
    with denormals_flushed(), numerics(settings.precision), seeded(seed, Stream.TRAINING, epoch, device):
        for i in range(state.steps_per_epoch):
            part = slice(i * size, (i + 1) * size)
            x = batches.take(order[part])  # (B, C, H, W)
            if mirrored is not None:
                x = torch.where(mirrored[part].view(-1, 1, 1, 1), x.flip(3), x)
            noise = torch.randn(len(x), state.model.latent_dim, generator=noise_source, device=device)  # (B, L)
            with autocast(device, settings.precision):
                reconstruction, posterior = state.forward(x, noise)
            if settings.precision == "bfloat16":
                reconstruction, posterior = reconstruction.float(), posterior.float()
            terms = elbo_terms(reconstruction, x, posterior, settings.objective, state.model.decoder_log_variance)
            weight = state.warmed(settings.warmup)
            loss = (terms.loss if weight == 1 else terms.recon + weight * settings.objective.beta * terms.kl).mean()
            state.optimizer.zero_grad()
            loss.backward()
            if settings.clip_grad_norm is not None:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_grad_norm)
            state.optimizer.step(one_cycle(state.step, settings.lr, state.cycle) if state.cycle else settings.lr)
            losses[i] = loss.detach()
            sums += torch.stack([term.detach().sum(dtype=sums.dtype) for term in terms])
            if (i + 1) % FINITE_CHECK_EVERY == 0 or i + 1 == state.steps_per_epoch:
                _check_finite(losses[: i + 1], epoch, state.step - i, settings.lr)
            state.step += 1
    return Averages(*(sums / n).tolist())


def _check_finite(losses: torch.Tensor, epoch: int, first_step: int, lr: float) -> None:
    """Raise for the first of an epoch's per-step losses that is not finite; ``first_step`` counts those before."""
    bad = torch.nonzero(~torch.isfinite(losses))
    if len(bad):
        i = int(bad[0])
        raise UserError(_diverged("training loss", float(losses[i]), epoch, first_step + i + 1, lr))


def _diverged(what: str, value: float, epoch: int, step: int, lr: float) -> str:
    return (
        f"the {what} became {value} in epoch {epoch} at step {step} with params.lr={lr:g}; "
        "a smaller learning rate usually helps"
    )
