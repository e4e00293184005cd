"""What the tables of a report hold, whatever they are written in: cells in order, columns, numbers as text."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vae_sweep.comparison.convergence import CONVERGED, remedy
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import REFERENCE, Row
from vae_sweep.comparison.statistics import Group
from vae_sweep.metrics.catalogue import Metric

MINUS = "\u2212"
_PARTNERS = {"precision": "recall", "recall": "precision", "density": "coverage", "coverage": "density"}
_PAIRED = re.compile(r"(?<![a-z])(precision|recall|density|coverage)(?![a-z])")
_FIELDS = [f"{split}_{term}" for split in ("train", "val", "test") for term in ("loss", "recon", "kl")]


class Cell(NamedTuple):
    """One line of a table: what a group of seeds shares."""

    dataset: str
    params: str  # the set, and what else is swept
    model: str


def cells(evidence: Evidence) -> dict[Cell, list[Row]]:
    """Every cell with its runs, also those that did not finish: datasets and models as they come, sets sorted."""
    found: dict[Cell, list[Row]] = {}
    for row in evidence.rows:
        found.setdefault(cell_of(row), []).append(row)
    for groups in evidence.groups.values():
        for group in groups:
            found.setdefault(Cell(group.dataset, group.params, group.model), [])
    first = {part: i for i, part in reversed(list(enumerate(part for cell in found for part in cell[::2])))}

    def order(item: tuple[Cell, list[Row]]) -> tuple[object, ...]:
        numbers = [
            int(part) if part.isdecimal() and part.isascii() else part for part in re.split(r"([0-9]+)", item[0].params)
        ]
        return first[item[0].dataset], numbers, first[item[0].model]  # p2 before p10

    return dict(sorted(found.items(), key=order))


def cell_of(row: Row) -> Cell:
    return Cell(row.dataset, f"{row.params} {row.variant}".strip(), row.model)


def datasets(evidence: Evidence) -> list[str]:
    """Every dataset that a run, a contrast or a reference names, in order."""
    known = [cell.dataset for cell in cells(evidence)]
    return list(dict.fromkeys([*known, *(c.dataset for c in evidence.contrasts), *evidence.references]))


def models(evidence: Evidence) -> list[str]:
    return list(dict.fromkeys(cell.model for cell in cells(evidence)))


def partner(key: str) -> str | None:
    """The key that must stand beside this one: recall beside precision, coverage beside density."""
    found = _PAIRED.search(key)
    return key[: found.start()] + _PARTNERS[found[1]] + key[found.end() :] if found else None


def columns(chosen: Iterable[Metric], known: Iterable[Metric]) -> list[Metric]:
    """The chosen metrics, each with its partner beside it, precision and density first."""
    by_key = {metric.key: metric for metric in known}
    ordered: dict[str, Metric] = {}
    for metric in chosen:
        other = partner(metric.key)
        pair = [metric.key] if other is None else sorted((metric.key, other), key=_second)
        ordered |= {key: by_key.get(key, metric) for key in pair if key in by_key or key == metric.key}
    return list(ordered.values())


def main_columns(evidence: Evidence) -> list[Metric]:
    """The primary metrics, or the first two where none is primary, with their partners."""
    primary = [metric for metric in evidence.metrics if metric.primary]
    return columns(primary or evidence.metrics[:2], evidence.metrics)


def group(evidence: Evidence, key: str, cell: Cell) -> Group | None:
    for found in evidence.groups.get(key, ()):
        if (found.dataset, found.params, found.model) == cell:
            return found
    return None


def value(row: Row, key: str) -> float | None:
    """A run's value of a metric, None if it has none."""
    name = key.replace("/", "_")
    return row.metrics.get(key, getattr(row, name) if name in _FIELDS else None)


def references(evidence: Evidence, dataset: str) -> list[tuple[str, Mapping[str, float]]]:
    """Names and values of the closed-form linear VAEs; sizes that differ in nothing share one."""
    found: dict[tuple[str, tuple[tuple[str, float], ...]], list[str]] = {}
    for latents, values in evidence.references.get(dataset, {}).items():
        sizes, loss = _sizes(latents)
        found.setdefault((loss, tuple(sorted(values.items()))), []).extend(sizes)
    return [
        (
            ", ".join(part for part in (REFERENCE, f"{' or '.join(sizes)} latents" if sizes else "", loss) if part),
            dict(values),
        )
        for (loss, values), sizes in found.items()
    ]


