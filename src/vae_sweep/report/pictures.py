"""The figures of a report as HTML, each with a caption that says what is drawn and a text for who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vae_sweep.comparison.evidence import Evidence, Images
from vae_sweep.comparison.rows import REFERENCE, Row
from vae_sweep.comparison.statistics import Contrast, Group
from vae_sweep.metrics.losses import unit
from vae_sweep.report import presentation as show
from vae_sweep.report import sweep_figures as draw
from vae_sweep.report.markup import Html, mosaic, plot, tag
from vae_sweep.report.presentation import Cell, number

_PIXELS = 700_000  # of all mosaics of a kind together: about 2 MB of a page


def differences(contrast: Contrast) -> Html:
    """All pairs of one contrast: points, means, intervals, margin."""
    digits = contrast.metric.digits
    sets = "; ".join(f"{s.params} {number(s.mean, digits, True)}" for s in contrast.sets)
    alt = (
        f"Paired differences {contrast.a} minus {contrast.b} in {show.unit(contrast.metric)}: mean "
        f"{number(contrast.mean, digits, True)} {show.interval(contrast.low, contrast.high, digits)} of {contrast.n} "
        f"pairs; by set: {sets}"
    )
    said = "Points: pairs of one set and seed. Diamonds and bars: means with 95 % intervals. Line: no difference."
    if contrast.margin > 0:
        said += f" Band: differences under {contrast.margin:.3g}, which do not matter."
    return _figure(plot(draw.paired_differences([contrast]), alt, small=True), said)


def plots(evidence: Evidence, dataset: str) -> list[Html]:
    """Curves, every seed's points, spectra and rate-distortion of one dataset; those without numbers are left out."""
    rows = {row.name: row for row in evidence.rows if row.dataset == dataset}
    cells = {name: (row.model, show.cell_of(row).params) for name, row in rows.items()}
    models = show.models(evidence)
    named = " and ".join(dict.fromkeys(model for model, _ in cells.values()))
    measured = unit({row.reduction for row in rows.values() if row.reduction})
    found = []
    histories = {name: curve for name, curve in evidence.histories.items() if name in rows and len(curve[0])}
    if histories:
        figure = draw.validation_bands(histories, cells, _val_lines(list(rows.values())), models, measured)
        said = (
            "Validation loss against training images seen. Line and band: mean and range over seeds, as far as every "
            "seed trained; thin lines: single seeds. Black: the linear VAE on the same images."
        )
        found.append(_figure(plot(figure, f"Curves of the validation loss of {named}, one panel for each set"), said))
    references = show.references(evidence, dataset)
    for metric in show.main_columns(evidence):
        groups = [g for g in evidence.groups.get(metric.key, ()) if g.dataset == dataset]
        if groups:
            levels = {name: values[metric.key] for name, values in references if metric.key in values}
            figure = draw.seed_points(groups, metric, levels, models)
            said = f"{metric.label}: every seed, and beside it the mean with its 95 % t-interval. Black: linear VAE."
            found.append(_figure(plot(figure, f"{metric.label} of every seed. {_values(groups, metric.digits)}"), said))
    spectra = {name: values for name, values in evidence.spectra.items() if name in rows and len(values)}
    if spectra:
        linear = evidence.linear_spectra.get(dataset, {})  # equal but for their zeros: one line for all sizes
        line = max(linear.values(), key=len) if linear else None
        figure = draw.kl_spectra(spectra, line, cells=cells, models=models)
        said = "KL of each latent, sorted in each run: mean and range over seeds of each rank; logarithmic axis."
        said += " Black: linear VAE." if linear else ""
        used = "; ".join(f"{name} {int((np.asarray(v) > 0.01).sum())}" for name, v in spectra.items())
        found.append(_figure(plot(figure, f"KL per latent. Latents above 0.01 nats: {used}"), said))
    return [*found, *_rate_distortion(evidence, dataset, models, measured)]


