"""A sweep's report: one HTML page that needs no network and no script, from the templates beside this file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.sentences import answer, no_contrast, seeds_option, unknown_distance
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import page_figures, tables
from vae_sweep.report import presentation as show
from vae_sweep.report.style import printable


def _finalize(value: object) -> object:
    """Replace what escaping leaves as it is: control characters, lone surrogates and changes of direction."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


_ENVIRONMENT = Environment(
    loader=PackageLoader("vae_sweep.report"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.globals |= {"show": show, "tables": tables, "page_figures": page_figures}
_ENVIRONMENT.filters |= {"number": show.number, "share": show.share}


def html(evidence: Evidence, glossary: Mapping[str, str] | None = None) -> str:
    """The page. `glossary`: metric key -> what it measures, in words."""
    meanings = [(metric, _meaning(metric, (glossary or {}).get(metric.key, ""))) for metric in evidence.metrics]
    sweeps = {"Sweeps": ", ".join(evidence.sweeps)} if evidence.sweeps else {}
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        evidence=evidence,
        datasets=show.datasets(evidence),
        state=_state(evidence),
        answers=_answers,
        notes=_notes(evidence),
        loads=_loads(evidence),
        primary=[contrast for contrast in evidence.contrasts if contrast.metric.primary],
        others=[contrast for contrast in evidence.contrasts if not contrast.metric.primary],
        meanings=meanings,
        facts={**evidence.facts, **sweeps},
    )


def _state(evidence: Evidence) -> str:
    """How many runs there are, what became of them, and when."""
    if not evidence.rows:
        return "No run is known."
    n, statuses = len(evidence.rows), Counter(row.status.lower() for row in evidence.rows)
    ended = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    said = f"{n} run{'s' * (n > 1)}: {ended}."
    seeds = _seeds(evidence) - {0}
    if seeds and seeds != {1}:
        said += f" {' to '.join(map(str, sorted({min(seeds), max(seeds)})))} seeds per cell."
    return f"{said} {evidence.when}".rstrip()


def _answers(evidence: Evidence, dataset: str) -> list[str]:
    """What the primary contrasts of a dataset say in plain words, or why there is none."""
    found = [
        answer(contrast, show.level(evidence, contrast))
        for contrast in evidence.questions
        if contrast.dataset == dataset
    ]
    return found or [no_contrast(row for row in evidence.rows if row.dataset == dataset)]


def _notes(evidence: Evidence) -> dict[str, list[str]]:
    """What to know before believing the answer of each dataset; what holds for the whole page is said once."""
    found: dict[str, list[str]] = {}
    for dataset in show.datasets(evidence):
        states = [r.training_state for r in evidence.rows if r.dataset == dataset and r.status == "FINISHED"]
        found[dataset] = [caveat(states, remedies=True)] if caveat(states) else []
    first = next(iter(found.values()), [])
    alone = [dataset for dataset in found if _seeds(evidence, dataset) - {0} == {1}]
    if alone:
        where = "" if len(alone) == len(found) else f" on {', '.join(alone)}"
        seeds = max([3, *(c.seeds or 0 for c in evidence.questions if c.dataset in alone)])
        first.insert(0, f"One seed per cell{where}: differences may be noise; add {seeds_option(seeds)}.")
    if evidence.missing:
        first.append(unknown_distance(evidence.missing))
    return found


def _seeds(evidence: Evidence, dataset: str | None = None) -> set[int]:
    """How many finished runs the cells have."""
    cells = show.cells(evidence).items()
    return {sum(r.status == "FINISHED" for r in rows) for cell, rows in cells if dataset in (None, cell.dataset)}


def _loads(evidence: Evidence) -> list[str]:
    """How Python and the command line open what the page shows."""
    run = next((row.run_id for row in evidence.rows if row.status == "FINISHED" and row.run_id), "")
    found = [f'vs.load_sweep("{sweep}")' for sweep in evidence.sweeps]
    if run:
        found += [f'vs.load_run("{run}")', f"python -m vae_sweep.generate run={run} what=samples"]
    return found


def _meaning(metric: Metric, words: str) -> str:
    """What a metric measures, its unit and direction, and which differences in it matter."""
    margin = f"{metric.margin:.3g} of the mean" if metric.relative else f"{metric.margin:g} {metric.unit}".strip()
    parts = [words.rstrip(". "), show.unit(metric), "Primary metric" if metric.primary else ""]
    parts.append(f"Differences under {margin} do not matter" if metric.margin else "")
    return ". ".join(filter(None, parts))
