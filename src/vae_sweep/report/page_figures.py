"""Figures as parts of the page: PNG data, a caption that says what is drawn, a text for who cannot see it."""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image as Pillow

from vae_sweep.comparison.evidence import Evidence, Images
from vae_sweep.comparison.ranking import Ranking
from vae_sweep.comparison.rows import REFERENCE, Row, has_squared_error
from vae_sweep.comparison.sentences import ranked
from vae_sweep.comparison.statistics import Contrast
from vae_sweep.metrics.catalogue import BITS_PER_DIM
from vae_sweep.metrics.losses import unit
from vae_sweep.report import presentation as show
from vae_sweep.report import style, sweep_figures
from vae_sweep.report.presentation import Cell, number

_PIXELS = 700_000  # of all mosaics of a kind together: about 2 MB of a page
_SHOWN = 16  # images of a kind, at most
_PAGE, _PHONE = 10.2, 3.6  # inches: a page's column, and that of a phone
_Shown = tuple[Cell, Row, Images]  # a cell, its run, the run's images


@dataclass(frozen=True)
class Png:
    """An image as a data URI."""

    src: str
    width: int
    height: int
    alt: str
    kind: str  # CSS classes
    title: str = ""  # beside an image of several
    starts_row: bool = False
    narrow: str = ""  # the same for a phone, as a data URI


@dataclass(frozen=True)
class PageFigure:
    """One plot; or mosaics in `columns`, a line for each set, its models beside each other; or strips of images."""

    images: list[Png]
    caption: str
    columns: int = 0  # 1: strips with their titles on the left
    title: str = ""


def of_contrast(contrast: Contrast) -> PageFigure:
    """All pairs of one contrast: points, means, intervals, margin."""
    digits = contrast.metric.digits
    sets = "; ".join(f"{s.params} {number(s.mean, digits, True)}" for s in contrast.sets)
    alt = (
        f"Paired differences {contrast.a} minus {contrast.b} in {show.unit(contrast.metric)}: mean "
        f"{number(contrast.mean, digits, True)} {show.interval(contrast, digits)} of {contrast.n} pairs; by set: {sets}"
    )
    caption = "Points: pairs with the same set and seed. Diamonds and bars: means with 95 % intervals."
    if contrast.margin > 0:
        caption += f" Band: differences under {contrast.margin:.3g}, which do not matter."
    return _plot(lambda _: sweep_figures.paired_differences(contrast), alt, caption)


def of_ranking(evidence: Evidence, found: Ranking) -> PageFigure:
    """The mean ranks of three models or more."""
    on = f"{found.metric.label} on {found.dataset}"
    alt = f"Mean ranks in {on}: " + ", ".join(f"{m} {r:.2f}" for m, r in zip(found.models, found.ranks, strict=True))
    return _plot(partial(sweep_figures.ranks, found, show.models(evidence)), alt, ranked(found))


