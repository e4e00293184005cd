"""A loss in words: with its terms as they add up, and its unit. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection


def equation(loss: float, recon: float, kl: float, beta: float, reduction: str) -> str:
    """Return ``93.15 = 90.85 + 0.5 * 4.60 nats/image``; without the unit where the squared error is averaged."""
    said = f"{number(loss, spec(reduction))} = {terms(recon, kl, beta, reduction)}"
    return f"{said} {unit([reduction])}".rstrip()


def terms(recon: float, kl: float, beta: float, reduction: str) -> str:
    """Return ``90.85 + 0.5 * 4.60``, and ``90.85 + 4.60`` at beta 1.

    KL has so many digits that the product has those of the loss.
    """
    more = max(math.ceil(math.log10(beta)), 0)
    weight = "" if beta == 1 else f"{beta:g} * "
    return f"{number(recon, spec(reduction))} + {weight}{number(kl, spec(reduction, more))}"


def unit(reductions: Collection[str]) -> str:
    """Return the unit that losses of these reductions share: an averaged squared error plus KL has none."""
    return "nats/image" if set(reductions) <= {"sum"} else ""


def spec(reduction: str | None, more: int = 0) -> str:
    """Return the format of a loss: averaged squared errors are about 0.06."""
    return f".{(4 if reduction == 'mean' else 2) + more}f"


def number(value: float | None, spec: str) -> str:
    """Return the number, nothing when unknown, and the word when it is not finite: divergence should be seen."""
    if value is None:
        return ""
    return format(value, spec) if math.isfinite(value) else str(float(value))
