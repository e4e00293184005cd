"""Figures of a report: what several seeds of several models say. Functions return `matplotlib.figure.Figure`.

One colour a model, in the order of `models` (of first appearance without it), also told apart by marker and line
style. A number that is not finite is left out and counted. No pyplot, so no global state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_sweep.comparison.rows import REFERENCE
from vae_sweep.report import style as draw
from vae_sweep.report.run_figures import _STYLES, _finish, _heading, _robust_limits
from vae_sweep.report.style import BLUE, DASHED, GREY, Floats, array, finite, printable, short

if TYPE_CHECKING:
    from vae_sweep.comparison.statistics import Contrast, Group
    from vae_sweep.metrics.catalogue import Metric

Curves = Mapping[str, tuple[Floats, Floats]]
Cells = Mapping[str, tuple[str, str]]  # run -> (model, hyperparameter set)

_FLOOR = 1e-4  # nats: a latent with less carries nothing


def paired_differences(contrasts: Sequence[Contrast]) -> Figure:
    """One panel for each contrast: every pair's difference a - b, each set's and the overall mean with its interval.

    The band is the margin of equivalence, the line is zero. Sets have 95 % t-intervals, the overall mean one
    from the spread within sets; one seed has none.
    """
    tall = [1.0 + 0.42 * (len(c.sets) + 1) for c in contrasts] or [1.5]
    figure, axes = draw.panels(len(tall), 1, sum(tall) + 0.1, width=4.8, height_ratios=tall)
    for axis, contrast in zip(axes, contrasts, strict=False):
        _differences(axis, contrast)
    if not contrasts:
        draw.nothing(axes[0])
    return figure


def seed_points(
    groups: Sequence[Group],
    metric: Metric,
    references: Mapping[str, float] | None = None,
    models: Sequence[str] = (),
) -> Figure:
    """Every seed's value in one row for each set and model, its mean and 95 % t-interval beside it.

    `references`: label -> value of a closed-form linear VAE, a vertical line each.
    """
    sets = list(dict.fromkeys(group.params for group in groups))
    rows = sorted(groups, key=lambda group: sets.index(group.params))
    figure, (axis,) = draw.panels(1, 1, 1.35 + 0.36 * max(len(rows), 1) + 0.2 * len(references or {}))
    look_of = draw.looks(models or [group.model for group in groups])
    y, ticks, last = 0.0, [], None
    for group in rows:
        y += 1.4 if last not in (None, group.params) else 1.0  # sets stand apart
        last = group.params
        ticks.append(y)
        colour, (_, marker) = look_of(group.model)
        values = finite(group.values)
        axis.plot(
            values, y - 0.17 + draw.spread(len(values), 0.1), ls="", marker=marker, ms=4.5, color=colour, alpha=0.75
        )
        draw.interval(axis, group.mean, group.low, group.high, y + 0.2, colour)
    names = [f"{short(g.params, 22)}  {short(g.model, 20)}{draw.lost(g.values)}".strip() for g in rows]
    draw.rows(axis, ticks, names)
    for i, (label, level) in enumerate((references or {}).items()):
        if np.isfinite(level):
            said = f"{short(label, 50)}: {level:.{metric.digits}f}"
            axis.axvline(level, color="black", lw=1.3, ls=_STYLES[(1, 2, 3)[i % 3]][0], label=said, zorder=1)
    if axis.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", fontsize=9, frameon=False)
    if not any(finite(group.values).size for group in rows):
        draw.nothing(axis)
    axis.set_title(f"{short(metric.label, 70)}{draw.direction(metric)}", fontsize=10.5)
    axis.set_xlabel(short(metric.unit or metric.label, 60), fontsize=10)
    return figure


def validation_bands(
    histories: Curves,
    cells: Cells,
    references: Mapping[str, float] | None = None,
    models: Sequence[str] = (),
    unit: str = "nats/image",
) -> Figure:
    """Validation loss (in ``unit``) against training images seen: one panel for each set, one colour for each model.

    Line and band are the mean and the range of all seeds, as far as every seed trained; beyond that each seed goes
    on as a thin line. The first epochs and a diverging run may lie above the picture.
    """
    points = {run: (array(x), array(y)) for run, (x, y) in histories.items() if run in cells}
    shown = {run: (x[~np.isnan(x)], y[~np.isnan(x)]) for run, (x, y) in points.items() if not np.isnan(x).all()}
    sets = list(dict.fromkeys(cells[run][1] for run in shown)) or [""]
    columns = min(len(sets), 3)
    lines = -(-len(sets) // columns)
    figure, axes = draw.panels(lines, columns, 0.9 + 2.7 * lines, sharey=True)
    seen = max((float(np.nanmax(x, initial=0.0)) for x, _ in shown.values()), default=0.0)
    scale, many = (1e6, "millions") if seen >= 2e6 else (1e3, "thousands")
    look_of = draw.looks(models or [cells[run][0] for run in shown])
    levels = {label: level for label, level in (references or {}).items() if np.isfinite(level)}
    for axis, params in zip(axes, sets, strict=False):
        here = [run for run in shown if cells[run][1] == params]
        for model in dict.fromkeys(cells[run][0] for run in here):
            runs = [shown[run] for run in here if cells[run][0] == model]
            colour, (style, _) = look_of(model)
            for x, y in runs:
                axis.plot(x / scale, y, color=colour, lw=0.7, alpha=0.6)
            x, all_y = _together(runs)
            axis.fill_between(x / scale, all_y.min(0), all_y.max(0), color=colour, alpha=0.18, lw=0)
            axis.plot(x / scale, all_y.mean(0), color=colour, ls=style, lw=1.8, label=short(model, 30))
        draw.levels(axis, levels)
        _finish(axis, short(params, 30), f"images seen ({many})", "")
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    for axis in axes[::columns]:
        axis.set_ylabel(f"validation loss\n({', '.join(filter(None, [unit, 'lower is better']))})", fontsize=10)
    _robust_limits(axes[0], [*(y for _, y in shown.values()), *(np.array([v]) for v in levels.values())])
    draw.close(figure, axes, len(sets) if shown else 0)
    return figure


def kl_spectra(
    spectra: Mapping[str, Floats],
    linear: Floats | None = None,
    title: str = "",
    cells: Cells | None = None,
    models: Sequence[str] = (),
) -> Figure:
    """KL per latent (nats) against its rank: the mean over seeds of each rank and their range, one panel a set.

    Without `cells` each run is a line of its own. `linear`: the spectrum of the closed-form linear VAE. The axis is
    logarithmic and ends at 1e-4 nats: below, a latent carries nothing.
    """
    cells = {run: (run, "") for run in spectra} if cells is None else cells
    shown = {run: np.sort(finite(values))[::-1] for run, values in spectra.items() if run in cells and len(values)}
    sets = list(dict.fromkeys(cells[run][1] for run in shown)) or [""]
    columns = min(len(sets), 3)
    lines = -(-len(sets) // columns)
    figure, axes = draw.panels(lines, columns, 0.9 + 2.7 * lines, sharey=True)
    look_of = draw.looks(models or [cells[run][0] for run in shown])
    for axis, params in zip(axes, sets, strict=False):
        here = [run for run in shown if cells[run][1] == params]
        for model in dict.fromkeys(cells[run][0] for run in here):
            same = [shown[run] for run in here if cells[run][0] == model]
            length = max(map(len, same))
            stack = np.stack([np.pad(values, (0, length - len(values))) for values in same])
            colour, (style, _) = look_of(model)
            _spectrum(axis, stack, color=colour, ls=style, lw=1.8, label=short(model, 30))
        if linear is not None:
            line = np.sort(finite(linear))[::-1][None]
            _spectrum(axis, line, color="black", ls=DASHED, lw=1.2, label=REFERENCE)
        axis.set_yscale("log")
        _finish(axis, short(params, 30), "latent, sorted by KL", "")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axis.set_ylim(bottom=_FLOOR)
    for axis in axes[::columns]:
        axis.set_ylabel("KL per latent (nats)", fontsize=10)
    draw.close(figure, axes, len(sets) if shown else 0)
    if title:
        _heading(figure, printable(title))
    return figure


def rate_distortion(
    points: Mapping[tuple[str, str], Sequence[tuple[float, float]]],
    curve: tuple[Floats, Floats] | None = None,
    marks: Mapping[str, tuple[float, float]] | None = None,
    models: Sequence[str] = (),
    beta: float = 1.0,
    unit: str = "nats/image",
) -> Figure:
    """Every run's kl in nats/image and its recon in ``unit``: the colour is the model, the marker the set.

    `points`: (model, set) -> one pair for each seed. `curve`: kl and recon of the closed-form linear VAE as its beta
    varies, `marks` single points of it by label. Grey lines have one loss, recon + `beta` * kl, each.
    """
    figure, (axis,) = draw.panels(1, 1, 5.0)
    models = list(models) or list(dict.fromkeys(model for model, _ in points))
    sets = list(dict.fromkeys(params for _, params in points))
    look_of = draw.looks(models)
    drawn: list[Floats] = []
    for (model, params), values in points.items():
        pairs = np.array([pair for pair in values if np.isfinite(pair).all()]).reshape(-1, 2)
        drawn.append(pairs)
        look: dict[str, Any] = {"color": look_of(model)[0], "marker": _STYLES[sets.index(params) % len(_STYLES)][1]}
        label = short(f"{model} {params}".strip(), 34)
        axis.plot(*pairs.T, ls="", ms=6, alpha=0.8, mew=0.8, mec="white", label=label, zorder=3, **look)
    if curve is not None and len(curve[0]):
        axis.plot(array(curve[0]), array(curve[1]), color="black", lw=1.2, ls=DASHED, label="linear VAE, any beta")
    known = {label: pair for label, pair in (marks or {}).items() if np.isfinite(pair).all()}
    for i, (label, pair) in enumerate(known.items()):
        axis.plot(*pair, ls="", marker="*X"[i % 2], ms=12, color="black", label=short(label, 34), zorder=4)
    everything = np.concatenate([*drawn, np.array(list(known.values())).reshape(-1, 2)]) if drawn or known else None
    if everything is None or not len(everything):
        draw.nothing(axis)
        return figure
    outside = draw.window(axis, everything)
    draw.constant_loss(axis, beta)
    said = "lower left is better" + (f"; points outside: {outside}" if outside else "")
    _finish(
        axis,
        f"grey: constant loss, recon + {beta:g} · kl; {said}",
        "kl (nats/image)",
        f"recon ({unit})" if unit else "recon",
    )
    axis.grid(visible=False)
    figure.legend(loc="outside right upper", fontsize=9, frameon=False, labelspacing=0.6)
    return figure


def _differences(axis: Axes, contrast: Contrast) -> None:
    names = [*(short(s.params, 22) + draw.lost(s.values) for s in contrast.sets), "all sets"]
    for y, found in enumerate(contrast.sets):
        values = finite(found.values)
        axis.plot(values, y - 0.16 + draw.spread(len(values), 0.1), ls="", marker="o", ms=4.5, color=BLUE, alpha=0.7)
        draw.interval(axis, found.mean, found.low, found.high, y + 0.2, BLUE)
    y = len(contrast.sets)
    axis.axhline(y - 0.5, color="#BBBBBB", lw=0.7)
    draw.interval(axis, contrast.mean, contrast.low, contrast.high, y, "black", wide=True)
    axis.axvline(0, color="black", lw=1)
    axis.margins(x=0.08)
    if np.isfinite(contrast.margin) and contrast.margin > 0:
        axis.axvspan(-contrast.margin, contrast.margin, color="#999999", alpha=0.25, lw=0, zorder=0)
    draw.rows(axis, list(range(y + 1)), names)
    a, b = short(contrast.a, 22), short(contrast.b, 22)
    axis.set_title(f"{short(contrast.metric.label, 40)}{draw.direction(contrast.metric)}", fontsize=10.5, pad=20)
    unit = f" ({short(contrast.metric.unit, 24)})" if contrast.metric.unit else ""
    axis.set_xlabel(f"{a} − {b}{unit}", fontsize=10)
    if contrast.metric.better in ("lower", "higher"):
        left, right = (a, b) if contrast.metric.better == "lower" else (b, a)
        place: dict[str, Any] = {"transform": axis.transAxes, "va": "bottom", "fontsize": 9, "color": GREY}
        axis.text(0, 1.02, f"← {left} better", ha="left", **place)
        axis.text(1, 1.02, f"{right} better →", ha="right", **place)


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
