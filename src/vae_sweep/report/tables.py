"""The tables of a report as HTML. Every one with a column that the closed-form linear VAE has ends with its row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from vae_sweep.comparison.convergence import CONVERGED
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Row
from vae_sweep.comparison.statistics import Contrast
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import presentation as show
from vae_sweep.report.markup import Html, tag
from vae_sweep.report.presentation import Cell, number

LEVELS = "Mean ± standard deviation between seeds; below it the 95 % t-interval of the mean (none for one seed)"
_WIDTH = 5  # metrics side by side


def main_table(evidence: Evidence) -> Html:
    """One row for each cell: the primary metrics, epochs, parameters, seeds, and each dataset's linear references."""
    chosen = show.main_columns(evidence)
    more: list[tuple[str, str, Callable[[Sequence[Row]], str]]] = [
        ("Seeds", "finished runs", show.seeds),
        ("Epochs", "mean (range)", show.epochs),
        ("Parameters", "", show.parameters),
    ]
    if {row.training_state for row in evidence.rows} - {None, CONVERGED}:
        more.insert(1, ("Training", "how it ended", show.training))
    return _cells_table(evidence, chosen, more, f"{LEVELS}. {'; '.join(show.recipes(evidence))}")


def further_tables(evidence: Evidence) -> list[Html]:
    """All metrics that the main table does not show, few side by side; partners are never parted."""
    shown = {metric.key for metric in show.main_columns(evidence)}
    rest = show.columns((m for m in evidence.metrics if m.key not in shown), evidence.metrics)
    chunks: list[list[Metric]] = []
    for metric in rest:
        previous = chunks[-1][-1] if chunks else None
        together = previous is not None and show.partner(previous.key) == metric.key
        other_topic = previous is not None and previous.key.split("/")[0] != metric.key.split("/")[0]
        pairs_next = show.partner(metric.key) in {m.key for m in rest} and not together
        full = previous is not None and len(chunks[-1]) + pairs_next >= _WIDTH
        if previous is None or (not together and (other_topic or full)):
            chunks.append([])
        chunks[-1].append(metric)
    return [_cells_table(evidence, chunk, [], f"Descriptive. {LEVELS}") for chunk in chunks]


def differences_table(contrasts: Sequence[Contrast], known: Iterable[Metric]) -> Html:
    """For each contrast a row for every set, then one over all pairs with its tests; primary ones say the verdict."""
    names = ["Set", "Pairs", "Mean difference", "SD", "95 % interval", "Bootstrap", "p", "Holm p", "Least p"]
    names += ["d_z", "P(b better)"]
    head = [tag("th", name, scope="col") for name in names]
    bodies = []
    for c in contrasts:
        said = f"{show.label(c.metric, known)}: {c.a} − {c.b} on {c.dataset}"
        more = show.unit(c.metric)
        if c.metric.primary:
            more += f"; margin ±{c.margin:.3g}; verdict on {c.b}: {c.verdict}"
        title = tag("th", said, " ", tag("small", more), scope="rowgroup", colspan=len(head))
        lines = [tag("tr", title)]
        digits = c.metric.digits
        for s in c.sets:
            numbers = [len(s.values), number(s.mean, digits, True), number(s.sd, digits)]
            line = [*numbers, show.interval(s.low, s.high, digits) or "one seed", *[""] * (len(head) - 5)]
            lines.append(tag("tr", tag("th", s.params or "–", scope="row"), *(tag("td", x) for x in line)))
        chance = f"{show.share(c.b_better)} {show.interval(c.b_better_low, c.b_better_high, 2)}"
        line = [
            c.n,
            number(c.mean, digits, True),
            number(c.sd, digits),
            show.interval(c.low, c.high, digits) or "one seed",
            show.interval(c.bootstrap_low, c.bootstrap_high, digits),
            show.share(c.p),
            show.share(c.p_holm),
            show.share(c.p_least),
            number(c.d_z, 2),
            chance,
        ]
        lines.append(tag("tr", tag("th", "all sets", scope="row"), *(tag("td", x) for x in line), class_="overall"))
        bodies.append(tag("tbody", *lines))
    caption = (
        "Differences are paired on set and seed. 95 % intervals: of a set Student's t, over all sets t from "
        "the spread within sets (Satterthwaite's degrees of freedom), and beside it a bootstrap within sets, which is "
        "too narrow with few seeds. p: exact sign-flip test; least p: the smallest that so many pairs can give; "
        "Holm p: adjusted over the primary metrics. d_z: mean over standard deviation of the differences, "
        "Hedges-corrected. P(b better): share of pairs in which the second model is better, with its "
        "Clopper-Pearson interval."
    )
    return _scroll(tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), *bodies), "paired differences")


