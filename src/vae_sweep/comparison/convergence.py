"""How a run's training ended: the state that a verdict rests on. Pure; docs/metrics.md gives the reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import scipy  # its stats, which take half a second, when they are first used

from vae_sweep.metrics.catalogue import MARGIN
from vae_sweep.training.stopping import EarlyStopping

CONVERGED = "converged"
FALLING = "stopped while falling"
FAR = "ended far above the closed form"
BOUNDED = "reached max_epochs"
DIVERGED = "diverged"  # followed by: after epoch k
COLLAPSED = "collapsed"
NOTHING = "nothing to learn"
LESS_WEIGHT = "give a smaller objective.beta or objective.variance, or objective.reduction=sum"
REMEDIES = {
    FALLING: "raise training.patience or lower training.min_delta",
    FAR: "raise training.patience, or params.epochs of one_cycle, or try another params.lr",
    BOUNDED: "raise training.max_epochs",
    DIVERGED: "lower the peak learning rate, params.lr",
    NOTHING: "give training images that differ",
    COLLAPSED: f"{LESS_WEIGHT}; where the closed form uses latents, a smaller params.lr or another seed",
}
LONGER = "raise params.epochs or try another params.lr"
ALIKE = 1e-6  # summed variance of the training images that is rounding
LAST = 3  # epochs in which a loss that is lost stays lost
RISE = 1.1  # a loss this many times the best is no noise: between epochs it varies by about 1 %
SHORTFALL = 0.2  # of what the closed form gains over the mean image
WINDOW = 5  # epochs that a trend is read from, at least
LEVEL = 0.05  # of the trend's one-sided test


@dataclass(frozen=True)
class Limits:
    """What was to end a training."""

    max_epochs: int
    patience: int  # epochs
    min_delta: float  # nats/image at decoder variance 1/2
    cycle: int | None = None  # epochs of a one-cycle schedule, which ends a training by design; None: early stopping
    scale: float = 1.0  # what a squared error counts in the loss, beside decoder variance 1/2: 1 / (2 variance)
    warmup: float = 0.0  # epochs that early stopping does not count

    @property
    def completes(self) -> bool:
        """Whether the training ends with its one-cycle schedule."""
        return self.cycle is not None and self.cycle <= self.max_epochs

    def bounded(self, val: Sequence[float]) -> bool:
        """Whether ``max_epochs`` ended a training of these validation losses before anything else did."""
        if self.completes or len(val) < self.max_epochs:
            return False
        stopping = EarlyStopping(self.patience, self.min_delta * self.scale, self.warmup)
        for epoch, loss in enumerate(val, start=1):
            stopping.update(epoch, loss)
        return self.cycle is not None or not stopping.should_stop(len(val))


@dataclass(frozen=True)
class Facts:
    """What else is known of a run and its data; None is unknown. Losses in the run's own units, per image."""

    mean_image: float | None = None  # loss of predicting the mean image, without any latent
    linear: float | None = None  # validation loss of the closed-form linear VAE
    linear_active: int | None = None  # latents that it uses
    active: int | None = None  # latents that the run's model uses (Burda et al. 2016)
    density: bool = False  # whether the losses are log-densities, which have no zero of their own
    alike: bool = False  # whether the training images do not differ


@dataclass(frozen=True)
class Training:
    """How a training ended."""

    state: str  # one of the constants above; a divergence with its epoch
    sentence: str  # the state, the numbers that it rests on, and the remedy


