"""The tables of a report: texts in rows. A column that says the same of every row, or nothing, is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from vae_sweep.comparison.contrasts import Contrast, Group, SetDifference
from vae_sweep.comparison.convergence import CONVERGED
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Row
from vae_sweep.metrics.catalogue import BITS_PER_DIM, Metric
from vae_sweep.report import presentation as show
from vae_sweep.report.presentation import number, share

Lines = tuple[str, ...]  # of a cell: its text, then smaller lines below it
_EMPTY: Lines = ("–",)
_WIDTH = 5  # metrics side by side


class TableRow(NamedTuple):
    """One row; its first cell, the heading, spans ``span`` columns."""

    cells: Sequence[Lines]
    kind: str = ""  # CSS class
    span: int = 1


@dataclass(frozen=True)
class Table:
    """A table: its name for who cannot see it, its heads, groups of rows with a title each ("" has none)."""

    name: str
    heads: Sequence[Lines]
    groups: Sequence[tuple[Lines, Sequence[TableRow]]]
    caption: str = ""
    words: int = 1  # first columns, which hold words

    def without_empty_columns(self) -> Table:
        """Return it without the columns that say nothing in any row."""
        rows = [row for _, rows in self.groups for row in rows]
        kept = [
            i for i in range(len(self.heads)) if i < self.words or any(row.cells[i] not in ((), _EMPTY) for row in rows)
        ]
        groups = [
            (title, [row._replace(cells=[row.cells[i] for i in kept]) for row in rows]) for title, rows in self.groups
        ]
        return replace(self, heads=[self.heads[i] for i in kept], groups=groups)


def _text(value: float | str | None, spec: str = "") -> str:
    return "–" if value is None or value == "" else format(value, spec)


RUN_FACTS: dict[str, Callable[[Row], str]] = {  # heading -> what it says of a run
    "Status": lambda row: f"{row.status}: {row.reason}" if row.reason else row.status,
    "Data": lambda row: row.dataset,
    "Model": lambda row: row.model,
    "Set": lambda row: show.cell_of(row).params,
    "Seed": lambda row: _text(row.seed),
    "Epochs": lambda row: _text(row.epochs),
    "Best epoch": lambda row: _text(row.best_epoch),
    "Training": lambda row: show.training([row]),
    "Validation loss": lambda row: number(row.val_loss, 4 if row.reduction == "mean" else 2),
    "Wall time (s)": lambda row: number(row.wall_time_s, 0),
    "Run": lambda row: _text(row.run_id),
    "Trained in": lambda row: row.trained_in or "this sweep",
}
CELL_FACTS: dict[Lines, Callable[[Sequence[Row]], str]] = {
    ("Seeds", "finished runs"): show.seeds,
    ("Training", "how it ended"): show.training,
    ("Epochs", "mean (range)"): show.epochs,
    ("Parameters",): show.parameters,
}


def main(evidence: Evidence, dataset: str) -> Table:
    """The primary metrics of a dataset's cells, and what is known of these."""
    cells = {cell: rows for cell, rows in show.cells(evidence).items() if cell.dataset == dataset}
    facts = {head: [(fact(rows),) for rows in cells.values()] for head, fact in CELL_FACTS.items()}
    varying = {head: texts for head, texts in facts.items() if len(set(texts)) > 1}
    states = {row.training_state for rows in cells.values() for row in rows}
    if not states - {None, CONVERGED}:
        varying.pop(("Training", "how it ended"), None)
    same = [("Epochs", "mean (range)"), ("Parameters",)]
    bits = [metric for metric in evidence.metrics if metric.key == BITS_PER_DIM]  # they compare across losses
    table = _of_cells(evidence, [dataset], [*show.main_columns(evidence), *bits], varying)
    said = _said({head[0]: facts[head] for head in same if head not in varying}, "Every cell")
    own = replace(evidence, rows=tuple(row for row in evidence.rows if row.dataset == dataset), groups={})
    sets = "; ".join(show.hyperparameters(own))
    return replace(table, caption=" ".join(filter(None, (table.caption, said, f"{sets}." if sets else ""))))


