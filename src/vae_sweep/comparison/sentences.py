"""What a contrast says: in plain words, and in the sentence that a paper could print."""

from __future__ import annotations

from collections.abc import Iterable

from vae_sweep.comparison.contrasts import CLOSED_FORM, LEVEL, Contrast
from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.ranking import Ranking
from vae_sweep.comparison.rows import Row

MANY = 1_000  # seeds: more are not counted
ABILITY = {  # of the primary metrics: who is better does this better
    "test/loss": ("reconstructs and compresses better", "reconstruct and compress equally well"),
    "samples": ("draws samples closer to real images", "draw samples equally close to real images"),
}


def answer(c: Contrast, level: float | None = None) -> str:
    """Return the contrast of a primary metric in plain words, with its interval and without p.

    ``level``: mean of the metric of model a over the pairs; the difference is also given as a share of b's or a's.
    """
    better, equal = ABILITY["test/loss" if c.metric.key == "test/loss" else "samples"]
    sign = -1 if c.metric.better == "higher" else 1
    first, second = (c.b, c.a) if sign * c.mean >= 0 else (c.a, c.b)  # the first has the better mean
    turned = c.mean < 0
    unit, digits = f" {c.metric.unit}" if c.metric.unit else "", c.metric.digits
    found = f"{c.metric.label} {c.metric.better or 'lower'} by {abs(c.mean):.{digits}f}{unit}"
    facts = [f"{_count(c.n, 'pair')} of {_count(len(c.sets), 'set')}"]
    if c.low is not None and c.high is not None:
        low, high = sorted((-c.low, -c.high) if turned else (c.low, c.high))
        facts.insert(0, f"95 % interval {low:z.{digits}f} to {high:z.{digits}f}".replace("-", "−"))
    signs = {s.mean > 0 for s in c.sets if round(s.mean, digits)}
    others = ", but not in every set" if len(signs) > 1 else ""
    base = level if second == c.a or level is None else level - c.mean  # of the one that is worse
    share = f", {_percent(abs(c.mean) / base)} of {second}'s" if base and base > 0 else ""
    said = {
        "equivalent": f"{c.b} and {c.a} {equal}, as the difference is under {c.margin:.3g}{unit}: for {first}, {found}",
        "inconclusive": f"It is open which of {c.b} and {c.a} {better}: for {first}, {found}",
    }.get(c.verdict, f"{first} {better} than {second}: {found}")
    return f"{said} ({', '.join(facts)}){share}{others}."


def sentence(c: Contrast, p: float, least: float) -> str:
    """Return what a contrast says, as one sentence; ``p`` counts, ``least`` is the smallest that it can be."""
    verdict = c.verdict
    unit, pairs = f" {c.metric.unit}" if c.metric.unit else "", _count(c.n, "pair")
    open_ = verdict == "inconclusive" and bool(c.metric.better)  # a question of better or worse, left open
    margin = f"{c.margin:.3g}{unit}"
    descriptive = verdict == "inconclusive" and not open_
    within = f" within the stated margin of {margin}" if verdict == "equivalent" else ""
    claim = f"in {c.metric.label}" if descriptive else f"{_claim(c, verdict)} in {c.metric.label}{within}:"
    interval = "no interval, as no set has two seeds"
    if c.low is not None and c.high is not None:
        interval = f"95 % interval [{_number(c, c.low)}, {_number(c, c.high)}]"
    notes = [f"Holm {_p(c.p_holm)}"] if c.p_holm is not None else []
    notes += [f"smallest attainable p {_p(c.p_least)}"] if not open_ or least <= LEVEL else []
    facts = [
        f"{c.a} - {c.b} = {_number(c, c.mean, '+')}{unit}",
        interval,
        f"{pairs} ({_design(c)})",
        f"p = {_p(c.p)}" + (f" ({'; '.join(notes)})" if notes else ""),
        *([f"d_z = {c.d_z:.2f}"] if c.d_z is not None else []),
        f"{c.b} {'better' if c.metric.better else 'lower'} in {c.b_better * c.n:g} of {pairs}",
    ]
    ends = [_why(c, p, least), *_remedy(c)] if open_ else []
    rounded = [round(s.mean, c.metric.digits) for s in c.sets]
    if min(rounded) < 0 < max(rounded):
        means = ", ".join(f"{s.params} {_number(c, s.mean, '+')}" for s in c.sets)
        ends.append(f"the sign differs between the sets ({means})")
    ends += [] if c.metric.primary else ["descriptive, as p is not corrected for the number of metrics"]
    said = f"On {c.dataset}, {claim} {'; '.join([', '.join(facts), *ends])}."
    return f"{caveat(c.states)} {said}".lstrip()


