"""Figures of runs and sweeps. Functions return `matplotlib.figure.Figure`: no pyplot, so no global state.

Images are uint8 (N, C, H, W) with C = 1 or 3. Losses are nats/image, lower is better. A number that is not finite
is left out of its line.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

Images = NDArray[np.uint8]

# Okabe & Ito 2008: told apart with any common colour blindness, and in grey by the line styles beside them.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES = (
    ("-", "o"),
    ("--", "s"),
    (":", "^"),
    ("-.", "D"),
    ((0, (5, 1, 1, 1, 1, 1)), "v"),
    ((0, (1, 3)), "P"),
)
_GREY = "#555555"
_DPI = 150
_GAP = 2  # white pixels between the pictures of a mosaic


def learning_curves(
    history: Sequence[Mapping[str, Any]],
    title: str,
    reference: Mapping[str, float] | None = None,
    unit: str = "nats/image",
) -> Figure:
    """Loss, recon and kl of train and validation over the epochs of one run, best epoch (least val loss) marked.

    `history`: one mapping per epoch with `epoch`, `images_seen`, `train/loss`, `val/recon`, ... (missing keys are
    gaps). `reference`: loss, recon, kl of the closed-form linear VAE, drawn as a dashed line.
    """
    figure = Figure(figsize=(12, 4.2), dpi=_DPI, layout="constrained")
    epochs = _column(history, "epoch")
    best = _best(_column(history, "val/loss"))
    panels = {
        "loss": "Loss = recon + β · kl (lower is better)",
        "recon": "Reconstruction error (lower is better)",
        "kl": "KL(q(z|x) ‖ p(z)), not weighted",
    }
    for axis, (term, heading) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        lines = []
        for i, (split, label) in enumerate({"train": "training images", "val": "validation images"}.items()):
            lines.append(_column(history, f"{split}/{term}"))
            style, marker = _STYLES[i]
            axis.plot(epochs, lines[-1], ls=style, color=_COLOURS[i], marker=marker, ms=3.5, lw=1.6, label=label)
        if best is not None:
            label = f"best epoch, {epochs[best]:g} (lowest validation loss)"
            axis.axvline(epochs[best], color=_GREY, lw=1, ls=":", label=label)
        level = None if reference is None else reference.get(term)
        if level is not None and np.isfinite(level):
            axis.axhline(level, color="black", lw=1.2, ls=(0, (6, 3)), label="linear VAE, closed form")
            place = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": "bottom"}
            axis.text(0.995, level, f"{level:.4g}", fontsize=9, clip_on=True, **place)
            lines.append(np.array([level]))
        _finish(axis, heading, "epoch", "nats/image" if term == "kl" else unit)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        _robust_limits(axis, lines)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9.5, frameon=False)
    _heading(figure, title)
    return figure


def validation_curves(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    cells: Mapping[str, tuple[str, str]],
    references: Mapping[str, float],
    title: str,
    unit: str = "nats/image",
) -> Figure:
    """Validation loss of every run of a sweep over training images seen: colour = model, line and marker = set.

    `curves`: run name (`conv-p2`, `conv-p2-s3`) -> images seen, val loss in nats/image. `cells`: run name -> its model
    and its set, with what else is swept; runs that share both share an entry of the legend. `references`: label -> loss
    of a closed-form linear VAE. The first epochs, and runs far above the others, may lie above the picture, so that a
    few nats stay visible.
    """
    figure = Figure(figsize=(10, 5.4), dpi=_DPI, layout="constrained")
    axis = figure.subplots()
    data = {name: (_array(x), _array(y)) for name, (x, y) in curves.items()}
    levels = {label: level for label, level in references.items() if np.isfinite(level)}
    top = _robust_limits(axis, [*(y for _, y in data.values()), *(np.array([v]) for v in levels.values())])
    seen = max((np.nanmax(x, initial=0.0) for x, _ in data.values()), default=0.0)
    scale, many = (1e6, "millions") if seen >= 2e6 else (1e3, "thousands")
    models, sets = (list(dict.fromkeys(cells[name][i] for name in data)) for i in (0, 1))
    for model, params in dict.fromkeys(cells[name] for name in data):
        names = [name for name in data if cells[name] == (model, params)]
        style, marker = _STYLES[sets.index(params) % len(_STYLES)]
        look: dict[str, Any] = {"ls": style, "marker": marker, "color": _COLOURS[models.index(model) % len(_COLOURS)]}
        label = _cell_label(f"{model}-{params}", {name: data[name][1] for name in names}, top)
        for i, name in enumerate(names):
            x, y = data[name]
            axis.plot(x / scale, y, **look, ms=4, lw=1.6 if len(names) == 1 else 1.1, label="" if i else label)
    for i, (label, level) in enumerate(levels.items()):
        style = _STYLES[(1, 2, 3)[i % 3]][0]
        axis.axhline(level, color="black", lw=1.4, ls=style, label=f"{_wrap(label, 30)}\n({level:.2f})")
    heading = "validation images, lower is better"
    _finish(axis, heading, f"training images seen ({many})", f"validation loss ({unit})" if unit else "validation loss")
    if data or levels:
        figure.legend(loc="outside right center", fontsize=9, frameon=False, labelspacing=0.7, handlelength=3)
    _heading(figure, title)
    return figure


def reconstructions(originals: Images, reconstructions: Images, title: str) -> Figure:
    """Pairs of rows, each original above its reconstruction; up to 10 columns, N pictures of the same shape."""
    _check(originals, reconstructions)
    columns = min(len(originals), 10)
    rows = -(-len(originals) // columns)
    pieces: list[Images] = []
    for row in range(rows):
        part = slice(row * columns, (row + 1) * columns)
        pieces += [_mosaic(stack[part], columns) for stack in (originals, reconstructions)]
        pieces.append(np.full((3 * _GAP, *pieces[0].shape[1:]), 255, np.uint8))
    figure, axis = _picture(np.vstack(pieces[:-1]), title, side=originals.shape[-1], left=1.05)
    line = originals.shape[2] + _GAP
    tops = [row * (2 * line + 3 * _GAP) + pair * line for row in range(rows) for pair in (0, 1)]
    axis.set_yticks([top + originals.shape[2] / 2 for top in tops], ["original", "reconstruction"] * rows)
    return figure


def samples(images: Images, title: str, columns: int = 8) -> Figure:
    """Pictures in a grid of `columns`, row by row."""
    _check(images)
    return _picture(_mosaic(images, min(columns, len(images))), title, side=images.shape[-1])[0]


def interpolations(grid: Images, title: str) -> Figure:
    """Rows of pictures (rows, steps, C, H, W) between two ends, t = 0 left and t = 1 right."""
    steps, width = grid.shape[1], grid.shape[-1]
    flat = grid.reshape(-1, *grid.shape[2:])
    _check(flat)
    figure, axis = _picture(_mosaic(flat, steps), title, side=width, bottom=0.32)
    values = [i / max(steps - 1, 1) for i in range(steps)]
    labels = [f"t={t:g}" if t in (0, 1) else f"{t:.2f}" for t in values]
    axis.set_xticks([i * (width + _GAP) + width / 2 for i in range(steps)], labels)
    return figure


def sample_columns(
    samples: Mapping[str, Images], title: str, rows: int = 8, captions: Mapping[str, str] | None = None
) -> Figure:
    """Up to 4 x `rows` pictures of every run, side by side, its name above and below that its caption, if any."""
    block, gap, line = 1.6, 0.2, 0.16  # inches
    pictures: dict[str, Images | None] = {}
    for name, images in samples.items():
        if len(images):
            _check(images)
        pictures[name] = _mosaic(images[: 4 * rows], 4) if len(images) else None
    texts = [
        _wrap(name, 20) + "".join(f"\n{_wrap(c, 20)}" for c in [(captions or {}).get(name)] if c) for name in samples
    ]
    head = line * max((text.count("\n") + 1 for text in texts), default=0) + 0.1
    heights = [block * p.shape[0] / p.shape[1] for p in pictures.values() if p is not None]
    inner = len(samples) * (block + gap) - gap
    width = max(inner + 0.3, 4.5)
    title, title_height = _wrapped_title(title, width)
    height = title_height + head + max(heights, default=1.0) + 0.12
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", fontsize=12, fontweight="bold")
    for i, (picture, text) in enumerate(zip(pictures.values(), texts, strict=True)):
        tall = block if picture is None else block * picture.shape[0] / picture.shape[1]
        left, bottom = (width - inner) / 2 + i * (block + gap), height - title_height - head - tall
        axis = _bare(figure.add_axes((left / width, bottom / height, block / width, tall / height)))
        axis.set_title(text, fontsize=9, pad=4)
        if picture is None:
            axis.text(0.5, 0.9, "no samples", ha="center", fontsize=9, color=_GREY, transform=axis.transAxes)
        else:
            _show(axis, picture)
    return figure


def _array(values: ArrayLike) -> NDArray[np.float64]:
    """Floats with a gap (nan) wherever the value is not finite."""
    found = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def _column(history: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    values = [epoch.get(key) for epoch in history]
    return _array([np.nan if value is None else float(value) for value in values])


def _best(losses: NDArray[np.float64]) -> int | None:
    return int(np.nanargmin(losses)) if np.isfinite(losses).any() else None


def _cell_label(cell: str, losses: Mapping[str, NDArray[np.float64]], top: float) -> str:
    """The run's name, or that of its model and set when there are several, and its best loss."""
    bests = sorted(float(y[i]) for y in losses.values() for i in [_best(y)] if i is not None)
    name = _short(next(iter(losses)) if len(losses) == 1 else f"{cell}, {len(losses)} runs", 27)
    if not bests:
        return f"{name} (no finite loss)"
    span = " to ".join(f"{loss:.2f}" for loss in dict.fromkeys((bests[0], bests[-1])))
    return f"{name} (best {span}{', off scale' if bests[-1] > top else ''})"


