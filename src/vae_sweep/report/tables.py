"""What the tables of a report say of cells and runs beside their metrics, and which metrics stand in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vae_sweep.comparison.convergence import CONVERGED
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Row
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import presentation as show

_WIDTH = 5  # metrics side by side


def _text(value: float | str | None, spec: str = "") -> str:
    return "–" if value is None or value == "" else format(value, spec)


RUN_FACTS: dict[str, Callable[[Row], str]] = {  # heading -> what it says of a run
    "Status": lambda row: f"{row.status}: {row.reason}" if row.reason else row.status,
    "Data": lambda row: row.dataset,
    "Model": lambda row: row.model,
    "Set": lambda row: show.cell_of(row).params,
    "Seed": lambda row: _text(row.seed),
    "Batch": lambda row: _text(row.batch_size),
    "Learning rate": lambda row: _text(row.lr, "g"),
    "Schedule": lambda row: _text(row.schedule),
    "Latents": lambda row: _text(row.latent_dim),
    "Beta": lambda row: _text(row.beta, "g"),
    "Epochs": lambda row: _text(row.epochs),
    "Best epoch": lambda row: _text(row.best_epoch),
    "Training": lambda row: show.training([row]),
    "Validation loss": lambda row: show.number(row.val_loss, 4 if row.reduction == "mean" else 2),
    "Wall time (s)": lambda row: show.number(row.wall_time_s, 0),
    "Run": lambda row: _text(row.run_id),
    "Trained in": lambda row: row.trained_in or "this sweep",
}


def cell_facts(evidence: Evidence) -> list[tuple[str, str, Callable[[Sequence[Row]], str]]]:
    """What the main table says of a cell: heading, note below it, text of the cell's runs."""
    facts: list[tuple[str, str, Callable[[Sequence[Row]], str]]] = [("Seeds", "finished runs", show.seeds)]
    if {row.training_state for row in evidence.rows} - {None, CONVERGED}:
        facts.append(("Training", "how it ended", show.training))
    return [*facts, ("Epochs", "mean (range)", show.epochs), ("Parameters", "", show.parameters)]


def further_metrics(evidence: Evidence) -> list[list[Metric]]:
    """The metrics that the main table does not show, by table: at most five of one topic, partners side by side."""
    shown = {metric.key for metric in show.main_columns(evidence)}
    found: list[list[Metric]] = []
    for part in _with_partners(show.columns((m for m in evidence.metrics if m.key not in shown), evidence.metrics)):
        same_topic = found and found[-1][0].key.split("/")[0] == part[0].key.split("/")[0]
        if same_topic and len(found[-1]) + len(part) <= _WIDTH:
            found[-1] += part
        else:
            found.append(part)
    return found


def _with_partners(metrics: Sequence[Metric]) -> list[list[Metric]]:
    """Each metric alone, or together with its partner after it."""
    found: list[list[Metric]] = []
    for metric in metrics:
        if found and show.partner(found[-1][-1].key) == metric.key:
            found[-1].append(metric)
        else:
            found.append([metric])
    return found
