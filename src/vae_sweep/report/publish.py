"""To the store: the comparison of a sweep, written again after each of its runs, and its report."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vae_sweep.base.locks import one_at_a_time
from vae_sweep.comparison import sentences
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Cell, Row, finite, frame, to_csv, to_json, with_unique_names
from vae_sweep.metrics import catalogue
from vae_sweep.metrics.losses import number, spec
from vae_sweep.report import text
from vae_sweep.report.collect import arrays_of, histories_of, rows_of
from vae_sweep.tracking.store import NOTE, NOTE_LIMIT, Store, StoredRun

log = logging.getLogger(__name__)

PICTURES = (
    "Pictures: the Artifacts of this run hold `report.html`, `explore.html` (the models, with sliders) and `figures/`. "
    "The charts of its runs show images after epochs 1, 2, 4, 8, ... with a slider."
)
REDRAW_AFTER = 60.0  # seconds: cells that end faster do not each pay for figures


def refresh(
    store: Store, parent_id: str, cells: Sequence[Cell], root: Path, figures: bool = True, changed: str | None = None
) -> list[Row]:
    """Write the comparison of a sweep as it stands now to its parent run; return its rows.

    With ``changed``, the id of a run, that run alone is read again. Safe when several workers of one machine do it at
    once.
    """
    with one_at_a_time(_beside(root, parent_id, "lock")):
        rows = rows_of(_stored(store, parent_id, root, changed), cells, parent_id)
        done = [row for row in rows if row.status == "FINISHED"]
        record, table = store.record(parent_id), frame(rows)
        record.set_tags({NOTE: text.markdown(rows, max_chars=NOTE_LIMIT)})
        record.log_text(to_csv(table), "comparison.csv")
        record.log_text(to_json(table), "comparison.json")
        record.log_text(text.markdown(rows), "comparison.md")
        record.log_table(finite(table).to_dict("list"), "comparison_table.json")
        record.log_metrics({"cells": len(rows), "cells_finished": len(done)})
        if done and figures:
            try:
                _log_figures(store, parent_id, rows)
            except Exception:  # of any kind: no table and no start of a sweep depends on its figures
                log.warning("the sweep's figures could not be drawn", exc_info=True)
            _beside(root, parent_id, "drawn").touch()
    return rows


def _stored(store: Store, parent_id: str, root: Path, changed: str | None) -> list[StoredRun]:
    """The sweep's runs: all from the store, or those of the last time with the changed one read again."""
    path = _beside(root, parent_id, "runs")
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if changed else []
    except (OSError, ValueError):  # missing, or not written to its end
        known = []
    runs = {run["run_id"]: StoredRun(**run) for run in known}
    if changed and runs:
        runs[changed] = store.get(changed)
    else:
        runs = {run.run_id: run for run in store.children(parent_id)}
    path.write_text(json.dumps([vars(run) for run in runs.values()]), encoding="utf-8")
    return list(runs.values())


def figures_due(root: Path, parent_id: str) -> bool:
    """Return whether the sweep's figures are old enough to be drawn again before it ends."""
    try:
        return time.time() - _beside(root, parent_id, "drawn").stat().st_mtime > REDRAW_AFTER
    except FileNotFoundError:
        return True


def _beside(root: Path, parent_id: str, kind: str) -> Path:
    """A file about a sweep's comparison, beside the artifacts."""
    return root / "mlruns" / f".{parent_id}.{kind}"


def plan_text(cells: Sequence[Cell]) -> str:
    """Return the cells as JSON, for the artifact ``PLAN`` of the parent."""
    return json.dumps([asdict(cell) for cell in cells], indent=1)