def ranked(r: Ranking) -> str:
    """Return the mean ranks of three models or more, and which of them may differ by chance."""
    models = ", ".join(f"{model} {rank:.2f}" for model, rank in zip(r.models, r.ranks, strict=True))
    alike = "; ".join(" and ".join(group) if len(group) == 2 else ", ".join(group) for group in r.alike)
    return (
        f"On {r.dataset}, mean ranks in {r.metric.label} over {_count(r.n, 'block')} of one set and seed, 1 is the "
        f"best: {models}. Friedman test: p = {_p(r.p)}. Mean ranks at most {r.critical_difference:.2f} apart may "
        f"differ by chance (Nemenyi, 95 % over all pairs of models): {alike or 'no two models'}."
    )


def brief(c: Contrast) -> str:
    """Return the verdict in a line or two: what it rests on, the difference, its interval, the pairs and p."""
    facts = [f"{c.a} - {c.b} = {_number(c, c.mean, '+')}{f' {c.metric.unit}' if c.metric.unit else ''}"]
    if c.low is not None and c.high is not None:
        facts.append(f"95 % interval [{_number(c, c.low)}, {_number(c, c.high)}]")
    adjusted = c.p if c.p_holm is None else c.p_holm  # what the verdict rests on
    facts += [_count(c.n, "pair"), f"{'Holm-adjusted ' * (adjusted != c.p)}p = {_p(adjusted)}"]
    said = f"On {c.dataset}, {_claim(c, c.verdict)} in {c.metric.label}: {', '.join(facts)}."
    if c.p_least > LEVEL:
        said += f" {_count(c.n, 'pair')} cannot give a p below {_p(c.p_least)}."
    said += "".join(f" {remedy[0].upper()}{remedy[1:]}." for remedy in _remedy(c))
    return f"{caveat(c.states)} {said}".lstrip()


def unknown_distance(why: str) -> str:
    """Return the sentence that stands where the second primary metric is missing because of ``why``."""
    return f"How close samples are to real images (the kernel distance, KD) was not measured: {why}."


def no_contrast(rows: Iterable[Row]) -> str:
    """Return why no two models of these rows are compared."""
    models = {row.model: row.baseline for row in rows if row.status == "FINISHED"}
    compared = [model for model, baseline in models.items() if baseline != CLOSED_FORM]
    if not models:
        return "No run has finished yet: there is nothing to compare."
    if len(compared) > 1:
        return "No two models have finished runs with the same data, set and seed: there is nothing to compare."
    if len(models) == 1:
        return f"Only {next(iter(models))} has finished runs: a comparison needs two models."
    others = " and ".join(sorted(models.keys() - compared))
    return f"A comparison needs two models beside {others}, whose baseline is the closed form."


def _claim(c: Contrast, verdict: str) -> str:
    known = {
        "better": f"{c.b} is better than {c.a}",
        "worse": f"{c.b} is worse than {c.a}",
        "equivalent": f"{c.b} and {c.a} are equivalent",
    }
    return known.get(verdict, f"{c.b} against {c.a} is {verdict}")


def _why(c: Contrast, p: float, least: float) -> str:
    """What a verdict lacks."""
    if least > LEVEL:
        kind, bound = ("p", c.p_least) if c.p_least > LEVEL else ("Holm-adjusted p", least)
        said = f"the smallest attainable {kind} of {_count(c.n, 'pair')} is {_p(bound)}"
        return f"{said}, so neither model can be called better at this number of seeds"
    if c.low is None or c.high is None:
        return "without two seeds in any set the noise between seeds is unknown"
    lacks = [f"{'p' if c.p_holm is None else 'the Holm-adjusted p'} is above {LEVEL}"] if p > LEVEL else []
    if -c.margin < c.low and c.high < c.margin:
        lacks.append(f"for equivalence an interval that is adjusted for {c.family} tests counts")
    return " and ".join([*lacks, *(["the interval includes 0"] if c.low <= 0 <= c.high else [])])


def _remedy(c: Contrast) -> list[str]:
    """How many seeds an inconclusive contrast needs, where that is known."""
    if c.seeds is None:
        return []
    if c.low is None or c.high is None or c.low > 0 or c.high < 0 or not c.margin:
        return [f"{c.seeds} seeds of each set can give a verdict ({seeds_option(c.seeds)})"]
    many = f"about {c.seeds}" if c.seeds < MANY else f"{MANY:,} or more"
    return [f"with this spread it takes {many} seeds of each set to decide"]


def seeds_option(n: int) -> str:
    """Return the option of a command that asks for so many seeds."""
    return f"seed={','.join(map(str, range(n)))}"


def _design(c: Contrast) -> str:
    sizes = [len(s.values) for s in c.sets]
    if len(set(sizes)) == 1:
        return f"{_count(len(sizes), 'set')} x {_count(sizes[0], 'seed')}"
    return f"{_count(len(sizes), 'set')} with {', '.join(map(str, sizes[:-1]))} and {sizes[-1]} seeds"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n != 1 else ''}"


def _number(c: Contrast, value: float, sign: str = "") -> str:
    return f"{value:{sign}z.{c.metric.digits}f}"


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.0995 else 1}f} %"


def _p(p: float) -> str:
    return f"{p:.2g}".replace("e-0", "e-")
