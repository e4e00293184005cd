"""What figures share: colours and line styles, axes, text that fits, numbers with gaps, images in a grid."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from vae_sweep.comparison.statistics import Contrast, Group, SetDifference

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]

# Okabe & Ito 2008: distinct with any common colour blindness; the line styles and markers are distinct in grey too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")
BLUE, GREY = COLOURS[0], "#555555"
DASHED = (0, (6, 3))  # the closed-form linear VAE
TITLE: dict[str, Any] = {"fontsize": 12, "fontweight": "bold"}
DPI = 150
REPORT_DPI = 180
GAP = 2  # pixels between the images of a mosaic
WIDTH = 7.2  # inches; an inch is 100 CSS pixels of a page
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with control characters, lone surrogates and changes of direction replaced."""
    return _UNPRINTABLE.sub("\ufffd", text)


def short(text: str, length: int) -> str:
    """The text cut in its middle to ``length`` characters, with nothing in it that means something to matplotlib."""
    text = printable(text)
    text = text if len(text) <= length else text[: length // 2 - 1] + "…" + text[-(length // 2) :]
    return text.lstrip("_").replace("$", r"\$")  # matplotlib hides a label that starts with "_"; "$" starts mathematics


def wrap(text: str, width: int) -> str:
    """The text in lines of at most ``width`` characters; a run name may break at its hyphens."""
    lines = (line for part in printable(text).splitlines() for line in textwrap.wrap(part, width) or [""])
    return "\n".join(lines).replace("$", r"\$")


def wrapped_title(title: str, width: float) -> tuple[str, float]:
    """The title in lines that fit ``width`` inches at 12 points bold, and the height in inches that it needs."""
    title = wrap(title, int(width / 0.125))
    return title, 0.2 * (title.count("\n") + 1) + 0.22


def heading(figure: Figure, title: str) -> None:
    """A title above all panels of a figure with a constrained layout."""
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
    figure.suptitle(wrapped_title(title, figure.get_figwidth())[0], **TITLE)


def array(values: ArrayLike) -> Floats:
    """Floats with a gap (nan) wherever the value is not finite."""
    found = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(found), found, np.nan)


def finite(values: ArrayLike) -> Floats:
    """The finite values alone (n,)."""
    found = np.asarray(values, dtype=np.float64).ravel()
    return found[np.isfinite(found)]


def not_finite(values: Sequence[float]) -> str:
    """How many values cannot be drawn, as a suffix of a label; "" for none."""
    n = len(values) - len(finite(values))
    return f" ({n} not finite)" if n else ""


def spread(n: int, width: float) -> Floats:
    """Heights of n points that may coincide: a zigzag, the same every time."""
    return width * (np.arange(n, dtype=np.float64) % 3 - 1) if n > 1 else np.zeros(n)


