"""Figures as parts of the page: PNG data, a caption that says what is drawn, a text for who cannot see it."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image as Pillow

from vae_sweep.comparison.evidence import Evidence, Images
from vae_sweep.comparison.rows import Row
from vae_sweep.comparison.statistics import Contrast
from vae_sweep.metrics.losses import unit
from vae_sweep.report import presentation as show
from vae_sweep.report import style, sweep_figures
from vae_sweep.report.presentation import Cell, number

_PIXELS = 700_000  # of all mosaics of a kind together: about 2 MB of a page
_SAMPLES = "The first samples from the prior of each cell's lowest seed, not selected."
_INTERPOLATIONS = (
    "Each row interpolates between two draws from the prior, which are its ends. Runs: the lowest seed of each cell."
)


@dataclass(frozen=True)
class Png:
    """An image as a data URI."""

    src: str
    width: int  # CSS pixels
    height: int
    alt: str
    kind: str  # CSS classes
    title: str = ""  # below an image of several


@dataclass(frozen=True)
class PageFigure:
    """One plot, or mosaics in `columns`: a line for each set, its models beside each other."""

    images: list[Png]
    caption: str
    columns: int = 0


def of_contrast(contrast: Contrast) -> PageFigure:
    """All pairs of one contrast: points, means, intervals, margin."""
    digits = contrast.metric.digits
    sets = "; ".join(f"{s.params} {number(s.mean, digits, True)}" for s in contrast.sets)
    alt = (
        f"Paired differences {contrast.a} minus {contrast.b} in {show.unit(contrast.metric)}: mean "
        f"{number(contrast.mean, digits, True)} {show.interval(contrast, digits)} of {contrast.n} pairs; by set: {sets}"
    )
    caption = (
        "Points: pairs with the same set and seed. Diamonds and bars: means with 95 % intervals. Line: no difference."
    )
    if contrast.margin > 0:
        caption += f" Band: differences under {contrast.margin:.3g}, which do not matter."
    return _plot(sweep_figures.paired_differences(contrast), alt, caption, "plot small")


def of_dataset(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Curves, every seed's points, spectra, rate-distortion, samples, interpolations: those that have data."""
    rows = [row for row in evidence.rows if row.dataset == dataset]
    return [
        *_validation_curves(evidence, rows),
        *_seed_points(evidence, dataset),
        *_spectra(evidence, rows, dataset),
        *_rate_distortion(evidence, rows, dataset),
        *_mosaics(evidence, dataset),
    ]


def validation_curves(rows: Sequence[Row], histories: sweep_figures.Curves, models: Sequence[str] = ()) -> Figure:
    """Validation loss of runs, and of the closed-form linear VAE beside them."""
    cells = _cells(rows)
    linear = {cells[row.name][1]: row.reference.val_loss for row in rows if row.reference}
    return sweep_figures.validation_bands(histories, cells, linear, models, _unit(rows))


def _validation_curves(evidence: Evidence, rows: Sequence[Row]) -> list[PageFigure]:
    names = {row.name for row in rows}
    histories = {name: curve for name, curve in evidence.histories.items() if name in names and len(curve[0])}
    if not histories:
        return []
    figure = validation_curves(rows, histories, show.models(evidence))
    models = " and ".join(dict.fromkeys(row.model for row in rows))
    caption = (
        "Validation loss against training images seen. Line and band: mean and range over seeds, as far as every "
        "seed trained. Thin lines: single seeds. Black: the closed-form linear VAE on the same images."
    )
    return [_plot(figure, f"Curves of the validation loss of {models}, one panel for each set", caption)]


def _seed_points(evidence: Evidence, dataset: str) -> list[PageFigure]:
    found = []
    for metric in show.main_columns(evidence):
        groups = [g for g in evidence.groups.get(metric.key, ()) if g.dataset == dataset]
        if groups:
            known = show.references(evidence, dataset)
            linear = {name: values[metric.key] for name, values in known if metric.key in values}
            figure = sweep_figures.seed_points(groups, metric, linear, show.models(evidence))
            said = [f"{g.model} {g.params}: {', '.join(number(v, metric.digits) for v in g.values)}" for g in groups]
            caption = (
                f"{metric.label}: every seed, and the mean with its 95 % t-interval. Black: closed-form linear VAE."
            )
            found.append(_plot(figure, f"{metric.label} of every seed. {'; '.join(said)}", caption))
    return found


def _spectra(evidence: Evidence, rows: Sequence[Row], dataset: str) -> list[PageFigure]:
    names = {row.name for row in rows}
    spectra = {name: values for name, values in evidence.spectra.items() if name in names and len(values)}
    if not spectra:
        return []
    known = evidence.linear_spectra.get(dataset, {})
    linear = max(known.values(), key=len) if known else None  # equal but for their zeros: one line for all sizes
    figure = sweep_figures.kl_spectra(spectra, linear, cells=_cells(rows), models=show.models(evidence))
    caption = (
        "KL of each latent, sorted within each run: mean and range over seeds of each rank. The axis is logarithmic."
    )
    caption += " Black: closed-form linear VAE." if known else ""
    used = "; ".join(f"{name} {int((np.asarray(values) > 0.01).sum())}" for name, values in spectra.items())
    return [_plot(figure, f"KL per latent. Latents above 0.01 nats: {used}", caption)]