def further(evidence: Evidence) -> list[Table]:
    """The metrics that the main table does not show: at most five of one topic in a table, partners side by side."""
    found = []
    for metrics in _topics(evidence):
        table = _of_cells(evidence, show.datasets(evidence), metrics, {})
        found.append(replace(table, caption=f"Descriptive. {table.caption}{_loose(evidence, metrics)}"))
    return found


def differences(contrasts: Sequence[Contrast], known: Sequence[Metric]) -> Table:
    """For each contrast a row for every set, then one over all pairs with its tests; primary ones say the verdict."""
    heads = ["Set", "Pairs", "Mean difference", "SD", "95 % interval", "Bootstrap"]
    heads += ["p", "Holm p", "Smallest p", "d_z", "P(b better)"]
    groups = []
    for c in contrasts:
        digits = c.metric.digits
        tests = [
            *(show.interval(c, digits, "bootstrap_"), share(c.p), share(c.p_holm), share(c.p_least)),
            *(number(c.d_z, 2), f"{share(c.b_better)} {show.interval(c, 2, 'b_better_')}".rstrip()),
        ]
        rows = [_difference(s.params or "–", len(s.values), s, digits, [""] * len(tests)) for s in c.sets]
        rows.append(_difference("all sets", c.n, c, digits, tests)._replace(kind="overall"))
        said = show.unit(c.metric)
        if c.metric.primary:
            said += f"; margin ±{c.margin:.3g}; verdict on {c.b}: {c.verdict}"
        title = f"{show.label(c.metric, known)}: {c.a} − {c.b} on {c.dataset}"
        groups.append(((title, said), rows))
    return Table("paired differences", [(head,) for head in heads], groups).without_empty_columns()


def runs(evidence: Evidence) -> list[Table]:
    """Every run, whatever became of it: what is known of it, reasons of failures in full, then every metric."""
    ordered = [row for rows in show.cells(evidence).values() for row in show.by_seed(rows)]
    facts = {head: [(fact(row),) for row in ordered] for head, fact in RUN_FACTS.items()}
    varying = {head: texts for head, texts in facts.items() if len(set(texts)) > 1}
    rows = [TableRow([(row.name,), *found]) for row, *found in zip(ordered, *varying.values(), strict=True)]
    same = _said({head: texts for head, texts in facts.items() if head not in varying}, "Every run")
    heads: list[Lines] = [("Name",), *((head,) for head in varying)]
    tables = [Table("all runs", heads, [(("",), rows)], same, len(heads))]
    for metrics in [show.main_columns(evidence), *_topics(evidence)]:
        groups = []
        for dataset in show.datasets(evidence):
            of_runs = [(row.name, row.metrics, "") for row in ordered if row.dataset == dataset]
            of_linear = [(name, values, "linear") for name, values in show.references(evidence, dataset, metrics)]
            rows = [
                TableRow([(name,), *_numbers(values, metrics)], kind) for name, values, kind in [*of_runs, *of_linear]
            ]
            groups.append((_title(evidence, dataset), rows))
        heads = [("Name",), *(_head(metric, evidence) for metric in metrics)]
        tables.append(Table("all runs", heads, groups).without_empty_columns())
    return tables


def _of_cells(
    evidence: Evidence, datasets: Sequence[str], metrics: Sequence[Metric], facts: Mapping[Lines, Sequence[Lines]]
) -> Table:
    """A row for each cell of the datasets with ``facts`` (one for each cell) and a summary of each metric."""
    groups, cells = [], [(cell, rows) for cell, rows in show.cells(evidence).items() if cell.dataset in datasets]
    for dataset in datasets:
        rows = []
        for (cell, of_cell), *found in zip(cells, *facts.values(), strict=True):
            if cell.dataset == dataset:
                linear = show.reference_of(evidence, of_cell, dataset)
                summaries = [_summary(m, show.group(evidence, m.key, cell), of_cell, linear) for m in metrics]
                rows.append(TableRow([(cell.params or "–",), (cell.model,), *found, *summaries]))
        blank: list[Lines] = [(), *([()] * len(facts))]
        for name, values in show.references(evidence, dataset, metrics):
            rows.append(TableRow([(name,), *blank, *_numbers(values, metrics)], "linear", 2))
        groups.append((_title(evidence, dataset) if len(datasets) > 1 else ("",), rows))
    name = ", ".join(show.label(metric, evidence.metrics) for metric in metrics) or "runs"
    heads = [("Set",), ("Model",), *facts, *(_head(metric, evidence) for metric in metrics)]
    spread = any(group.sd is not None for metric in metrics for group in evidence.groups.get(metric.key, ()))
    caption = "Mean ± standard deviation between seeds; below it, the 95 % t-interval of the mean." if spread else ""
    return Table(name, heads, groups, caption, 2).without_empty_columns()