def _robust_limits(axis: Axes, lines: Sequence[NDArray[np.float64]]) -> float:
    """Limits that show the last two thirds of every line, unless one lies far above the rest; returns the upper.

    The first epochs of a VAE are several times the final loss, and one diverging run is worse: both would flatten
    the few nats that matter.
    """
    settled = [line[len(line) // 3 :] if len(line) > 3 else line for line in lines]
    settled = [line[np.isfinite(line)] for line in settled if np.isfinite(line).any()]
    if not settled:
        return float("inf")
    bottom = min(float(np.nanmin(line)) for line in lines if np.isfinite(line).any())
    tops = [float(line.max()) for line in settled]
    usual = float(np.median(tops))
    upper = min(max(tops), usual + 2 * max(usual - bottom, 0.01 * abs(usual)))
    extent = max(upper - bottom, 1e-3 * abs(upper), 1e-9)
    axis.set_ylim(bottom - 0.08 * extent, upper + 0.3 * extent)
    return upper + 0.3 * extent


def _finish(axis: Axes, heading: str, x: str, y: str) -> None:
    axis.set_title(heading, fontsize=10.5)
    axis.set_xlabel(x, fontsize=10)
    axis.set_ylabel(y, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#DDDDDD", lw=0.7)
    axis.set_axisbelow(True)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _heading(figure: Figure, title: str) -> None:
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(_wrapped_title(title, figure.get_figwidth())[0], fontsize=12, fontweight="bold")


def _wrapped_title(title: str, width: float) -> tuple[str, float]:
    """The title in lines that fit `width` inches at 12 points bold, and the height it needs."""
    title = _wrap(title, int(width / 0.125))
    return title, 0.2 * (title.count("\n") + 1) + 0.22


def _wrap(text: str, width: int) -> str:
    """Lines of at most `width` characters; a run name may break at its hyphens."""
    return "\n".join(
        "\n".join(textwrap.wrap(line, width, break_on_hyphens=True)) for line in text.splitlines()
    ).replace("$", r"\$")


def _short(text: str, length: int) -> str:
    text = text if len(text) <= length else text[: length // 2 - 1] + "…" + text[-(length // 2) :]
    return text.lstrip("_").replace("$", r"\$")  # a label that starts with "_" is hidden, "$" starts mathematics


def _check(*stacks: Images) -> None:
    for images in stacks:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            raise ValueError(f"expected uint8 images (N, 1 or 3, H, W), N > 0; got {images.dtype} {images.shape}")
        if images.shape != stacks[0].shape:
            raise ValueError(f"expected images of one shape, got {stacks[0].shape} and {images.shape}")


def _mosaic(images: Images, columns: int) -> Images:
    """One picture (height, width, 3) of all images, row by row, on white."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    canvas = np.full((rows * (h + _GAP), columns * (w + _GAP), 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + _GAP), (i % columns) * (w + _GAP)
        canvas[top : top + h, left : left + w] = image.transpose(1, 2, 0)  # one channel spreads over three
    return canvas[:, :-_GAP]  # the gap below stays: mosaics are stacked


def _picture(picture: Images, title: str, side: int, left: float = 0.15, bottom: float = 0.15) -> tuple[Figure, Axes]:
    """A figure that fits the picture exactly: 7.5 inches wide, less where an image of `side` pixels would pass 1.3.

    `left`, `bottom`: margins for labels, inches. Placed by hand: automatic layouts leave holes around images.
    """
    scale = min(7.5 / picture.shape[1], 1.3 / side)
    inner, tall = picture.shape[1] * scale, picture.shape[0] * scale
    width = max(left + inner + 0.15, 4.5)
    title, title_height = _wrapped_title(title, width)
    height = title_height + tall + bottom
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", fontsize=12, fontweight="bold")
    start = left + (width - left - 0.15 - inner) / 2
    axis = _bare(figure.add_axes((start / width, bottom / height, inner / width, tall / height)))
    _show(axis, picture)
    return figure, axis


def _show(axis: Axes, picture: Images) -> None:
    height, width = picture.shape[:2]
    axis.imshow(picture, interpolation="nearest", extent=(0, width, height, 0))


def _bare(axis: Axes) -> Axes:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    return axis