def judge(val: Sequence[float], train: Sequence[float], limits: Limits, facts: Facts) -> Training:
    """Return how the training ended whose losses after each epoch are ``val`` and ``train`` (equally many, n > 0).

    The first rule that holds decides: nothing to learn, diverged, collapsed, reached max_epochs, stopped while falling,
    ended far above the closed form, converged.
    """
    n, best = len(val), min(val)
    if facts.alike:
        return _training(NOTHING, "the training images do not differ")
    if epoch := _divergence(val, train, facts):
        worst = max(val[epoch:])
        said = f"the validation loss rose from {val[epoch - 1]:.4g} to {worst:.4g} in epoch {val.index(worst) + 1}"
        said += f" and ended at {val[-1]:.4g}, best epoch {val.index(best) + 1} of {n}"
        return _training(f"{DIVERGED} after epoch {epoch}", said)
    bounded = limits.bounded(val)
    if facts.active == 0 and (facts.linear_active == 0 or not bounded):
        said = "no latent is used, so all samples look alike"
        if facts.linear_active == 0:
            return _training(COLLAPSED, f"{said}, as the closed-form linear VAE predicts", LESS_WEIGHT)
        return _training(COLLAPSED, said, "lower params.lr or objective.beta, or try another seed")
    if bounded:
        cut = f"shortened the one-cycle schedule of {limits.cycle} epochs"
        done = cut if limits.cycle else "ended it, not early stopping"
        return _training(BOUNDED, f"training.max_epochs={limits.max_epochs} {done}")
    rate = 0.0 if limits.completes else _falling(val, limits)
    if rate:
        said = f"the validation loss still fell by {rate:.3g} per epoch when early stopping ended it after epoch {n}"
        return _training(FALLING, f"{said} (training.patience={limits.patience}, min_delta={limits.min_delta:g})")
    if _far(best, limits, facts):
        said = f"the best validation loss is {best:.4g}, the closed-form linear VAE's {facts.linear:.4g}"
        return _training(FAR, said, LONGER if limits.completes else "raise training.patience")
    how = f"completed its schedule of {n} epochs" if limits.completes else f"early stopping ended it after epoch {n}"
    return Training(CONVERGED, f"{CONVERGED}: {how}, best epoch {val.index(best) + 1}")


def caveat(states: Iterable[str | None], remedies: bool = False) -> str:
    """Return what to know before reading results of runs in these states, as one sentence; "" where all converged.

    States that are None are unknown: nothing is said of them.
    """
    found = list(states)
    kinds = Counter(kind(state) for state in found if state and state != CONVERGED)
    if not kinds:
        return ""
    said = [f"{n} {name}" + (f": {remedy(name)}" if remedies else "") for name, n in kinds.most_common()]
    return f"Not converged: {kinds.total()} of {len(found)} runs ({('; ' if remedies else ', ').join(said)})."


def remedy(state: str) -> str:
    """Return what usually helps; states of another version are not known here."""
    return REMEDIES.get(kind(state), "docs/metrics.md defines it")


def kind(state: str) -> str:
    """Return the state without its epoch."""
    return state.partition(" after ")[0]


def _training(state: str, said: str, helps: str = "") -> Training:
    return Training(state, f"{state}: {said}; {helps or remedy(state)}")


def _divergence(val: Sequence[float], train: Sequence[float], facts: Facts) -> int:
    """The epoch, counted from 1, after which the loss rose for good, or above that of the mean image; 0 for none.

    A model that overfits has a training loss below its best validation loss; one that diverged has lost both.
    """
    mean_image = facts.mean_image
    if facts.density and mean_image is not None and facts.linear is not None:
        lowest = min(val)
        gain = max(mean_image - lowest, mean_image - facts.linear, 1.0)  # nats: the lowest loss counts as so much
        val, train = ([loss - lowest + gain for loss in losses] for losses in (val, train))
        mean_image = mean_image - lowest + gain
    best = min(val)
    end = max(val.index(best) + 1, len(val) - LAST)
    if min([*val[end:], *train[end:]], default=best) > RISE * best:
        return val.index(best) + 1
    for epoch in range(1, len(val)):
        before = min(val[:epoch])
        if mean_image is not None and before < mean_image and val[epoch] > RISE * mean_image:
            return val.index(before) + 1
    return 0


def _falling(val: Sequence[float], limits: Limits) -> float:
    """The fall of the loss per epoch at the end, where it is surely more than early stopping may miss; else 0.

    Least squares through the last epochs; "surely" by the t-test of its slope. Early stopping may miss min_delta, or
    the margin of a verdict where that is smaller, in ``patience`` epochs.
    """
    missed = min(limits.min_delta, MARGIN) * limits.scale / limits.patience
    last = list(val[-max(WINDOW, limits.patience + 1) :])
    if len(last) < 3:  # no noise can be seen
        rate = least = last[0] - last[-1]
    else:
        fit = scipy.stats.linregress(range(len(last)), last)
        rate = -float(fit.slope)
        least = rate - float(scipy.stats.t.ppf(1 - LEVEL, len(last) - 2) * fit.stderr)
    return rate if least > missed else 0.0


def _far(best: float, limits: Limits, facts: Facts) -> bool:
    """Whether a large share of what the closed form gains over the mean image was not gained."""
    if facts.linear is None or facts.mean_image is None:
        return False
    return best - facts.linear > max(SHORTFALL * (facts.mean_image - facts.linear), limits.min_delta * limits.scale)