def looks(names: Iterable[str]) -> dict[str, tuple[str, Any, str]]:
    """Name -> its colour, line style and marker, in order of first appearance; of 36 names each has its own."""
    n = len(COLOURS)
    return {
        name: (COLOURS[i % n], DASHES[(i + i // n) % n], MARKERS[(i + i // n) % n])
        for i, name in enumerate(dict.fromkeys(names))
    }


def millions(seen: Iterable[Floats]) -> tuple[float, str]:
    """The unit in which an axis counts images seen: its size and its name."""
    most = max((float(np.nanmax(x, initial=0.0)) for x in seen), default=0.0)
    return (1e6, "millions") if most >= 2e6 else (1e3, "thousands")


def panels(rows: int, columns: int, height: float, width: float = WIDTH, **more: Any) -> tuple[Figure, list[Axes]]:
    """A figure of ``height`` x ``width`` inches and its panels, row by row."""
    figure = Figure(figsize=(width, height), dpi=REPORT_DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    return figure, list(figure.subplots(rows, columns, squeeze=False, **more).flat)


def finish(axis: Axes, heading: str, x: str, y: str) -> None:
    """Heading, axis labels, grid and number format of a panel."""
    axis.set_title(heading, fontsize=10.5)
    axis.set_xlabel(x, fontsize=10)
    axis.set_ylabel(y, fontsize=10)
    axis.tick_params(labelsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#DDDDDD", lw=0.7)
    axis.set_axisbelow(True)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def finish_rows(axis: Axes, ticks: Sequence[float], names: Sequence[str]) -> None:
    """The same for a panel of named rows, from the top down."""
    finish(axis, "", "", "")
    axis.set_yticks(ticks, names, fontsize=9.5)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(visible=False, axis="y")
    axis.grid(axis="x", color="#DDDDDD", lw=0.7)
    axis.set_ylim((ticks[-1] if ticks else 0) + 0.6, (ticks[0] if ticks else 0) - 0.6)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=7))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))


def legend_below(figure: Figure, axes: Sequence[Axes], used: int) -> None:
    """Hide the panels after the first ``used``; one legend for the others."""
    for axis in axes[max(used, 1) :]:
        axis.set_visible(False)
    if not used:
        nothing(axes[0])
    known = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if known:
        ncols = max(int(figure.get_figwidth() / (2.2 if max(map(len, known)) <= 30 else 3.2)), 1)
        place: Any = {"loc": "outside lower center", "ncols": ncols, "handlelength": 3}
        figure.legend(known.values(), known.keys(), fontsize=9, frameon=False, **place)


def level(axis: Axes, y: float, text: str) -> None:
    """The text right of the panel at height ``y``, where no line passes; nothing where the panel does not show it."""
    low, high = axis.get_ylim()
    if low <= y <= high:
        axis.text(1.01, y, text, fontsize=8, va="center", transform=axis.get_yaxis_transform())


def nothing(axis: Axes) -> None:
    """Say that there is nothing to draw."""
    axis.set_title("")
    axis.text(0.5, 0.5, "no run has these numbers", ha="center", color=GREY, transform=axis.transAxes)


def interval(axis: Axes, found: Contrast | Group | SetDifference, y: float, colour: str, wide: bool = False) -> None:
    """A mean and its 95 % interval, if it has one, at height ``y``."""
    if found.low is not None and found.high is not None and np.isfinite([found.low, found.high]).all():
        axis.plot([found.low, found.high], [y, y], color=colour, lw=2.6 if wide else 1.8, solid_capstyle="butt")
    if np.isfinite(found.mean):
        axis.plot(found.mean, y, marker="D", ms=7 if wide else 5, color=colour, mec="white", mew=0.8, zorder=4)


def robust_limits(axis: Axes, lines: Sequence[Floats]) -> float:
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


def check_images(*stacks: Images) -> None:
    """Raise ValueError unless all are uint8 (N, 1 or 3, H, W) of one shape, N > 0."""
    for images in stacks:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
            raise ValueError(f"expected uint8 images (N, 1 or 3, H, W), N > 0; got {images.dtype} {images.shape}")
        if images.shape != stacks[0].shape:
            raise ValueError(f"expected images of one shape, got {stacks[0].shape} and {images.shape}")


def mosaic(images: Images, columns: int, gap: int = GAP, fill: int = 255) -> Images:
    """All images (N, C, H, W) as one (rows * (H + gap), columns * (W + gap) - gap, C), row by row.

    The gap below stays, so that mosaics can be stacked.
    """
    rows = -(-len(images) // columns)
    missing = rows * columns - len(images)
    padded = np.pad(images, ((0, missing), (0, 0), (0, gap), (0, gap)), constant_values=fill)
    _, c, h, w = padded.shape
    grid = padded.reshape(rows, columns, c, h, w).transpose(0, 3, 1, 4, 2).reshape(rows * h, columns * w, c)
    return grid[:, : columns * w - gap]


def show_image(axis: Axes, image: Images) -> None:
    """Draw (H, W, 1 or 3) in its own pixels, without ticks or frame."""
    height, width = image.shape[:2]
    image = np.broadcast_to(image, (height, width, 3))
    axis.imshow(image, interpolation="nearest", extent=(0, width, height, 0))


def bare(axis: Axes) -> Axes:
    """Remove ticks and frame."""
    axis.set_xticks([])
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=9)
    axis.spines[:].set_visible(False)
    return axis