def pictures(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Samples, reconstructions and interpolations of each cell's lowest seed: those that have data."""
    return [*_samples(evidence, dataset), *_reconstructions(evidence, dataset), *_interpolations(evidence, dataset)]


def curves(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Validation losses, rate and distortion, KL per latent: those that have data."""
    cells = show.cells(evidence).items()
    rows = [row for cell, rows in cells if cell.dataset == dataset for row in show.by_seed(rows)]
    found = [
        *_validation_curves(evidence, rows),
        *_rate_distortion(evidence, rows, dataset),
        *_spectra(evidence, rows, dataset),
    ]
    return [replace(found[0], title="Curves"), *found[1:]] if found else []


def validation_curves(
    rows: Sequence[Row], histories: sweep_figures.Curves, models: Sequence[str] = (), width: float = style.WIDTH
) -> Figure:
    """Validation loss of runs, and of the closed-form linear VAE beside them."""
    cells = _cells(rows)
    linear = {cells[row.name][1]: row.reference.val_loss for row in rows if row.reference}
    return sweep_figures.validation_bands(histories, cells, linear, models, _unit(rows), width)


def _validation_curves(evidence: Evidence, rows: Sequence[Row]) -> list[PageFigure]:
    known = evidence.histories
    histories = {row.name: known[row.name] for row in rows if row.name in known and len(known[row.name][0])}
    if not histories:
        return []

    @cache
    def draw(width: float) -> Figure:
        return validation_curves(rows, histories, show.models(evidence), width)

    top = draw(_PAGE).axes[0].get_ylim()[1]
    losses = np.concatenate([np.asarray(loss) for _, loss in histories.values()])
    above, caption = int((losses > top).sum()), "Black: the closed-form linear VAE on the same images."
    if len({row.seed for row in rows if row.name in histories}) > 1:
        caption += " Line and band: mean and range over seeds, as far as every seed trained; thin lines: single seeds."
    if above:
        caption += f" Above the axis, so that the last nats can be seen: {above} of the {len(losses)} epochs."
    models = " and ".join(dict.fromkeys(row.model for row in rows))
    return [_plot(draw, f"Curves of the validation loss of {models}, one panel for each set", caption)]


def variances(evidence: Evidence) -> list[PageFigure]:
    """Bits per value at each level of the decoder's variance: a figure for each dataset that has runs of several."""
    digests = dict.fromkeys(row.digest for row in evidence.rows)
    found = [drawn for digest in digests for drawn in _variances(evidence, digest)]
    return found if len(found) > 1 else [replace(drawn, title="At every variance") for drawn in found]


def _variances(evidence: Evidence, digest: str | None) -> list[PageFigure]:
    points: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    rows = [row for row in evidence.rows if row.digest == digest and row.status == "FINISHED"]
    for row in sorted(rows, key=_level):
        known = evidence.references.get(row.dataset, {}).get(str(row.latent_dim), {})
        if BITS_PER_DIM in row.metrics and BITS_PER_DIM in known and row.reduction == "sum":
            of = points.setdefault((row.model, _set_alone(row)), {})
            of.setdefault(row.variance or "0.5", []).append((row.metrics[BITS_PER_DIM], known[BITS_PER_DIM]))
    if len({level for found in points.values() for level in found}) < 2:
        return []
    caption = (
        "Bits/dim of discretised Gaussians of the best scale compare across variances; lower is better. Line and band: "
        "mean and range over seeds."
    )
    said = [
        f"{' '.join(cell)}: " + ", ".join(f"{np.mean(pairs, 0)[0]:.3f} at {level}" for level, pairs in found.items())
        for cell, found in points.items()
    ]
    draw = partial(sweep_figures.variances, points, show.models(evidence))
    data = re.sub(r", beta [^,]*, (variance \S+|sum)(?=$| \()", "", rows[0].dataset)
    alt = f"Bits per value on {data}: {'; '.join(said)}"
    return [replace(_plot(draw, alt, caption), title=f"At every variance: {data}")]


def _level(row: Row) -> tuple[bool, float, str]:
    """Numbers first, the largest before, then what is free."""
    free = row.variance in ("optimal", "learned")
    return free, 0.0 if free else -float(row.variance or 0.5), row.variance or ""


def _set_alone(row: Row) -> str:
    """The run's set without what is swept of the variance."""
    level = r"(objective\.)?variance=(optimal|learned|[\d.]+(e[+-]?\d+)?)"
    return re.sub(rf"[\s-]*{level}$|{level}-|-{level}", "", show.cell_of(row).params)


def seed_points(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Every seed's value of the main metrics, where a cell has several."""
    found = []
    for metric in show.main_columns(evidence):
        ordered = [show.group(evidence, metric.key, cell) for cell in show.cells(evidence) if cell.dataset == dataset]
        groups = [group for group in ordered if group]
        if any(len(g.values) > 1 for g in groups):
            known = show.references(evidence, dataset, [metric])
            linear = {name: values[metric.key] for name, values in known if metric.key in values}
            draw = partial(sweep_figures.seed_points, groups, metric, linear, show.models(evidence))
            said = [f"{g.model} {g.params}: {', '.join(number(v, metric.digits) for v in g.values)}" for g in groups]
            caption = "Every seed, and the mean with its 95 % t-interval."
            found.append(_plot(draw, f"{metric.label} of every seed. {'; '.join(said)}", caption))
    return found


def _spectra(evidence: Evidence, rows: Sequence[Row], dataset: str) -> list[PageFigure]:
    found = evidence.spectra
    spectra = {row.name: found[row.name] for row in rows if row.name in found and len(found[row.name])}
    if not spectra:
        return []
    known = evidence.linear_spectra.get(dataset, {})
    linear = max(known.values(), key=len) if known else None  # equal but for their zeros: one line for all sizes
    draw = partial(sweep_figures.kl_spectra, spectra, linear, "", _cells(rows), show.models(evidence))
    caption = "KL of each latent, sorted within each run; mean and range over seeds of each rank. Logarithmic axis."
    used = "; ".join(f"{name} {int((np.asarray(values) > 0.01).sum())}" for name, values in spectra.items())
    return [_plot(draw, f"KL per latent. Latents above 0.01 nats: {used}", caption)]


def _rate_distortion(evidence: Evidence, rows: Sequence[Row], dataset: str) -> list[PageFigure]:
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    marks: dict[str, tuple[float, float]] = {}
    slopes = set()
    for row in rows:
        kl, distortion = row.metrics.get("test/kl"), _distortion(row.metrics, row)
        if row.status != "FINISHED" or kl is None or distortion is None:
            continue
        points.setdefault((row.model, show.cell_of(row).params), []).append((kl, distortion))
        slopes.add(_slope(row))
        if row.reference:
            known = evidence.references.get(dataset, {}).get(str(row.reference.latent_dim), {})
            mark = _distortion({"test/recon": row.reference.test_recon} | dict(known), row)
            of = f"beta = {row.reference.beta:g}" + ("" if has_squared_error(row) else f", variance {row.variance}")
            marks |= {f"linear, {of}": (row.reference.test_kl, mark)} if mark is not None else {}
    if not points:
        return []
    averaged = any(row.reduction == "mean" for row in rows)
    curve = None if averaged else evidence.linear_curves.get(dataset)  # it has sums
    slope = slopes.pop() if len(slopes) == 1 else None
    loss = slope, _unit(rows) if all(map(has_squared_error, rows)) else ""
    draw = partial(sweep_figures.rate_distortion, points, curve, marks, show.models(evidence), loss)
    means = {" ".join(cell): np.mean(pairs, axis=0) for cell, pairs in points.items()}
    alt = "; ".join(f"{cell}: kl {kl:.4g}, squared error {recon:.4g}" for cell, (kl, recon) in means.items())
    caption = "Rate (kl) and distortion (squared error) on test images, one point for each run; lower left is better."
    if slope is not None:
        caption += f" Grey lines: constant loss, squared error + {slope:g} · kl."
    if curve:
        caption += " A network above the dashed curve reconstructs worse than a linear VAE with the same KL."
    return [_plot(draw, f"Means of squared error and kl: {alt}", caption)]


def _distortion(metrics: Mapping[str, float], row: Row) -> float | None:
    """The squared error, averaged where the row's loss averages it."""
    return metrics.get("test/recon" if has_squared_error(row) else "test/squared_error")


def _slope(row: Row) -> float | None:
    """What a nat of KL is worth in squared error, 2 beta times the decoder's variance; None where that is free."""
    if row.variance in ("optimal", "learned"):
        return None
    scale = 1.0 if has_squared_error(row) else 2 * float(row.variance or 0.5)
    return scale * (1.0 if row.beta is None else row.beta)


def _samples(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Samples of every cell below test images and samples of the closed-form linear VAE."""
    runs = _lowest_seeds(evidence, dataset, evidence.samples)
    if not runs:
        return []
    columns = min(max(len({cell.model for cell, *_ in runs}), 2), 6)
    across = 8 if columns < 4 else 4
    pairs = _pairs(evidence, dataset)
    beside = {"real test images": pairs[0][2][:, 0]} if pairs else {}
    if dataset in evidence.linear_samples:
        beside[REFERENCE] = evidence.linear_samples[dataset]
    most = _most([*beside.values(), *(images for *_, images in runs)]) // across * across or across
    mosaics = [_mosaic(images[:most], across, title, title) for title, images in beside.items()]
    mosaics += [_of_run(run, run[2][:most], across, "samples from the prior of", runs) for run in runs]
    caption = f"The first samples from the prior of each cell's lowest seed{_common_seed(runs)}, not selected."
    return [PageFigure(mosaics, caption, columns, "Samples")]


def _reconstructions(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Strips: the same test images, and what each cell makes of them."""
    runs = _pairs(evidence, dataset)
    if not runs:
        return []
    most = _most([images[:, 0] for *_, images in runs])
    real = runs[0][2][:most, 0]
    linear = [evidence.linear_reconstructions[dataset]] if dataset in evidence.linear_reconstructions else []
    wide, narrow = (
        [
            _mosaic(real, columns, "test images", "real"),
            *(_mosaic(images[:most], columns, f"reconstructions by {REFERENCE}", REFERENCE) for images in linear),
            *(_of_run(run, run[2][:most, 1], columns, "reconstructions of the same images by", runs) for run in runs),
        ]
        for columns in (len(real), -(-len(real) // 2))
    )
    strips = [replace(png, narrow=small.src) for png, small in zip(wide, narrow, strict=True)]
    caption = f"The same test images in every row, not selected; decoded posterior means{_common_seed(runs)}."
    return [PageFigure(strips, caption, 1, "Reconstructions")]


def _interpolations(evidence: Evidence, dataset: str) -> list[PageFigure]:
    runs = _lowest_seeds(evidence, dataset, evidence.interpolations)
    if not runs:
        return []
    models = len({cell.model for cell, *_ in runs})
    columns = 2 if models in (1, 4) else min(models, 3)
    steps = runs[0][2].shape[1]
    fitting = _PIXELS // sum(steps * math.prod(images.shape[-2:]) for *_, images in runs)
    lines = max(1, min(4, fitting))
    mosaics = []
    for run in runs:
        images = run[2][:lines].reshape(-1, *run[2].shape[2:])
        mosaics.append(_of_run(run, images, steps, "interpolations between two draws of", runs))
    caption = f"Each row goes from one draw from the prior to another, its ends{_common_seed(runs)}."
    return [PageFigure(mosaics, caption, columns, "Interpolations")]


def _cells(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Run -> model, and the set with what else tells the panels apart."""
    data = len({row.dataset for row in rows}) > 1
    return {row.name: (row.model, f"{row.dataset * data} {show.cell_of(row).params}".strip()) for row in rows}


def _unit(rows: Sequence[Row]) -> str:
    return unit({row.reduction for row in rows if row.reduction})


def _lowest_seeds(evidence: Evidence, dataset: str, given: Mapping[str, Images]) -> list[_Shown]:
    """Each cell with its run of the lowest seed that has images, and those."""
    found = []
    for cell, rows in show.cells(evidence).items():
        having = [row for row in show.by_seed(rows) if len(given.get(row.name, ()))]
        if cell.dataset == dataset and having:
            found.append((cell, having[0], given[having[0].name]))
    return found


def _pairs(evidence: Evidence, dataset: str) -> list[_Shown]:
    """Test images and reconstructions of the cells, those with the same images as the first."""
    runs = _lowest_seeds(evidence, dataset, evidence.reconstructions)
    return [run for run in runs if np.array_equal(run[2][:, 0], runs[0][2][:, 0])]


def _most(stacks: Sequence[Images]) -> int:
    """How many images of each stack (n, C, H, W) a page shows: all have as many."""
    fitting = _PIXELS // sum(math.prod(images.shape[-2:]) for images in stacks)
    return min(_SHOWN, max(fitting, 4), *map(len, stacks))


def _common_seed(runs: Sequence[_Shown]) -> str:
    seeds = {row.seed for _, row, _ in runs} - {None}
    return f", seed {seeds.pop()}" if len(seeds) == 1 else ""


def _of_run(run: _Shown, images: Images, columns: int, what: str, runs: Sequence[_Shown]) -> Png:
    """The run's images; the title names its seed only where others have another one, and each set begins a row."""
    cell, row, _ = run
    seed = f", seed {'unknown' if row.seed is None else row.seed}"
    title = f"{cell.model}, {cell.params}"
    png = _mosaic(images, columns, f"{what} {title}{seed}", title + ("" if _common_seed(runs) else seed))
    return replace(png, starts_row=run is next(other for other in runs if other[0].params == cell.params))


def _mosaic(images: Images, columns: int, alt: str, title: str) -> Png:
    """Images (n, C, H, W), C = 1 or 3, in their own pixels and transparent between them."""
    n, _, h, w = images.shape
    opaque = np.full((n, 1, h, w), 255, np.uint8)
    rgba = np.concatenate([np.broadcast_to(images, (n, 3, h, w)), opaque], axis=1)
    image = Pillow.fromarray(style.mosaic(rgba, columns, gap=1, fill=0)[:-1])
    return Png(_uri(image), *image.size, alt, "mosaic", title)


def _plot(draw: Callable[[float], Figure], alt: str, caption: str) -> PageFigure:
    """What ``draw`` makes for the width of a page, in inches, and for that of a phone where that is another figure."""
    wide, narrow = draw(_PAGE), draw(_PHONE)
    image = _rendered(wide)
    small = _uri(_rendered(narrow)) if narrow.get_figwidth() < wide.get_figwidth() else ""
    return PageFigure([Png(_uri(image), *image.size, alt, "plot", narrow=small)], caption)


def _rendered(figure: Figure) -> Pillow.Image:
    """The figure in 256 colours at most: about a third of a full-colour one's bytes."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a box is drawn
        canvas.draw()
    image = Pillow.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    return image.quantize(256, method=Pillow.Quantize.MEDIANCUT)


def _uri(image: Pillow.Image) -> str:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
