"""Checks of the arguments that several architectures take; each refusal names ``model.KEY=VALUE``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from vae_sweep.base.errors import UserError

MAX_WIDTH = 1_000_000  # units or channels of a layer
MAX_LAYERS = 100

Checks = Mapping[str, Callable[[str, object], None]]  # argument -> what raises UserError for a wrong (name, value)


def check_width(key: str, value: object) -> None:
    """Check that ``value`` is a number of units that a layer may have.

    Raises:
        UserError: where it is not.
    """
    _check_size(key, value, MAX_WIDTH)


def check_layers(key: str, value: object) -> None:
    """Check that ``value`` is a number of layers that a model may have.

    Raises:
        UserError: where it is not.
    """
    _check_size(key, value, MAX_LAYERS)


def _check_size(key: str, value: object, most: int) -> None:
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"model.{key}={_short(value)}: must be a whole number from 1 to {most:,}")


def check_widths(key: str, widths: object) -> None:
    """Check that ``widths`` is a list of 1 to 100 layer widths.

    Raises:
        UserError: where it is not.
    """
    given = isinstance(widths, Sequence) and not isinstance(widths, str) and 1 <= len(widths) <= MAX_LAYERS
    if not given or not all(type(width) is int and 1 <= width <= MAX_WIDTH for width in widths):  # type: ignore[attr-defined]
        raise UserError(
            f"model.{key}={_short(widths)}: must be a list of 1 to {MAX_LAYERS} widths from 1 to {MAX_WIDTH:,}, "
            "such as [64,32]"
        )


def _short(value: object) -> str:
    return text if len(text := str(value)) <= 80 else f"{text[:80]}..."