def reference_of(evidence: Evidence, rows: Sequence[Row], dataset: str) -> Mapping[str, float]:
    """The reference of these runs' own number of latents and loss; empty where it is not known or not one."""
    wanted = {
        (str(row.latent_dim), f"beta {row.beta:g}, {row.reduction}" if row.beta is not None else "") for row in rows
    }
    for latents, values in evidence.references.get(dataset, {}).items():
        sizes, loss = _sizes(latents)
        if wanted and all(size in sizes and loss in ("", said) for size, said in wanted):
            return values
    return {}


def _sizes(latents: str) -> tuple[list[str], str]:
    """`128, 256, beta 4, sum` -> the numbers of latents, the loss."""
    parts = [part.strip() for part in latents.split(",")]
    sizes = [part for part in parts if part.isdecimal()]
    return sizes, ", ".join(part for part in parts if part and not part.isdecimal())


def number(value: float | None, digits: int, signed: bool = False) -> str:
    """The number with a true minus sign, a dash where it is unknown, the word where it is not finite."""
    if value is None:
        return "–"
    said = f"{value:{'+' if signed else ''}.{digits}f}" if math.isfinite(value) else str(float(value))
    said = said.lstrip("+-") if not said.strip("+-0.") and not signed else said  # no negative zero
    return said.replace("-", MINUS)


def share(value: float | None) -> str:
    """A p-value or a share with two digits that count, none of them lost to rounding."""
    if value is None or not math.isfinite(value):
        return number(value, 2)
    if value >= 0.0995 or value == 0:
        return f"{value:.2f}"
    return f"{value:.2g}" if value >= 1e-4 else f"{value:.1e}".replace("e-0", "e-")


def interval(low: float | None, high: float | None, digits: int) -> str:
    """[low, high], or nothing where there is none."""
    return "" if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def direction(metric: Metric) -> str:
    return f"{metric.better} is better" if metric.better else "no better direction"


def unit(metric: Metric) -> str:
    """Unit and direction, as they stand below a metric's name."""
    return ", ".join(part for part in (metric.unit, direction(metric)) if part)


def label(metric: Metric, known: Iterable[Metric]) -> str:
    """The metric's name, with its key where another has the same name."""
    twins = [other for other in known if other.label == metric.label]
    return metric.label if len(twins) < 2 else f"{metric.label} ({metric.key})"


def seeds(rows: Sequence[Row]) -> str:
    """How many of the cell's runs finished: `3`, or `2 of 3: 1 FAILED`."""
    done = sum(row.status == "FINISHED" for row in rows)
    if done == len(rows):
        return str(done)
    others = [row.status for row in rows if row.status != "FINISHED"]
    return f"{done} of {len(rows)}: " + ", ".join(f"{others.count(s)} {s}" for s in dict.fromkeys(others))


def epochs(rows: Sequence[Row]) -> str:
    """Mean and range of the epochs that finished runs trained."""
    found = [row.epochs for row in rows if row.status == "FINISHED" and row.epochs is not None]
    if not found:
        return "–"
    mean = f"{sum(found) / len(found):.1f}".removesuffix(".0")
    return mean if min(found) == max(found) else f"{mean} ({min(found)}–{max(found)})"


def training(rows: Sequence[Row]) -> str:
    """How the training of finished runs ended, and what helps: `2 converged; 1 collapsed: a smaller objective.beta`."""
    states = Counter(row.training_state for row in rows if row.status == "FINISHED" and row.training_state)
    said = [state if state == CONVERGED else f"{state}: {remedy(state)}" for state in states]
    counts = [f"{n} " if len(rows) > 1 else "" for n in states.values()]
    return "; ".join(map("".join, zip(counts, said, strict=True))) or "–"


def parameters(rows: Sequence[Row]) -> str:
    """Number of parameters, of every size that the cell's runs have."""
    return ", ".join(f"{n:,}" for n in sorted({r.n_parameters for r in rows if r.n_parameters is not None})) or "–"


def recipes(evidence: Evidence) -> list[str]:
    """What each hyperparameter set stands for: `p1: batch 64, learning rate 0.001, 128 latents`."""
    found: dict[str, set[str]] = {}
    for cell, rows in cells(evidence).items():
        for row in rows:
            parts = {
                "batch {}": row.batch_size,
                "learning rate {:g}": row.lr,
                "{}": row.schedule if row.schedule != "constant" else None,
                "{} latents": row.latent_dim,
                "beta {:g}": row.beta,
                "squared error averaged over values, not nats{}": "" if row.reduction == "mean" else None,
            }
            said = ", ".join(pattern.format(part) for pattern, part in parts.items() if part is not None)
            if said:
                found.setdefault(cell.params, set()).add(said)
    return [f"{params}: {' or '.join(sorted(said))}" for params, said in found.items()]


def _second(key: str) -> bool:
    found = _PAIRED.search(key)
    return bool(found) and found[1] in ("recall", "coverage")  # type: ignore[index]
