"""Figures of many runs. Functions return `matplotlib.figure.Figure`: no pyplot, so no global state.

Each model has one colour, in the order of `models` (of first appearance without it), and its own marker and line
style. A number that is not finite is left out and counted. `linear`: the closed-form linear VAE, drawn in black.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from vae_sweep.comparison.rows import REFERENCE
from vae_sweep.report import style
from vae_sweep.report.style import BLUE, DASHED, DASHES, DPI, GREY, Floats, Images, finite, short

if TYPE_CHECKING:
    from vae_sweep.comparison.ranking import Ranking
    from vae_sweep.comparison.statistics import Contrast, Group
    from vae_sweep.metrics.catalogue import Metric

Curves = Mapping[str, tuple[ArrayLike, ArrayLike]]  # run -> images seen, validation loss
Cells = Mapping[str, tuple[str, str]]  # run -> model, hyperparameter set with what else is swept

PER_LINE = 8  # runs
_FLOOR = 1e-4  # nats: a latent with less carries nothing


def sample_columns(
    samples: Mapping[str, Images], title: str, rows: int = 8, captions: Mapping[str, str] | None = None
) -> Figure:
    """Up to 4 x `rows` images of every run, eight runs side by side; above its name, and its caption if any."""
    block, gap, line = 1.6, 0.2, 0.16  # inches
    mosaics = []
    for images in samples.values():
        if len(images):
            style.check_images(images)
        mosaics.append(style.mosaic(images[: 4 * rows], 4) if len(images) else None)
    captions = captions or {}
    texts = ["\n".join(style.wrap(text, 20) for text in (name, captions.get(name)) if text) for name in samples]
    head = line * max((text.count("\n") + 1 for text in texts), default=0) + 0.1
    heights = [block if mosaic is None else block * mosaic.shape[0] / mosaic.shape[1] for mosaic in mosaics]
    starts = range(0, len(samples), PER_LINE)
    inner = min(len(samples), PER_LINE) * (block + gap) - gap
    width = max(inner + 0.3, 4.5)
    title, title_height = style.wrapped_title(title, width)
    tops = [0.0]  # of the lines, below the title
    for start in starts:
        drawn = zip(heights[start : start + PER_LINE], mosaics[start : start + PER_LINE], strict=True)
        tops.append(tops[-1] + head + max((tall for tall, mosaic in drawn if mosaic is not None), default=1.0) + 0.12)
    height = title_height + (tops[-1] or 1.0)
    figure = Figure(figsize=(width, height), dpi=DPI)
    figure.text(0.5, 1 - 0.1 / height, title, ha="center", va="top", **style.TITLE)
    for i, (mosaic, tall, text) in enumerate(zip(mosaics, heights, texts, strict=True)):
        left = (width - inner) / 2 + i % PER_LINE * (block + gap)
        bottom = height - title_height - tops[i // PER_LINE] - head - tall
        axis = style.bare(figure.add_axes((left / width, bottom / height, block / width, tall / height)))
        axis.set_title(text, fontsize=9, pad=4)
        if mosaic is None:
            axis.text(0.5, 0.9, "no samples", ha="center", fontsize=9, color=GREY, transform=axis.transAxes)
        else:
            style.show_image(axis, mosaic)
    return figure


def paired_differences(contrast: Contrast) -> Figure:
    """Every pair's difference a - b, in a row for each set, with its mean and interval; below them the overall mean.

    The band is the margin of equivalence, the line is zero. Sets have 95 % t-intervals, the overall mean one
    from the spread within sets; one seed has none.
    """
    metric, overall = contrast.metric, len(contrast.sets)
    figure, (axis,) = style.panels(1, 1, 1.1 + 0.42 * (overall + 1), width=4.8)
    for y, found in enumerate(contrast.sets):
        values = finite(found.values)
        heights = y - 0.16 + style.spread(len(values), 0.1)
        axis.plot(values, heights, ls="", marker="o", ms=4.5, color=BLUE, alpha=0.7)
        style.interval(axis, found, y + 0.2, BLUE)
    axis.axhline(overall - 0.5, color="#BBBBBB", lw=0.7)
    style.interval(axis, contrast, overall, "black", wide=True)
    axis.axvline(0, color="black", lw=1)
    axis.margins(x=0.08)
    if np.isfinite(contrast.margin) and contrast.margin > 0:
        axis.axvspan(-contrast.margin, contrast.margin, color="#999999", alpha=0.25, lw=0, zorder=0)
    names = [*(short(s.params, 22) + style.not_finite(s.values) for s in contrast.sets), "all sets"]
    style.finish_rows(axis, range(overall + 1), names)
    a, b = short(contrast.a, 22), short(contrast.b, 22)
    axis.set_xlabel(
        f"{short(metric.label, 40)}: {a} − {b}" + (f" ({short(metric.unit, 24)})" if metric.unit else ""), fontsize=10
    )
    if metric.better in ("lower", "higher"):
        left, right = (a, b) if metric.better == "lower" else (b, a)
        place: dict[str, Any] = {"transform": axis.transAxes, "va": "bottom", "fontsize": 9, "color": GREY}
        axis.text(0, 1.02, f"← {left} better", ha="left", **place)
        axis.text(1, 1.02, f"{right} better →", ha="right", **place)
    return figure


def ranks(found: Ranking, models: Sequence[str] = (), width: float = style.WIDTH) -> Figure:
    """A critical-difference diagram: the mean rank of each model; a bar joins those that may differ by chance.

    Demšar 2006, figure 1; 1, the best, is on the left.
    """
    figure, (axis,) = style.panels(1, 1, 0.9 + 0.3 * len(found.models) + 0.12 * len(found.alike), width)
    looks = style.looks([*models, *found.models])
    names = [short(model, 22) for model in found.models]
    style.finish_rows(axis, range(len(names)), names)
    for y, (model, rank) in enumerate(zip(found.models, found.ranks, strict=True)):
        axis.plot([1, rank], [y, y], color=looks[model][0], lw=1, alpha=0.5)
        axis.plot(rank, y, ls="", marker=looks[model][2], ms=7, color=looks[model][0])
    of = dict(zip(found.models, found.ranks, strict=True))
    for i, group in enumerate(found.alike):
        axis.hlines(-0.55 - 0.3 * i, of[group[0]], of[group[-1]], color="black", lw=3)
    axis.set_ylim(len(names) - 0.4, -0.9 - 0.3 * len(found.alike))
    axis.set_xlim(0.95, len(names) + 0.05)
    axis.set_xlabel(f"mean rank in {short(found.metric.label, 40)}", fontsize=10)
    return figure


def seed_points(
    groups: Sequence[Group],
    metric: Metric,
    linear: Mapping[str, float] | None = None,
    models: Sequence[str] = (),
    width: float = style.WIDTH,
) -> Figure:
    """Every seed's value in one row for each set and model, its mean and 95 % t-interval beside it.

    `linear`: label -> value, a vertical line each.
    """
    linear = linear or {}
    sets = list(dict.fromkeys(group.params for group in groups))
    groups = sorted(groups, key=lambda group: sets.index(group.params))
    figure, (axis,) = style.panels(1, 1, 1.05 + 0.36 * max(len(groups), 1) + 0.2 * len(linear), width)
    looks = style.looks([*models, *(group.model for group in groups)])
    ticks = [i + 1 + 0.4 * sets.index(group.params) for i, group in enumerate(groups)]  # a gap between sets
    for y, group in zip(ticks, groups, strict=True):
        colour, _, marker = looks[group.model]
        values = finite(group.values)
        heights = y - 0.17 + style.spread(len(values), 0.1)
        axis.plot(values, heights, ls="", marker=marker, ms=4.5, color=colour, alpha=0.75)
        style.interval(axis, group, y + 0.2, colour)
    fit = min(1.0, width / style.WIDTH)
    length = int(fit * 22)  # of a name, characters
    names = [f"{short(g.params, length)}  {short(g.model, length)}{style.not_finite(g.values)}".strip() for g in groups]
    style.finish_rows(axis, ticks, names)
    for i, (label, level) in enumerate(linear.items()):
        if np.isfinite(level):
            label = f"{short(label, 42)}: {level:.{metric.digits}f}"
            axis.axvline(level, color="black", lw=1.3, ls=DASHES[1 + i % 3], label=label, zorder=1)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    if not any(finite(group.values).size for group in groups):
        style.nothing(axis)
    said = ", ".join(filter(None, (short(metric.unit, 24), f"{metric.better} is better" if metric.better else "")))
    label, apart = short(metric.label, int(60 * fit)), "\n" if fit < 1 else " "
    axis.set_xlabel(f"{label}{apart}({said})" if said else label, fontsize=10)
    return figure


def validation_bands(
    histories: Curves,
    cells: Cells,
    linear: Mapping[str, float] | None = None,
    models: Sequence[str] = (),
    unit: str = "nats/image",
    width: float = style.WIDTH,
) -> Figure:
    """Validation loss (in `unit`) against training images seen: one panel for each set, one colour for each model.

    `linear`: set -> loss of the closed-form linear VAE with its latents, beta and reduction. Line and band are the
    mean and the range of all seeds, as far as every seed trained; beyond that each seed goes on as a thin line. The
    first epochs and a diverging run may lie above the panel.
    """
    points = {run: (style.array(x), style.array(y)) for run, (x, y) in histories.items() if run in cells}
    shown = {run: (x[~np.isnan(x)], y[~np.isnan(x)]) for run, (x, y) in points.items() if not np.isnan(x).all()}
    scale, many = style.millions(x for x, _ in shown.values())
    looks = style.looks([*models, *(cells[run][0] for run in shown)])
    sets = _by_set(shown, cells)
    levels = {params: level for params, level in (linear or {}).items() if params in sets and np.isfinite(level)}
    figure, axes, y_labels = _set_panels(
        sets, f"validation loss\n({unit + ', ' if unit else ''}lower is better)", width
    )
    for axis, y_label, (params, by_model) in zip(axes, y_labels, sets.items(), strict=False):
        for model, names in by_model.items():
            runs = [shown[name] for name in names]
            colour, dashes, _ = looks[model]
            for x, y in runs:
                axis.plot(x / scale, y, color=colour, lw=0.7, alpha=0.6)
            x, all_y = _together(runs)
            axis.fill_between(x / scale, all_y.min(0), all_y.max(0), color=colour, alpha=0.18, lw=0)
            axis.plot(x / scale, all_y.mean(0), color=colour, ls=dashes, lw=1.8, label=short(model, 30))
        if params in levels:
            axis.axhline(levels[params], color="black", lw=1.2, ls=DASHED, label=REFERENCE)
        style.finish(axis, short(params, 30), f"images seen ({many})", y_label)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    style.robust_limits(axes[0], [*(y for _, y in shown.values()), *(np.array([v]) for v in levels.values())])
    for axis, params in zip(axes, sets, strict=False):
        if params in levels:
            style.level(axis, levels[params], f"{levels[params]:.2f}")
    style.legend_below(figure, axes, len(sets) if shown else 0)
    return figure


def kl_spectra(
    spectra: Mapping[str, Floats],
    linear: Floats | None = None,
    title: str = "",
    cells: Cells | None = None,
    models: Sequence[str] = (),
    width: float = style.WIDTH,
) -> Figure:
    """KL per latent (nats) against its rank: the mean over seeds of each rank and their range, one panel a set.

    Without `cells` each run is a line of its own. `linear`: (L,) KL per latent. The axis is logarithmic and ends at
    1e-4 nats: below, a latent carries nothing.
    """
    cells = {run: (run, "") for run in spectra} if cells is None else cells
    shown = {run: np.sort(finite(values))[::-1] for run, values in spectra.items() if run in cells and len(values)}
    looks = style.looks([*models, *(cells[run][0] for run in shown)])
    sets = _by_set(shown, cells)
    figure, axes, y_labels = _set_panels(sets, "KL per latent (nats)", width)
    for axis, y_label, (params, by_model) in zip(axes, y_labels, sets.items(), strict=False):
        for model, runs in by_model.items():
            length = max(len(shown[run]) for run in runs)
            stack = np.stack([np.pad(shown[run], (0, length - len(shown[run]))) for run in runs])
            colour, dashes, _ = looks[model]
            _spectrum(axis, stack, color=colour, ls=dashes, lw=1.8, label=short(model, 30))
        if linear is not None:
            most = max((len(shown[run]) for runs in by_model.values() for run in runs), default=0)
            line = np.sort(finite(linear))[::-1][None, :most]  # fewer latents are the first of more
            _spectrum(axis, line, color="black", ls=DASHED, lw=1.2, label=REFERENCE)
        axis.set_yscale("log")
        style.finish(axis, short(params, 30), "latent, sorted by KL", y_label)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.set_ylim(bottom=_FLOOR)
    style.legend_below(figure, axes, len(sets) if shown else 0)
    if title:
        style.heading(figure, title)
    return figure


def rate_distortion(
    points: Mapping[tuple[str, str], Sequence[tuple[float, float]]],
    curve: tuple[Floats, Floats] | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    models: Sequence[str] = (),
    loss: tuple[float | None, str] = (1.0, "nats/image"),
    width: float = style.WIDTH,
) -> Figure:
    """Every run's kl in nats/image and its squared error: the colour is the model, the marker the set.

    `points`: (model, set) -> one pair for each seed. `curve`: kl and squared error of the closed-form linear VAE as its
    beta varies, `marks` single points of it by label. `loss`: what a nat of kl is worth in squared error (None: no one
    value), and the unit of that. Grey lines have one loss each.
    """
    narrow = width < style.WIDTH
    length = 17 if narrow else 34  # of a label, characters
    figure, (axis,) = style.panels(1, 1, 4.5 + 0.1 * len(points) if narrow else 5.0, width)
    model_looks = style.looks([*models, *(model for model, _ in points)])
    set_looks = style.looks(params for _, params in points)
    known = {label: pair for label, pair in (marks or {}).items() if np.isfinite(pair).all()}
    everything = np.array([pair for pairs in (*points.values(), known.values()) for pair in pairs]).reshape(-1, 2)
    everything = everything[np.isfinite(everything).all(1)]
    for (model, params), pairs in points.items():
        finite_pairs = np.array([pair for pair in pairs if np.isfinite(pair).all()]).reshape(-1, 2)
        look: dict[str, Any] = {"color": model_looks[model][0], "marker": set_looks[params][2]}
        label = short(f"{model} {params}".strip(), length)
        axis.plot(*finite_pairs.T, ls="", ms=6, alpha=0.8, mew=0.8, mec="white", label=label, zorder=3, **look)
    if curve is not None and len(curve[0]):
        axis.plot(*map(style.array, curve), color="black", lw=1.2, ls=DASHED, label="linear, any beta")
    for i, (label, pair) in enumerate(known.items()):
        axis.plot(*pair, ls="", marker="*X"[i % 2], ms=12, color="black", label=short(label, length), zorder=4)
    if not len(everything):
        style.nothing(axis)
        return figure
    outside = _limits_around(axis, everything)
    heading = f"points outside: {outside}" if outside else ""
    style.finish(axis, heading, "kl (nats/image)", f"squared error ({loss[1]})" if loss[1] else "squared error")
    axis.grid(visible=False)
    if loss[0] is not None:
        _constant_loss(axis, loss[0])
    place: Any = {"loc": "outside lower center" if narrow else "outside right upper", "ncols": 1 + narrow}
    figure.legend(**place, fontsize=9, frameon=False, labelspacing=0.6)
    return figure


def variances(
    points: Mapping[tuple[str, str], Mapping[str, Sequence[tuple[float, float]]]],
    models: Sequence[str] = (),
    width: float = style.WIDTH,
) -> Figure:
    """Bits per value at each level of the decoder's variance, and beside them their distance to the closed form.

    `points`: (model, set) -> level -> (bits, bits of the closed-form linear VAE) of every run. Levels stand in the
    order of appearance. Line and band are the mean and the range of the runs of one level; lower is better.
    """
    narrow = width < style.WIDTH
    figure, axes = style.panels(1 + narrow, 2 - narrow, 6.4 if narrow else 3.6, width)
    model_looks = style.looks([*models, *(model for model, _ in points)])
    set_looks = style.looks(params for _, params in points)
    levels = list(dict.fromkeys(level for found in points.values() for level in found))
    closed: dict[tuple[tuple[int, float], ...], str] = {}  # a line for each; the set of the first
    for (model, params), found in points.items():
        x = [levels.index(level) for level in found]
        line = tuple(sorted((i, pairs[0][1]) for i, pairs in zip(x, found.values(), strict=True)))
        closed.setdefault(line, params)
        runs = [np.array([(bits, bits - linear) for bits, linear in pairs]) for pairs in found.values()]
        look: dict[str, Any] = {"color": model_looks[model][0], "marker": set_looks[params][2], "ms": 5, "lw": 1.4}
        for i, axis in enumerate(axes):
            low, mean, high = ([float(f(pairs[:, i])) for pairs in runs] for f in (np.min, np.mean, np.max))
            axis.fill_between(x, low, high, color=look["color"], alpha=0.18, lw=0)
            axis.plot(x, mean, label=short(f"{model} {params}".strip(), 34), **look)
    for i, (line, params) in enumerate(closed.items()):
        label = REFERENCE if len(closed) == 1 else f"{REFERENCE}, {params}"
        axes[0].plot(*zip(*line, strict=True), color="black", lw=1.2, ls=DASHES[1 + i % 3], label=label)
    axes[1].axhline(0, color="black", lw=1.2, ls=DASHED)
    for axis, what in zip(axes, ("test bits/dim", "the same, minus the closed form's"), strict=True):
        style.finish(axis, "", "decoder variance", what)
        axis.set_xticks(range(len(levels)), levels)
    style.legend_below(figure, axes, 2)
    return figure


def _by_set(runs: Iterable[str], cells: Cells) -> dict[str, dict[str, list[str]]]:
    """Set -> model -> its runs, in order of appearance; one set without a name where there is no run."""
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        model, params = cells[run]
        found.setdefault(params, {}).setdefault(model, []).append(run)
    return found or {"": {}}


def _set_panels(sets: Mapping[str, Any], y_label: str, width: float) -> tuple[Figure, list[Axes], list[str]]:
    """A figure with one panel for each set, three in a row; its panels; their y labels, "" but for a row's first."""
    columns = min(len(sets), 3 if width >= style.WIDTH else 1)
    lines = -(-len(sets) // columns)
    figure, axes = style.panels(lines, columns, 0.9 + 2.7 * lines, width, sharey=True)
    return figure, axes, [y_label if i % columns == 0 else "" for i in range(len(axes))]


def _spectrum(axis: Axes, stack: Floats, **look: Any) -> None:
    """(seeds, L) values, each row descending: mean and range of each rank, down to where nothing is left."""
    mean = stack.mean(0) if stack.size else np.zeros(0)
    used = int((mean > _FLOOR).sum())
    rank = np.arange(1, used + 1)
    axis.fill_between(rank, stack.min(0)[:used], stack.max(0)[:used], color=look["color"], alpha=0.18, lw=0)
    axis.plot(rank, mean[:used], **look)


def _together(runs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Images seen (n,) that every run reached and their losses (runs, n); a gap of one run is a gap of all."""
    x = min((x for x, _ in runs), key=lambda x: float(np.nanmax(x)))
    return x, np.stack([np.interp(x, seen, y) for seen, y in runs])


def _limits_around(axis: Axes, points: Floats) -> int:
    """Set limits around the points (n, 2), but for those several times above the rest; return how many lie outside."""
    inside = points[(points <= 4 * np.maximum(np.median(points, axis=0), 1e-9)).all(1)]
    inside = inside if len(inside) else points
    low, high = inside.min(0), inside.max(0)
    room = 0.15 * np.maximum(high - low, 0.05 * np.abs(high) + 1e-6)
    axis.set_xlim(low[0] - room[0], high[0] + room[0])
    axis.set_ylim(low[1] - room[1], high[1] + room[1])
    return len(points) - len(inside)


def _constant_loss(axis: Axes, beta: float) -> None:
    """Lines recon = loss - beta * kl inside the limits, each with its loss where it leaves at the right or the top."""
    (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
    for loss in MaxNLocator(nbins=9).tick_values(y0 + beta * x0, y1 + beta * x1):
        x = np.clip(np.array([(loss - y1), (loss - y0)]) / beta, x0, x1) if beta > 0 else np.array([x0, x1])
        y = loss - beta * x
        right = y0 <= y[1] <= y1 and np.isclose(x[1], x1)
        if x[1] - x[0] < 0.04 * (x1 - x0) or not (right or np.isclose(y[0], y1)):
            continue
        axis.plot(x, y, color="#AAAAAA", lw=0.7, zorder=1)
        place: Any = {"xytext": (4, 0) if right else (0, 3), "textcoords": "offset points", "annotation_clip": False}
        place |= {"ha": "left", "va": "center"} if right else {"ha": "center", "va": "bottom"}
        axis.annotate(f"{loss:g}", (x[1], y[1]) if right else (x[0], y[0]), fontsize=8, color=GREY, **place)