def files(evidence: Evidence) -> dict[str, str]:
    """Return the report and the numbers behind it: name of a file -> its text."""
    from vae_sweep.report import latex, page  # here, since no single run needs them

    words = {metric.key: said for metric, said in catalogue.described(metric.key for metric in evidence.metrics)}
    table = frame(evidence.rows)
    said = "\n".join(f"{text.escape(line)}\n" for line in (*verdicts(evidence), text.remarks(evidence.rows)) if line)
    return {
        "report.html": page.html(evidence, words),
        "statistics.json": statistics_json(evidence),
        "comparison.csv": to_csv(table),
        "comparison.json": to_json(table),
        "comparison.md": f"{text.markdown(evidence.rows)}\n{said}",
        "comparison.tex": latex.table(evidence),
    }


def record(store: Store, sweep_id: str, written: Mapping[str, str]) -> None:
    """Write the report of one sweep to its own run, beside the table that the sweep keeps there as CSV and JSON."""
    for name in ("report.html", "statistics.json", "comparison.md", "comparison.tex", "explore.html"):
        if name in written:
            store.record(sweep_id).log_text(written[name], name)


def note(evidence: Evidence) -> str:
    """Return the description of a sweep for the UI: the answer, where pictures are, and the table."""
    lines = [f"**{text.escape(line)}**\n\n" for line in brief_verdicts(evidence)]
    shown = list(lines)
    while len("".join(shown)) > NOTE_LIMIT // 2:
        shown.pop()
    rest = len(lines) - len(shown)
    more = f"... and {rest} more: see report.html\n\n" if rest else ""
    lead = f"{''.join(shown)}{more}{PICTURES}\n\n" if lines else ""
    return lead + text.markdown(evidence.rows, max_chars=NOTE_LIMIT - len(lead))


def verdicts(evidence: Evidence) -> list[str]:
    """Return the sentences of the planned pairs in the primary metrics, and of the controls."""
    found = [contrast.sentence for contrast in evidence.questions]
    return [*found, *evidence.controls] or [sentences.no_contrast(evidence.rows)]


def brief_verdicts(evidence: Evidence) -> list[str]:
    """Return what :func:`verdicts` says in a line or two for each primary metric, and which is missing."""
    found = [sentences.brief(contrast) for contrast in evidence.questions]
    missing = [sentences.unknown_distance(evidence.missing)] if evidence.missing else []
    return [*([*found, *evidence.controls] or verdicts(evidence)), *missing]


def statistics_json(evidence: Evidence) -> str:
    """Return groups, references and contrasts as JSON."""
    kept = ("title", "sweeps", "metrics", "groups", "references", "contrasts", "rankings", "controls", "notes", "facts")
    groups = [asdict(group) | {"metric": key} for key, found in evidence.groups.items() for group in found]
    content: dict[str, Any] = {key: getattr(evidence, key) for key in kept} | {"groups": groups}
    return json.dumps(content, indent=1, allow_nan=False, default=asdict) + "\n"


def _log_figures(store: Store, parent_id: str, rows: Sequence[Row]) -> None:
    """The sweep's two figures: validation loss of all cells and the closed forms, and samples side by side."""
    from vae_sweep.report import page_figures, style, sweep_figures  # here, since matplotlib takes its time

    started = [row for row in with_unique_names(rows) if row.run_id]
    where = ", ".join(sorted({row.dataset for row in rows}))
    seeds = ", ".join(map(str, sorted({row.seed for row in rows if row.seed is not None})))
    record = store.record(parent_id)
    figure = page_figures.validation_curves(started, histories_of(store, started))
    style.heading(figure, f"{where}: validation loss, seed {seeds}")
    record.log_figure(figure, "figures/validation_loss.png")
    samples = arrays_of(store, [row for row in started if row.status == "FINISHED"], "samples.npy")
    captions = {
        row.name: f"test {number(row.test_loss, spec(row.reduction))}" for row in started if row.name in samples
    }
    if samples:
        title = f"{where}: samples from the prior, seed {seeds}"
        record.log_figure(sweep_figures.sample_columns(samples, title, captions=captions), "figures/samples.png")
