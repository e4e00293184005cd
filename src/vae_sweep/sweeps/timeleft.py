"""How long a run and a sweep will take: an estimate where there is a trend, a bound where there is none. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import fmean, linear_regression
from typing import TYPE_CHECKING

from vae_sweep.training.stopping import EarlyStopping

if TYPE_CHECKING:
    from vae_sweep.sweeps.status import Status
    from vae_sweep.training.loop import TrainSettings

FEWEST = 4  # epochs that show a trend


def epochs_left(val: Sequence[float], settings: TrainSettings) -> tuple[int, bool]:
    """Return how many epochs are left after those with the validation losses ``val``, and whether that is a bound.

    The lowest loss after n epochs is taken for a + b / n, fitted to the last two thirds of them. Early stopping ends
    the run where ``patience`` epochs gain ``min_delta``: n (n - patience) = b patience / min_delta. Without a trend, or
    with one that has no end in sight, only ``max_epochs`` is known.
    """
    n, wait = len(val), settings.patience
    most = settings.max_epochs - n
    if settings.schedule == "one_cycle":
        return most, False
    if n < FEWEST or settings.min_delta <= 0:
        return most, True
    stopping = EarlyStopping(wait, settings.min_delta, settings.warmup)
    for epoch, loss in enumerate(val, 1):
        stopping.update(epoch, loss)
    least = max(math.ceil(max(stopping.anchor_epoch, settings.warmup)) + wait - n, 0)
    epochs, lowest = range(n // 3 + 1, n + 1), list(accumulate(val, min))[n // 3 :]
    b = max(linear_regression([1 / epoch for epoch in epochs], lowest).slope, 0.0)
    end = math.ceil((wait + math.sqrt(wait**2 + 4 * b * wait / settings.min_delta)) / 2)
    more = max(end - n, least)
    return (most, True) if more >= most else (more, False)


def seconds_left(val: Sequence[float], settings: TrainSettings, ends: Sequence[float]) -> tuple[float, bool]:
    """Return :func:`epochs_left` in seconds; ``ends``: when the last epochs ended, seconds, one more than epochs."""
    n, bound = epochs_left(val, settings)
    return n * (ends[-1] - ends[0]) / (len(ends) - 1), bound


def sweep_left(runs: Sequence[Status], now: float) -> tuple[float, bool] | None:
    """Return the seconds that are left of a sweep, and whether that is a bound; None where nothing can be said yet.

    A run that waits takes as long as those of its model, and as many run at once as do now. Of a continued run the time
    of all of its epochs counts. Until a run has ended nobody knows how long measuring takes.
    """

    def whole_time(run: Status, so_far: float, left: float = 0.0) -> float:
        scale = run.epoch / (run.epoch - run.before) if run.epoch > run.before else 1.0
        return so_far * scale + left

    done = [run for run in runs if run.state == "finished" and run.measuring]
    after = fmean([run.ended - run.measuring for run in done] or [0.0])
    rest, bound, waiting = [], False, [run for run in runs if run.starts]
    whole = [(run.model, whole_time(run, run.ended - run.started)) for run in done]
    for run in runs:
        training = run.left_at(now) if run.state == "training" else None
        left = None if training is None else training + after
        if run.state == "measuring" and done:
            left = max(after - (now - run.measuring), 0.0)
        if left is not None:
            rest.append(left)
            whole.append((run.model, whole_time(run, now - run.started, left)))
            bound |= run.state == "training" and run.bound
    if not whole or not (rest or waiting):
        return None
    rest_of = [fmean([s for name, s in whole if name == run.model] or [s for _, s in whole]) for run in waiting]
    at_once = max(sum(run.active for run in runs), 1)
    return max([*rest, (sum(rest) + sum(rest_of)) / at_once]), bound


def duration(seconds: float) -> str:
    """Return ``45s``, ``6m10s``, ``52m``, ``2h05m``."""
    minutes, s = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes}m" if minutes >= 10 else f"{minutes}m{s:02d}s" if minutes else f"{s}s"


def said(left: tuple[float, bool] | None) -> str:
    """Return ``about 6m10s``, ``at most 2h05m``, or nothing."""
    return f"{'at most' if left[1] else 'about'} {duration(left[0])}" if left else ""