def runs_table(evidence: Evidence) -> Html:
    """Every run, whatever became of it, with every metric; reasons of failures in full."""
    metrics = show.columns(evidence.metrics, evidence.metrics)
    facts: dict[str, Callable[[Row], str]] = {
        "Status": lambda r: f"{r.status}: {r.reason}" if r.reason else r.status,
        "Data": lambda r: r.dataset,
        "Model": lambda r: r.model,
        "Seed": lambda r: "–" if r.seed is None else str(r.seed),
        "Batch": lambda r: "–" if r.batch_size is None else str(r.batch_size),
        "Learning rate": lambda r: "–" if r.lr is None else f"{r.lr:g}",
        "Schedule": lambda r: r.schedule or "–",
        "Latents": lambda r: "–" if r.latent_dim is None else str(r.latent_dim),
        "Beta": lambda r: "–" if r.beta is None else f"{r.beta:g}",
        "Epochs": lambda r: "–" if r.epochs is None else str(r.epochs),
        "Best epoch": lambda r: "–" if r.best_epoch is None else str(r.best_epoch),
        "Training": lambda r: show.training([r]),
        "Validation loss": lambda r: number(r.val_loss, 4 if r.reduction == "mean" else 2),
        "Wall time (s)": lambda r: number(r.wall_time_s, 0),
        "Run": lambda r: r.run_id or "–",
        "Trained in": lambda r: r.trained_in or "this sweep",
    }
    names = ["Status", "Data", "Model", "Set", *list(facts)[3:]]
    head = [tag("th", name, scope="col", class_="words") for name in ["Name", *names]]
    head += [_heading(metric, evidence.metrics) for metric in metrics]
    lines = []
    for cell, rows in show.cells(evidence).items():
        for row in sorted(rows, key=lambda r: (-1 if r.seed is None else r.seed, r.name)):
            said = {"Set": cell.params} | {name: fact(row) for name, fact in facts.items()}
            long = "Status" if row.reason else None
            cells = [tag("td", said[name], class_="reason" if name == long else "words") for name in names]
            cells += [tag("td", number(show.value(row, metric.key), metric.digits)) for metric in metrics]
            lines.append(tag("tr", tag("th", row.name, scope="row"), *cells))
    for dataset in show.datasets(evidence):
        for name, values in show.references(evidence, dataset):
            blank = [tag("td", dataset if fact == "Data" else "", class_="words") for fact in names]
            cells = [tag("td", number(values.get(metric.key), metric.digits)) for metric in metrics]
            lines.append(tag("tr", tag("th", name, scope="row"), *blank, *cells, class_="linear"))
    return _scroll(tag("table", tag("thead", tag("tr", *head)), tag("tbody", *lines)), "all runs")


def _cells_table(
    evidence: Evidence,
    metrics: Sequence[Metric],
    more: Sequence[tuple[str, str, Callable[[Sequence[Row]], str]]],
    caption: str,
) -> Html:
    head = [tag("th", name, scope="col") for name in ("Set", "Model")]
    head += [tag("th", name, tag("small", note), scope="col") for name, note, _ in more]
    head += [_heading(metric, evidence.metrics) for metric in metrics]
    bodies = []
    found = show.cells(evidence)
    for dataset in show.datasets(evidence):
        lines = [tag("tr", tag("th", dataset or "unknown data", scope="rowgroup", colspan=len(head)))]
        for cell, rows in found.items():
            if cell.dataset == dataset:
                linear = show.reference_of(evidence, rows, dataset)
                cells = [tag("td", text(rows)) for _, _, text in more]
                cells += [_summary(evidence, cell, rows, metric, linear) for metric in metrics]
                names = tag("th", cell.params or "–", scope="row"), tag("td", cell.model, class_="words")
                lines.append(tag("tr", *names, *cells))
        for name, values in show.references(evidence, dataset):
            cells = [tag("td") for _ in more]
            cells += [tag("td", number(values.get(metric.key), metric.digits)) for metric in metrics]
            lines.append(tag("tr", tag("th", name, scope="row", colspan=2), *cells, class_="linear"))
        bodies.append(tag("tbody", *lines))
    table = tag("table", tag("caption", caption), tag("thead", tag("tr", *head)), *bodies)
    return _scroll(table, ", ".join(show.label(metric, evidence.metrics) for metric in metrics) or "runs")


def _summary(evidence: Evidence, cell: Cell, rows: Sequence[Row], metric: Metric, linear: Mapping[str, float]) -> Html:
    """Mean and spread of one cell's metric, its interval, its distance to the linear reference."""
    group = show.group(evidence, metric.key, cell)
    if group is None or not group.values:
        return tag("td", "–")
    spread = f" ± {number(group.sd, metric.digits)}" if group.sd is not None else ""
    lines = [tag("span", number(group.mean, metric.digits) + spread, class_="mean")]
    interval = show.interval(group.low, group.high, metric.digits)
    lines.append(tag("small", interval or ("one seed" if len(group.values) == 1 else "no interval")))
    finished = sum(row.status == "FINISHED" for row in rows)
    if len(group.values) != finished and finished:
        lines.append(tag("small", f"{len(group.values)} of {finished} runs"))
    if metric.primary and metric.key in linear:
        lines.append(tag("small", f"{number(group.mean - linear[metric.key], metric.digits, True)} to linear"))
    return tag("td", *lines)


def _heading(metric: Metric, known: Iterable[Metric]) -> Html:
    known = list(known)
    said = [show.label(metric, known), tag("small", show.unit(metric))]
    other = show.partner(metric.key)
    if other is not None and other not in {m.key for m in known}:
        said.append(tag("small", f"its partner {other} was not recorded"))
    return tag("th", *said, scope="col")


def _scroll(table: Html, name: str) -> Html:
    """A wide table scrolls by itself, with a finger or the keyboard."""
    return tag("div", table, class_="scroll", role="region", tabindex=0, aria_label=f"table: {name}")
