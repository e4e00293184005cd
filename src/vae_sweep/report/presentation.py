"""What a report shows, as a page or in LaTeX: cells in order, columns, numbers and facts as text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from vae_sweep.comparison.convergence import CONVERGED, remedy
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import REFERENCE, Row
from vae_sweep.comparison.statistics import Contrast, Group, SetDifference
from vae_sweep.metrics.catalogue import Metric

MINUS = "\u2212"
_PARTNERS = {"precision": "recall", "recall": "precision", "density": "coverage", "coverage": "density"}
_PAIRED = re.compile(r"(?<![a-z])(precision|recall|density|coverage)(?![a-z])")


class Cell(NamedTuple):
    """One line of a table: what a group of seeds shares."""

    dataset: str
    params: str  # the hyperparameter set, and what else is swept
    model: str


def cells(evidence: Evidence) -> dict[Cell, list[Row]]:
    """Every cell with its runs, finished or not: datasets and models in order of appearance, sets sorted."""
    found: dict[Cell, list[Row]] = {}
    for row in evidence.rows:
        found.setdefault(cell_of(row), []).append(row)
    for groups in evidence.groups.values():
        for group in groups:
            found.setdefault(Cell(group.dataset, group.params, group.model), [])
    names = list(dict.fromkeys(name for cell in found for name in (cell.dataset, cell.model)))

    def order(cell: Cell) -> tuple[object, ...]:
        parts = re.split(r"([0-9]+)", cell.params)
        natural = [int(part) if i % 2 else part for i, part in enumerate(parts)]  # p2 before p10
        return names.index(cell.dataset), natural, names.index(cell.model)

    return {cell: found[cell] for cell in sorted(found, key=order)}


def cell_of(row: Row) -> Cell:
    """The cell of a run."""
    return Cell(row.dataset, f"{row.params} {row.variant}".strip(), row.model)


def by_seed(rows: Iterable[Row]) -> list[Row]:
    """The runs in order of seed and name, an unknown seed last."""
    return sorted(rows, key=lambda row: (row.seed is None, row.seed or 0, row.name))


def datasets(evidence: Evidence) -> list[str]:
    """Every dataset that a run, a contrast or a reference names, in order."""
    known = [cell.dataset for cell in cells(evidence)]
    return list(dict.fromkeys([*known, *(c.dataset for c in evidence.contrasts), *evidence.references]))


def models(evidence: Evidence) -> list[str]:
    """Every model, in order of its first cell."""
    return list(dict.fromkeys(cell.model for cell in cells(evidence)))


def partner(key: str) -> str | None:
    """The key that must stand beside this one: recall beside precision, coverage beside density."""
    found = _PAIRED.search(key)
    return key[: found.start()] + _PARTNERS[found[1]] + key[found.end() :] if found else None


def missing_partner(metric: Metric, known: Iterable[Metric]) -> str | None:
    """The key of the metric's partner where that was not recorded."""
    key = partner(metric.key)
    return None if key in {other.key for other in known} else key


def columns(chosen: Iterable[Metric], known: Iterable[Metric]) -> list[Metric]:
    """The chosen metrics, each with its partner beside it, precision and density first."""
    by_key = {metric.key: metric for metric in known}
    ordered: dict[str, Metric] = {}
    for metric in chosen:
        pair = {metric.key: metric, partner(metric.key): None}
        for key in sorted(filter(None, pair), key=_is_second):
            if key in by_key or key == metric.key:
                ordered.setdefault(key, by_key.get(key, metric))
    return list(ordered.values())


def main_columns(evidence: Evidence) -> list[Metric]:
    """The primary metrics, or the first two where none is primary, with their partners."""
    primary = [metric for metric in evidence.metrics if metric.primary]
    return columns(primary or evidence.metrics[:2], evidence.metrics)


def group(evidence: Evidence, key: str, cell: Cell) -> Group | None:
    """The summary of a cell's metric; None where no run of the cell has it."""
    groups = evidence.groups.get(key, ())
    return next((g for g in groups if (g.dataset, g.params, g.model) == cell), None)


def references(evidence: Evidence, dataset: str, metrics: Iterable[Metric]) -> list[tuple[str, Mapping[str, float]]]:
    """Names and values of the closed-form linear VAEs; those with the same numbers in these metrics share a name."""
    metrics = list(metrics)
    found: dict[tuple[str, ...], tuple[list[str], Mapping[str, float]]] = {}
    for latents, values in evidence.references.get(dataset, {}).items():
        shown = tuple(number(values.get(metric.key), metric.digits) for metric in metrics)
        found.setdefault(shown, ([], values))[0].append(latents)
    return [(f"{REFERENCE}, {' or '.join(latents)} latents", values) for latents, values in found.values()]


def reference_of(evidence: Evidence, rows: Iterable[Row], dataset: str) -> Mapping[str, float]:
    """The values of the closed-form linear VAE with as many latents as these runs; empty where that is not one."""
    latents = {str(row.latent_dim) for row in rows}
    return evidence.references.get(dataset, {}).get(latents.pop(), {}) if len(latents) == 1 else {}


