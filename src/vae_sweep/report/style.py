"""What the figures of a report share: panels, looks, rows of points with their intervals, lines of one loss."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from vae_sweep.report.run_figures import _COLOURS, _STYLES, _finish, _short

if TYPE_CHECKING:
    from vae_sweep.metrics.catalogue import Metric

Floats = NDArray[np.float64]
DPI = 180
BLUE, GREY, DASHED = "#0072B2", "#555555", (0, (6, 3))
_WIDTH = 7.2  # inches: about a page's column
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters, halves of characters and changes of direction replaced."""
    return _UNPRINTABLE.sub("\ufffd", text)


def short(text: str, length: int) -> str:
    """A name that fits, with nothing in it that means something to matplotlib."""
    return _short(printable(text), length)


def interval(
    axis: Axes, mean: float, low: float | None, high: float | None, y: float, colour: str, wide: bool = False
) -> None:
    if low is not None and high is not None and np.isfinite([low, high]).all():
        axis.plot([low, high], [y, y], color=colour, lw=2.6 if wide else 1.8, solid_capstyle="butt")
    if np.isfinite(mean):
        axis.plot(mean, y, marker="D", ms=7 if wide else 5, color=colour, mec="white", mew=0.8, zorder=4)


def rows(axis: Axes, ticks: Sequence[float], names: Sequence[str]) -> None:
    """Rows from the top down, each with its name."""
    _finish(axis, "", "", "")
    axis.set_yticks(ticks, names, fontsize=9.5)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False, axis="y")
    axis.grid(axis="x", color="#DDDDDD", lw=0.7)
    axis.set_ylim((ticks[-1] if ticks else 0) + 0.6, (ticks[0] if ticks else 0) - 0.6)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def levels(axis: Axes, levels: Mapping[str, float]) -> None:
    for i, (label, level) in enumerate(levels.items()):
        style = (DASHED, *(style for style, _ in _STYLES[2:4]))[i % 3]
        axis.axhline(level, color="black", lw=1.2, ls=style, label=f"{short(label, 40)} ({level:.2f})")


def window(axis: Axes, points: Floats) -> int:
    """Limits around the points, but for those several times above the rest; returns how many lie outside."""
    inside = points[(points <= 4 * np.maximum(np.median(points, axis=0), 1e-9)).all(1)]
    inside = inside if len(inside) else points
    low, high = inside.min(0), inside.max(0)
    room = 0.15 * np.maximum(high - low, 0.05 * np.abs(high) + 1e-6)
    axis.set_xlim(low[0] - room[0], high[0] + room[0])
    axis.set_ylim(low[1] - room[1], high[1] + room[1])
    return len(points) - len(inside)


def constant_loss(axis: Axes, beta: float) -> None:
    """Lines recon = loss - beta * kl inside the limits, each with its loss where it leaves the picture."""
    (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
    for loss in MaxNLocator(nbins=9).tick_values(y0 + beta * x0, y1 + beta * x1):
        x = np.clip(np.array([(loss - y1), (loss - y0)]) / beta, x0, x1) if beta > 0 else np.array([x0, x1])
        y = loss - beta * x
        if x[1] - x[0] < 0.04 * (x1 - x0) or not y0 <= y[1] <= y1:
            continue
        axis.plot(x, y, color="#AAAAAA", lw=0.7, zorder=1)
        place: Any = {"ha": "center", "va": "center", "bbox": {"fc": "white", "ec": "none", "pad": 1}}
        axis.text(x[1] - 0.04 * (x1 - x0), y[1] + beta * 0.04 * (x1 - x0), f"{loss:g}", fontsize=8, color=GREY, **place)


def panels(rows: int, columns: int, height: float, width: float = _WIDTH, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `height` x `width` inches and its panels, row by row."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).flat)


def close(figure: Figure, axes: Sequence[Axes], used: int) -> None:
    """Blank the panels that are not used, and one legend for all others."""
    for axis in axes[max(used, 1) :]:
        axis.set_visible(False)
    if not used:
        nothing(axes[0])
    known = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if known:
        ncols = 3 if max(map(len, known)) <= 30 else 2
        place: Any = {"loc": "outside lower center", "ncols": ncols, "handlelength": 3}
        figure.legend(known.values(), known.keys(), fontsize=9, frameon=False, **place)


def nothing(axis: Axes) -> None:
    axis.set_title("")
    axis.text(0.5, 0.5, "no run has these numbers", ha="center", color=GREY, transform=axis.transAxes)


def looks(models: Iterable[str]) -> Callable[[str], tuple[str, tuple[Any, str]]]:
    """Model -> its colour and its (line style, marker)."""
    order = list(dict.fromkeys(models))

    def look(model: str) -> tuple[str, tuple[Any, str]]:
        i = order.index(model) if model in order else len(order)
        return _COLOURS[i % len(_COLOURS)], _STYLES[i % len(_STYLES)]

    return look


def direction(metric: Metric) -> str:
    return f" ({metric.better} is better)" if metric.better else " (no better direction)"


def array(values: Any) -> Floats:
    """Floats with a gap (nan) wherever the value is not finite."""
    found = np.array(values, dtype=np.float64)
    found[~np.isfinite(found)] = np.nan
    return found


def finite(values: Any) -> Floats:
    """The finite ones alone (n,)."""
    found = np.asarray(values, dtype=np.float64).ravel()
    kept: Floats = found[np.isfinite(found)]
    return kept


def lost(values: Sequence[float]) -> str:
    lost = len(values) - len(finite(values))
    return f" ({lost} not finite)" if lost else ""


def spread(n: int, width: float) -> Floats:
    """Heights of n points that may coincide: zigzag, the same every time."""
    return np.array([width * (i % 3 - 1) for i in range(n)] if n > 1 else [0.0] * n, dtype=np.float64)