def _summary(metric: Metric, group: Group | None, rows: Sequence[Row], linear: Mapping[str, float]) -> Lines:
    """Mean and spread of one cell's metric, its interval, its distance to the closed-form linear VAE."""
    if not group or not group.values:
        return _EMPTY
    spread = "" if group.sd is None else f" ± {number(group.sd, metric.digits)}"
    n, finished = len(group.values), sum(row.status == "FINISHED" for row in rows)
    lines = [
        number(group.mean, metric.digits) + spread,
        show.interval(group, metric.digits),
        f"{n} of {finished} runs" if finished and n != finished else "",
    ]
    if metric.primary and metric.key in linear:
        lines.append(f"{number(group.mean - linear[metric.key], metric.digits, signed=True)} to linear")
    return tuple(filter(None, lines))


def _difference(name: str, n: int, found: Contrast | SetDifference, digits: int, tests: Sequence[str]) -> TableRow:
    texts = [name, str(n), number(found.mean, digits, signed=True), number(found.sd, digits)]
    return TableRow([(text,) if text else () for text in (*texts, show.interval(found, digits), *tests)])


def _numbers(values: Mapping[str, float], metrics: Sequence[Metric]) -> list[Lines]:
    return [(number(values.get(metric.key), metric.digits),) for metric in metrics]


def _title(evidence: Evidence, dataset: str) -> Lines:
    """What stands above the rows of a dataset: its name, where there are several."""
    return (dataset or "unknown dataset",) if len(show.datasets(evidence)) > 1 else ("",)


def _head(metric: Metric, evidence: Evidence) -> Lines:
    missing = show.missing_partner(metric, evidence.metrics)
    partner = (f"its partner {missing} was not recorded",) if missing else ()
    return (show.label(metric, evidence.metrics), show.unit(metric), *partner)


def _said(same: Mapping[str, Sequence[Lines]], of: str) -> str:
    """What all rows have in common, in place of columns."""
    known = {head: texts[0][0] for head, texts in same.items() if texts and texts[0] != _EMPTY}
    return f"{of}: {', '.join(f'{head.lower()} {text}' for head, text in known.items())}." if known else ""


def _loose(evidence: Evidence, metrics: Iterable[Metric]) -> str:
    """Why bits/dim is above 8, where it is."""
    key = "test/bits_per_dim"
    if all(metric.key != key for metric in metrics) or all(g.mean <= 8 for g in evidence.groups.get(key, ())):
        return ""
    return (
        " bits/dim above 8 is possible, though 8 bits store the pixel itself: the decoder's variance is fixed at 1/2, "
        "far above the data's own noise."
    )


def _topics(evidence: Evidence) -> list[list[Metric]]:
    """The metrics beside the main ones, by table."""
    shown = {metric.key for metric in show.main_columns(evidence)}
    found: list[list[Metric]] = []
    for part in _with_partners(show.columns((m for m in evidence.metrics if m.key not in shown), evidence.metrics)):
        same_topic = found and found[-1][0].key.split("/")[0] == part[0].key.split("/")[0]
        if same_topic and len(found[-1]) + len(part) <= _WIDTH:
            found[-1] += part
        else:
            found.append(part)
    return found


def _with_partners(metrics: Iterable[Metric]) -> list[list[Metric]]:
    """Each metric alone, or together with its partner after it."""
    found: list[list[Metric]] = []
    for metric in metrics:
        if found and show.partner(found[-1][-1].key) == metric.key:
            found[-1].append(metric)
        else:
            found.append([metric])
    return found