def samples(evidence: Evidence, dataset: str) -> Html | None:
    """Samples of each cell side by side, of its lowest seed; None where no run has any."""
    chosen = _lowest_seeds(evidence, dataset, evidence.samples)
    shown = max(4, min(32, _PIXELS // max(sum(_size(images[0]) for *_, images in chosen), 1)))
    parts = [_picture(cell, row, images[:shown], 8, "samples from the prior") for cell, row, images in chosen]
    said = "Samples from the prior, the first of each cell's lowest seed: not chosen, not the best."
    return _side_by_side(parts, chosen, said)


def interpolations(evidence: Evidence, dataset: str) -> Html | None:
    """Walks between two draws from the prior, of the same runs; None where no run has any."""
    chosen = _lowest_seeds(evidence, dataset, evidence.interpolations)
    parts = []
    for cell, row, grid in chosen:
        lines = max(1, min(4, _PIXELS // (sum(_size(g[0, 0]) for *_, g in chosen) * grid.shape[1])))
        flat = grid[:lines].reshape(-1, *grid.shape[2:])
        parts.append(_picture(cell, row, flat, grid.shape[1], "interpolations between two draws"))
    said = "Each row walks between two draws from the prior, which stand at its ends; lowest seed of each cell."
    return _side_by_side(parts, chosen, said)


def nameless(evidence: Evidence) -> list[str]:
    """Names under which something was given for a run that no row has."""
    known = {row.name for row in evidence.rows}
    given = [*evidence.histories, *evidence.samples, *evidence.interpolations, *evidence.spectra]
    return [name for name in dict.fromkeys(given) if name not in known]


def _rate_distortion(evidence: Evidence, dataset: str, models: Sequence[str], measured: str) -> list[Html]:
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    marks: dict[str, tuple[float, float]] = {}
    betas = set()
    for row in evidence.rows:
        kl, recon = show.value(row, "test/kl"), show.value(row, "test/recon")
        if row.dataset != dataset or row.status != "FINISHED" or kl is None or recon is None:
            continue
        points.setdefault((row.model, show.cell_of(row).params), []).append((kl, recon))
        betas.add(1.0 if row.beta is None else row.beta)
        if row.reference:
            marks[f"linear VAE, beta = {row.reference.beta:g}"] = (row.reference.test_kl, row.reference.test_recon)
    if not points:
        return []
    curve = evidence.linear_curves.get(dataset)
    figure = draw.rate_distortion(points, curve, marks, models, betas.pop() if len(betas) == 1 else 1.0, measured)
    mean = {key: np.mean(pairs, axis=0) for key, pairs in points.items()}
    alt = "; ".join(
        f"{model} {params}: kl {kl:.4g}, recon {recon:.4g}" for (model, params), (kl, recon) in mean.items()
    )
    said = "Rate and distortion on test images, one point for each run. A network above the dashed curve reconstructs "
    said += "worse than a linear VAE that spends as much KL." if curve else "worse than the linear VAE at the same KL."
    return [_figure(plot(figure, f"Means of recon and kl: {alt}"), said if curve else said.split(". A ")[0] + ".")]


def _val_lines(rows: Sequence[Row]) -> dict[str, float]:
    lines: dict[tuple[float, str], float] = {}
    for row in rows:
        if row.reference:
            lines[row.reference.beta, row.reference.reduction] = row.reference.val_loss
    several = len(lines) > 1
    return {REFERENCE + (f", beta {b:g}, {r}" if several else ""): level for (b, r), level in lines.items()}


def _lowest_seeds(evidence: Evidence, dataset: str, given: Mapping[str, Images]) -> list[tuple[Cell, Row, Images]]:
    found = []
    for cell, rows in show.cells(evidence).items():
        having = [row for row in rows if len(given.get(row.name, ()))]
        if cell.dataset == dataset and having:
            row = min(having, key=lambda r: (r.seed is None, r.seed or 0))
            found.append((cell, row, given[row.name]))
    return found


def _side_by_side(parts: Sequence[Html], chosen: Sequence[tuple[Cell, Row, Images]], said: str) -> Html | None:
    """One line for each set, its models beside each other."""
    columns = min(max(len({cell.model for cell, *_ in chosen}), 2), 4)
    grid = tag("div", *parts, class_="pictures", style=f"--columns: {columns}")
    return _figure(grid, said) if parts else None


def _picture(cell: Cell, row: Row, images: Images, columns: int, what: str) -> Html:
    name = f"{cell.model}, {cell.params}, seed {'unknown' if row.seed is None else row.seed}"
    return tag("figure", mosaic(images, columns, f"{what} of {name}"), tag("figcaption", name))


def _figure(inner: Html, caption: str) -> Html:
    return tag("figure", tag("div", inner, class_="scroll", tabindex=0, role="group"), tag("figcaption", caption))


def _values(groups: Sequence[Group], digits: int) -> str:
    return "; ".join(f"{g.model} {g.params}: {', '.join(number(v, digits) for v in g.values)}" for g in groups)


def _size(image: NDArray[np.uint8]) -> int:
    return int(image.shape[-1] * image.shape[-2])
