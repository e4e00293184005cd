"""What a source of one's own may return instead of :class:`Built`: arrays by the name of their split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_sweep.base.errors import UserError, first_line
from vae_sweep.datasets.base import SPLITS, Built, Split

RETURN = (
    "return {'train': ..., 'val': ..., 'test': ...}, each uint8 images (N, C, H, W) or (N, H, W, C), "
    "or a pair of them and their labels (N,)"
)


def as_built(name: str, returned: Any) -> Built:
    """Return what :meth:`Source.build` gave as a :class:`Built`.

    Raises:
        UserError: for anything but a :class:`Built` or arrays of the three splits.
    """
    if isinstance(returned, Built):
        return returned
    if not isinstance(returned, Mapping) or set(returned) != set(SPLITS):
        names = ", ".join(map(str, returned)) if isinstance(returned, Mapping) else ""
        given = f"a dict of {names or 'nothing'}" if isinstance(returned, Mapping) else type(returned).__name__
        raise UserError(f"dataset={name}: build gives {given}; {RETURN}")
    return Built({split: _split(name, split, returned[split]) for split in SPLITS})


def _split(name: str, split: str, given: Any) -> Split:
    """Images as (N, C, H, W), with label -1 where there are none."""
    pair = given if isinstance(given, tuple | list) and len(given) == 2 else (given, None)
    try:
        images = np.asarray(pair[0])
    except ValueError as error:  # of several shapes
        raise UserError(f"dataset={name}: the {split} images are no array ({first_line(error)}); {RETURN}") from None
    labels = np.full(len(images), -1) if pair[1] is None and images.ndim else np.asarray(pair[1])
    if images.ndim == 3:
        images = images[:, None]
    if images.dtype != np.uint8 or images.ndim != 4:
        scaled = "; of values in [0, 1]: (255 * images).round().astype(np.uint8)" if images.dtype.kind == "f" else ""
        raise UserError(f"dataset={name}: the {split} images are {images.dtype} {images.shape}; {RETURN}{scaled}")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(
            f"dataset={name}: the {split} labels are {labels.dtype} {labels.shape}; "
            f"they must be whole numbers ({len(images)},)"
        )
    if images.shape[-1] in (1, 3) and images.shape[1] not in (1, 3):  # channels last
        images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return Split(images, labels.astype(np.int64))
