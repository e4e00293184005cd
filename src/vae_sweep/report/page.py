"""A sweep's report: one HTML page that needs no network and no script, from the templates beside this file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.evidence import Evidence
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
_ENVIRONMENT.globals |= {"show": show, "tables": tables, "page_figures": page_figures, "caveat": caveat}
_ENVIRONMENT.filters |= {"number": show.number, "share": show.share}


def html(evidence: Evidence, glossary: Mapping[str, str] | None = None) -> str:
    """The page. `glossary`: metric key -> what it measures, in words."""
    meanings = [(metric, _meaning(metric, (glossary or {}).get(metric.key, ""))) for metric in evidence.metrics]
    sweeps = {"Sweeps": ", ".join(evidence.sweeps)} if evidence.sweeps else {}
    return _ENVIRONMENT.get_template("page.html.jinja").render(
        evidence=evidence,
        datasets=show.datasets(evidence),
        state=_state(evidence),
        primary=[contrast for contrast in evidence.contrasts if contrast.metric.primary],
        others=[contrast for contrast in evidence.contrasts if not contrast.metric.primary],
        no_verdict=_no_verdict,
        meanings=meanings,
        facts={**evidence.facts, **sweeps},
    )


def _state(evidence: Evidence) -> str:
    """How many runs there are, what became of them, and how their training ended."""
    if not evidence.rows:
        return "No run is known."
    statuses = Counter(row.status for row in evidence.rows)
    parts = [
        f"{len(evidence.rows)} runs: {', '.join(f'{n} {status.lower()}' for status, n in statuses.most_common())}.",
        caveat((row.training_state for row in evidence.rows if row.status == "FINISHED"), remedies=True),
    ]
    seeds = {sum(row.status == "FINISHED" for row in rows) for rows in show.cells(evidence).values()} - {0}
    if seeds == {1}:
        parts.append("One seed per cell: noise between seeds was not measured, so nothing can be said about it.")
    elif seeds:
        parts.append(f"{' to '.join(map(str, sorted({min(seeds), max(seeds)})))} seeds per cell.")
    return " ".join(filter(None, parts))


def _no_verdict(evidence: Evidence, dataset: str) -> str:
    """Why a dataset has no verdict."""
    done = {row.model for row in evidence.rows if row.dataset == dataset and row.status == "FINISHED"}
    if not done:
        return "No run has finished yet: there is nothing to compare."
    if len(done) == 1:
        return f"Only {done.pop()} has finished runs: a comparison needs two models."
    return "No verdict: no two models have a primary metric with the same set and seed."


def _meaning(metric: Metric, words: str) -> str:
    """What a metric measures, its unit and direction, and which differences in it matter."""
    margin = f"{metric.margin:.3g} of the mean" if metric.relative else f"{metric.margin:g} {metric.unit}".strip()
    parts = [words.rstrip(". "), show.unit(metric), "Primary metric" if metric.primary else ""]
    parts.append(f"Differences under {margin} do not matter" if metric.margin else "")
    return ". ".join(filter(None, parts))
