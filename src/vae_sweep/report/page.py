"""A sweep's report: one HTML page that needs nothing else, neither network nor script.

The verdict stands first, then what it rests on: tables, paired differences, figures, meanings, methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources

from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.statistics import Contrast
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import pictures, tables
from vae_sweep.report import presentation as show
from vae_sweep.report.markup import Html, tag
from vae_sweep.report.presentation import number

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # no network, whatever a name contains


def html(evidence: Evidence, glossary: Mapping[str, str] | None = None) -> str:
    """The page. `glossary`: metric key -> what it measures, in words."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("link", rel="icon", href="data:,"),
        tag("title", evidence.title),
        tag("style", Html(resources.files("vae_sweep.report").joinpath("style.css").read_text("utf-8"))),
    )
    body = tag(
        "body",
        tag("header", tag("h1", evidence.title), tag("p", _state(evidence), class_="lede")),
        tag("main", _verdicts(evidence), _main(evidence), _differences(evidence), _further(evidence), _data(evidence)),
        *(_figures(evidence), _glossary(evidence, glossary or {}), _methods(evidence)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _state(evidence: Evidence) -> str:
    """How many runs there are, what became of them, and how their training ended."""
    count = Counter(row.status for row in evidence.rows)
    said = ", ".join(f"{n} {status.lower()}" for status, n in count.most_common())
    seeds = {sum(row.status == "FINISHED" for row in rows) for rows in show.cells(evidence).values()} - {0}
    runs = f"{len(evidence.rows)} runs: {said}." if said else "No run is known."
    ended = caveat((row.training_state for row in evidence.rows if row.status == "FINISHED"), remedies=True)
    runs = f"{runs} {ended}".rstrip()
    if not seeds:
        return runs
    if max(seeds) == 1:
        return f"{runs} One seed per cell: noise between seeds was not measured, so nothing can be said about it."
    return (
        f"{runs} {min(seeds)} to {max(seeds)} seeds per cell."
        if len(seeds) > 1
        else f"{runs} {max(seeds)} seeds per cell."
    )


def _verdicts(evidence: Evidence) -> Html:
    parts = []
    for dataset in show.datasets(evidence):
        found = [c for c in evidence.contrasts if c.dataset == dataset and c.metric.primary]
        parts.append(tag("h3", dataset or "unknown data"))
        parts += [_verdict(contrast) for contrast in found]
        if not found:
            parts.append(tag("p", _no_verdict(evidence, dataset), class_="sentence"))
    if evidence.controls:
        parts += [tag("h3", "Controls"), *(tag("p", said, class_="sentence") for said in evidence.controls)]
    return tag("section", tag("h2", "Verdict"), *(parts or [tag("p", "No run is known.", class_="sentence")]))


def _verdict(contrast: Contrast) -> Html:
    metric = contrast.metric
    interval = show.interval(contrast.low, contrast.high, metric.digits)
    unit = f" {metric.unit}" if metric.unit else ""
    holm = "" if contrast.p_holm is None else f", Holm-adjusted {show.share(contrast.p_holm)}"
    fine = (
        f"{metric.label}, {show.unit(metric)}. {contrast.a} − {contrast.b}: mean "
        f"{number(contrast.mean, metric.digits, True)}{unit}, "
        f"{f'95 % interval {interval}' if interval else 'no interval, as no set has two seeds'}; {contrast.n} pairs. "
        f"p = {show.share(contrast.p)}{holm}; the least that so many pairs can give is {show.share(contrast.p_least)}."
    )
    fine += f" Differences under {contrast.margin:.3g}{unit} count as equivalent." if contrast.margin > 0 else ""
    words = [tag("span", f"{contrast.b} against {contrast.a}: {contrast.verdict}", class_="word")]
    if caveat(contrast.states):
        words.insert(0, tag("span", "on runs not converged", class_="word"))
    words.append(tag("p", contrast.sentence, class_="sentence"))
    return tag(
        "div", tag("div", *words, tag("p", fine, class_="fine")), pictures.differences(contrast), class_="verdict"
    )


def _no_verdict(evidence: Evidence, dataset: str) -> str:
    done = sorted({row.model for row in evidence.rows if row.dataset == dataset and row.status == "FINISHED"})
    if not done:
        return "No run has finished yet, so nothing can be said."
    if len(done) == 1:
        return f"Only {done[0]} has finished runs: a comparison needs two models."
    return "No verdict: no two models have a primary metric for the same set and seed."


def _main(evidence: Evidence) -> Html:
    runs = tag("details", tag("summary", f"Every run and seed ({len(evidence.rows)})"), tables.runs_table(evidence))
    return tag("section", tag("h2", "Results"), tables.main_table(evidence), tag("div", runs, class_="runs"))


def _differences(evidence: Evidence) -> Html:
    parts = [tag("h2", "Paired differences")]
    primary = [contrast for contrast in evidence.contrasts if contrast.metric.primary]
    others = [contrast for contrast in evidence.contrasts if not contrast.metric.primary]
    if primary:
        parts.append(tables.differences_table(primary, evidence.metrics))
    if others:
        said = f"All other metrics ({len(others)}): descriptive, p not adjusted, no verdict"
        table = tables.differences_table(others, evidence.metrics)
        parts.append(tag("details", tag("summary", said), table))
    if not evidence.contrasts:
        parts.append(tag("p", "No two models have finished the same set and seed."))
    return tag("section", *parts)


def _further(evidence: Evidence) -> Html:
    found = tables.further_tables(evidence)
    said = "Descriptive: these metrics were not declared as primary, and carry no verdict."
    return tag("section", tag("h2", "Further metrics"), tag("p", said if found else "None was recorded."), *found)


def _data(evidence: Evidence) -> Html:
    """What each dataset was taken for: its splits, classes and what was left out; nothing where no run recorded it."""
    known = [part for name, lines in evidence.data.items() if lines for part in (tag("h3", name), _list(lines))]
    return tag("section", tag("h2", "Data"), *known) if known else Html("")


def _list(lines: Iterable[str]) -> Html:
    return tag("ul", *(tag("li", line) for line in lines))


def _figures(evidence: Evidence) -> Html:
    parts = []
    for dataset in show.datasets(evidence):
        found = pictures.plots(evidence, dataset)
        found += [f for f in (pictures.samples(evidence, dataset), pictures.interpolations(evidence, dataset)) if f]
        parts += [tag("h3", dataset or "unknown data"), *(found or [tag("p", "Nothing to draw yet.")])]
    return tag("section", tag("h2", "Figures"), *(parts or [tag("p", "Nothing to draw yet.")]))


def _glossary(evidence: Evidence, words: Mapping[str, str]) -> Html:
    entries = [part for metric in evidence.metrics for part in _entry(metric, words.get(metric.key, ""))]
    inner = tag("dl", *entries, class_="glossary") if entries else tag("p", "No metric was recorded.")
    return tag("section", tag("h2", "Metrics"), inner)


def _entry(metric: Metric, words: str) -> list[Html]:
    margin = f"{metric.margin:.3g} of the mean" if metric.relative else f"{metric.margin:g} {metric.unit}".strip()
    said = [words.rstrip(". "), show.unit(metric), "primary" if metric.primary else ""]
    said.append(f"differences under {margin} do not matter" if metric.margin else "")
    text = ". ".join(part for part in said if part)
    return [tag("dt", metric.label), tag("dd", text, ". ", tag("code", metric.key))]


def _methods(evidence: Evidence) -> Html:
    lost = pictures.nameless(evidence)
    notes = [*evidence.notes, *([f"Not drawn, as no run has this name: {', '.join(lost)}"] if lost else [])]
    parts = [tag("h2", "Notes, methods and versions")]
    if notes:
        parts.append(_list(notes))
    facts = dict(evidence.facts)
    if evidence.sweeps:
        facts["Sweeps"] = ", ".join(evidence.sweeps)
    pairs = [part for name, value in facts.items() for part in (tag("dt", name), tag("dd", value))]
    return tag("section", *parts, *([tag("dl", *pairs, class_="glossary")] if pairs else []))