def _rate_distortion(evidence: Evidence, rows: Sequence[Row], dataset: str) -> list[PageFigure]:
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    marks: dict[str, tuple[float, float]] = {}
    betas = set()
    for row in rows:
        kl, recon = row.metrics.get("test/kl"), row.metrics.get("test/recon")
        if row.status != "FINISHED" or kl is None or recon is None:
            continue
        points.setdefault((row.model, show.cell_of(row).params), []).append((kl, recon))
        betas.add(1.0 if row.beta is None else row.beta)
        if row.reference:
            marks[f"linear VAE, beta = {row.reference.beta:g}"] = (row.reference.test_kl, row.reference.test_recon)
    if not points:
        return []
    curve = evidence.linear_curves.get(dataset)
    beta = betas.pop() if len(betas) == 1 else 1.0
    figure = sweep_figures.rate_distortion(points, curve, marks, show.models(evidence), beta, _unit(rows))
    means = {" ".join(cell): np.mean(pairs, axis=0) for cell, pairs in points.items()}
    alt = "; ".join(f"{cell}: kl {kl:.4g}, recon {recon:.4g}" for cell, (kl, recon) in means.items())
    caption = "Rate and distortion on test images, one point for each run."
    if curve:
        caption += " A network above the dashed curve reconstructs worse than a linear VAE with the same KL."
    return [_plot(figure, f"Means of recon and kl: {alt}", caption)]


def _mosaics(evidence: Evidence, dataset: str) -> list[PageFigure]:
    """Samples and interpolations of each cell's lowest seed, side by side."""
    found = []
    for given, what, caption in (
        (evidence.samples, "samples from the prior", _SAMPLES),
        (evidence.interpolations, "interpolations between two draws", _INTERPOLATIONS),
    ):
        runs = _lowest_seeds(evidence, dataset, given)
        if runs:
            most = _PIXELS // sum(math.prod(images.shape[-2:]) for *_, images in runs)
            mosaics = [_mosaic(cell, row, images, most, what) for cell, row, images in runs]
            columns = min(max(len({cell.model for cell, *_ in runs}), 2), 4)
            found.append(PageFigure(mosaics, caption, columns))
    return found


def _cells(rows: Sequence[Row]) -> dict[str, tuple[str, str]]:
    """Run -> model, and the set with what else tells the panels apart."""
    data = len({row.dataset for row in rows}) > 1
    return {row.name: (row.model, f"{row.dataset * data} {show.cell_of(row).params}".strip()) for row in rows}


def _unit(rows: Sequence[Row]) -> str:
    return unit({row.reduction for row in rows if row.reduction})


def _lowest_seeds(evidence: Evidence, dataset: str, given: Mapping[str, Images]) -> list[tuple[Cell, Row, Images]]:
    """Each cell with its run of the lowest seed that has images, and those."""
    found = []
    for cell, rows in show.cells(evidence).items():
        having = [row for row in show.by_seed(rows) if len(given.get(row.name, ()))]
        if cell.dataset == dataset and having:
            found.append((cell, having[0], given[having[0].name]))
    return found


def _mosaic(cell: Cell, row: Row, images: Images, most: int, what: str) -> Png:
    """About `most` images at most, in their own pixels, transparent between them.

    `images`: (n, C, H, W) are shown eight in a row, (rows, steps, C, H, W) row by row; C is 1 or 3.
    """
    title = f"{cell.model}, {cell.params}, seed {'unknown' if row.seed is None else row.seed}"
    columns = 8 if images.ndim == 4 else images.shape[1]
    if images.ndim == 4:
        images = images[: max(4, min(32, most))]
    else:
        images = images[: max(1, min(4, most // columns))].reshape(-1, *images.shape[2:])
    n, _, h, w = images.shape
    opaque = np.full((n, 1, h, w), 255, np.uint8)
    rgba = np.concatenate([np.broadcast_to(images, (n, 3, h, w)), opaque], axis=1)
    image = Pillow.fromarray(style.mosaic(rgba, columns, gap=1, fill=0)[:-1])
    return Png(_uri(image), *image.size, f"{what} of {title}", "mosaic", title)


def _plot(figure: Figure, alt: str, caption: str, kind: str = "plot") -> PageFigure:
    """The figure as an image of 256 colours at most, about a third of a full-colour one's bytes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a box is drawn
        figure.savefig(out, format="png")
    image = Pillow.open(out).convert("RGB").quantize(256, method=Pillow.Quantize.MEDIANCUT)
    scale = figure.dpi / 100  # a figure's inch is 100 CSS pixels
    png = Png(_uri(image), round(image.width / scale), round(image.height / scale), alt, kind)
    return PageFigure([png], caption)


def _uri(image: Pillow.Image) -> str:
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