def level(evidence: Evidence, contrast: Contrast) -> float | None:
    """The mean of the contrast's metric over the runs of model a that are paired.

    None where one is not known, and of log-densities, which have no zero.
    """
    rows = [row for row in evidence.rows if row.dataset == contrast.dataset]
    if contrast.metric.key == "test/loss" and any(row.variance in ("optimal", "learned") for row in rows):
        return None
    values = {
        (group.params, seed): value
        for group in evidence.groups.get(contrast.metric.key, ())
        if (group.dataset, group.model) == (contrast.dataset, contrast.a)
        for seed, value in zip(group.seeds, group.values, strict=True)
    }
    paired = [values.get((found.params, seed)) for found in contrast.sets for seed in found.seeds]
    known = [value for value in paired if value is not None]
    return fmean(known) if len(known) == len(paired) else None


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """The number with a true minus sign; a dash where it is unknown, the word where it is not finite."""
    if value is None:
        return "–"
    text = f"{value:{'+' if signed else 'z'}.{digits}f}" if math.isfinite(value) else str(float(value))
    return text.replace("-", MINUS)


def share(value: float | None) -> str:
    """A p-value or a share with two significant digits, none of them lost to rounding."""
    if value is None or not math.isfinite(value):
        return number(value, 2)
    if value >= 0.0995 or value == 0:
        return f"{value:.2f}"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}".replace("e-0", "e-")


def interval(found: Contrast | Group | SetDifference, digits: int, kind: str = "") -> str:
    """`[low, high]` of the mean, or of what `kind` names, such as `bootstrap_`; "" where there is none."""
    low, high = getattr(found, f"{kind}low"), getattr(found, f"{kind}high")
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def unit(metric: Metric) -> str:
    """Unit and direction, as they stand below a metric's name."""
    direction = f"{metric.better} is better" if metric.better else "no better direction"
    return ", ".join(filter(None, (metric.unit, direction)))


def label(metric: Metric, known: Iterable[Metric]) -> str:
    """The metric's name, with its key where another has the same name."""
    shared = sum(other.label == metric.label for other in known) > 1
    return f"{metric.label} ({metric.key})" if shared else metric.label


def seeds(rows: Sequence[Row]) -> str:
    """How many of the cell's runs finished: `3`, or `2 of 3: 1 FAILED`."""
    others = Counter(row.status for row in rows if row.status != "FINISHED")
    done = str(len(rows) - others.total())
    return f"{done} of {len(rows)}: " + ", ".join(f"{n} {status}" for status, n in others.items()) if others else done


def epochs(rows: Iterable[Row]) -> str:
    """Mean and range of the epochs that finished runs trained."""
    found = [row.epochs for row in rows if row.status == "FINISHED" and row.epochs is not None]
    if not found:
        return "–"
    mean = f"{sum(found) / len(found):.1f}".removesuffix(".0")
    return mean if min(found) == max(found) else f"{mean} ({min(found)}–{max(found)})"


def training(rows: Sequence[Row]) -> str:
    """How the training of finished runs ended, and what helps: `2 converged; 1 collapsed: a smaller objective.beta`."""
    states = Counter(row.training_state for row in rows if row.status == "FINISHED" and row.training_state)
    texts = [
        (f"{n} " if len(rows) > 1 else "") + (state if state == CONVERGED else f"{state}: {remedy(state)}")
        for state, n in states.items()
    ]
    return "; ".join(texts) or "–"


def parameters(rows: Iterable[Row]) -> str:
    """Number of parameters, of every size that the cell's runs have."""
    return ", ".join(f"{n:,}" for n in sorted({r.n_parameters for r in rows if r.n_parameters is not None})) or "–"


def hyperparameters(evidence: Evidence) -> list[str]:
    """What each hyperparameter set stands for: `p1: batch 64, learning rate 0.001, 128 latents`."""
    found: dict[str, set[str]] = {}
    for row in evidence.rows:
        parts = {
            "batch {}": row.batch_size,
            "learning rate {:g}": row.lr,
            "{}": row.schedule if row.schedule != "constant" else None,
            "{} latents": row.latent_dim,
            "beta {:g}": row.beta,
            "decoder variance {}": row.variance if row.variance != "0.5" and row.reduction != "mean" else None,
            "squared error averaged over values, not nats{}": "" if row.reduction == "mean" else None,
        }
        known = ", ".join(pattern.format(value) for pattern, value in parts.items() if value is not None)
        if known:
            found.setdefault(cell_of(row).params, set()).add(known)
    order = {cell.params: None for cell in cells(evidence)}
    return [f"{params}: {' or '.join(sorted(found[params]))}" for params in order if params in found]


def _is_second(key: str) -> bool:
    found = _PAIRED.search(key)
    return bool(found) and found[1] in ("recall", "coverage")  # type: ignore[index]
