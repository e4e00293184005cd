"""When a training stops early. Without torch, so that estimates and verdicts use the rule itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class EarlyStopping:
    """Stops after ``patience`` epochs, none of the warm-up, in which the loss gained less than ``min_delta``.

    A slow descent counts: the gain is measured from the last loss that counted as an improvement. The best epoch,
    whose weights are restored, is the one with the lowest loss of all, whether or not it counted.
    """

    patience: int
    min_delta: float  # nats per image
    warmup: float = 0.0  # epochs
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
        return epoch - max(self.anchor_epoch, self.warmup) >= self.patience
