"""Figures of one run. Functions return `matplotlib.figure.Figure`: no pyplot, so no global state.

Images are uint8 (N, C, H, W) with C = 1 or 3. Losses are nats/image, lower is better. A number that is not finite
is left out of its line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_sweep.report import style
from vae_sweep.report.style import DASHED, DPI, GAP, GREY, Floats, Images

_PANELS = {
    "loss": "Loss = recon + β · kl (lower is better)",
    "recon": "Reconstruction error (lower is better)",
    "kl": "KL(q(z|x) ‖ p(z)), not weighted",
}
_SPLITS = {"train": "training images", "val": "validation images"}


def learning_curves(
    history: Sequence[Mapping[str, Any]],
    title: str,
    linear: Mapping[str, float] | None = None,
    unit: str = "nats/image",
) -> Figure:
    """Loss, recon and kl of train and validation over the epochs of one run, best epoch (least val loss) marked.

    `history`: one mapping per epoch with `epoch`, `images_seen`, `train/loss`, `val/recon`, ... (missing keys are
    gaps). `linear`: loss, recon, kl of the closed-form linear VAE, drawn as a dashed line.
    """
    figure = Figure(figsize=(12, 4.2), dpi=DPI, layout="constrained")
    epochs, losses = _column(history, "epoch"), _column(history, "val/loss")
    best = epochs[np.nanargmin(losses)] if np.isfinite(losses).any() else None
    looks = style.looks(_SPLITS)
    for axis, (term, heading) in zip(figure.subplots(1, 3), _PANELS.items(), strict=True):
        lines = [_column(history, f"{split}/{term}") for split in _SPLITS]
        for line, label, (colour, dashes, marker) in zip(lines, _SPLITS.values(), looks.values(), strict=True):
            axis.plot(epochs, line, ls=dashes, color=colour, marker=marker, ms=3.5, lw=1.6, label=label)
        if best is not None:
            label = f"best epoch, {best:g} (lowest validation loss)"
            axis.axvline(best, color=GREY, lw=1, ls=":", label=label)
        level = (linear or {}).get(term)
        if level is not None and np.isfinite(level):
            axis.axhline(level, color="black", lw=1.2, ls=DASHED, label="linear VAE, closed form")
            place = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
            axis.text(0.995, level, f"{level:.4g}", fontsize=9, clip_on=True, **place)
            lines.append(np.array([level]))
        style.finish(axis, heading, "epoch", "nats/image" if term == "kl" else unit)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        style.robust_limits(axis, lines)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9.5, frameon=False)
    style.heading(figure, title)
    return figure


def reconstructions(originals: Images, reconstructions: Images, title: str, columns: int = 10) -> Figure:
    """Pairs of rows, each original above its reconstruction; up to ``columns``, in rows that fill; N images."""
    style.check_images(originals, reconstructions)
    columns = -(-len(originals) // -(-len(originals) // columns))
    starts = range(0, len(originals), columns)
    pieces: list[Images] = []
    for start in starts:
        pieces += [style.mosaic(stack[start : start + columns], columns) for stack in (originals, reconstructions)]
        pieces.append(np.full((3 * GAP, *pieces[0].shape[1:]), 255, np.uint8))
    figure, axis = _image_figure(np.vstack(pieces[:-1]), title, side=originals.shape[-1], left=1.05)
    height = originals.shape[2]
    tops = [i * (2 * (height + GAP) + 3 * GAP) + row * (height + GAP) for i in range(len(starts)) for row in (0, 1)]
    axis.set_yticks([top + height / 2 for top in tops], ["original", "reconstruction"] * len(starts))
    return figure


def samples(images: Images, title: str, columns: int = 8) -> Figure:
    """Images in a grid of `columns`, row by row."""
    style.check_images(images)
    return _image_figure(style.mosaic(images, min(columns, len(images))), title, side=images.shape[-1])[0]


def interpolations(grid: Images, title: str) -> Figure:
    """Rows of images (rows, steps, C, H, W) between two ends, t = 0 left and t = 1 right."""
    values = [i / max(grid.shape[1] - 1, 1) for i in range(grid.shape[1])]
    return image_grid(grid, title, [f"t={t:g}" if t in (0, 1) else f"{t:.2f}" for t in values])


def image_grid(grid: Images, title: str, columns: Sequence[str], rows: Sequence[str] = ()) -> Figure:
    """Images (rows, columns, C, H, W) with a label below each column and beside each row."""
    height, width = grid.shape[-2:]
    flat = grid.reshape(-1, *grid.shape[2:])
    style.check_images(flat)
    left = 0.15 + 0.075 * max(map(len, rows), default=0)
    figure, axis = _image_figure(style.mosaic(flat, grid.shape[1]), title, side=width, left=left, bottom=0.32)
    axis.set_xticks([i * (width + GAP) + width / 2 for i in range(grid.shape[1])], columns)
    axis.set_yticks([i * (height + GAP) + height / 2 for i in range(len(rows))], rows)
    return figure


def _column(history: Sequence[Mapping[str, Any]], key: str) -> Floats:
    return style.array([np.nan if epoch.get(key) is None else epoch[key] for epoch in history])


def _image_figure(
    image: Images, title: str, side: int, left: float = 0.15, bottom: float = 0.15
) -> tuple[Figure, Axes]:
    """A figure that fits the mosaic: 7.5 inches wide, less where one image of `side` pixels would be wider than 1.3.

    `left`, `bottom`: margins for labels, inches. Sizes are explicit: automatic layouts leave holes around images.
    """
    scale = min(7.5 / image.shape[1], 1.3 / side)
    inner, tall = image.shape[1] * scale, image.shape[0] * scale
    width = max(left + inner + 0.15, 4.5)
    title, title_height = style.wrapped_title(title, width)
    height = title_height + tall + bottom
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", **style.TITLE)
    start = left + (width - left - 0.15 - inner) / 2
    axis = style.bare(figure.add_axes((start / width, bottom / height, inner / width, tall / height)))
    style.show_image(axis, image)
    return figure, axis
