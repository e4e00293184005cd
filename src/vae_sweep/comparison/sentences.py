"""The sentence that a paper could print of a contrast."""

from __future__ import annotations

from vae_sweep.comparison.contrasts import LEVEL, Contrast
from vae_sweep.comparison.convergence import caveat


def sentence(c: Contrast, verdict: str, p: float, least: float) -> str:
    """Return what a contrast says, as one sentence; ``p`` counts, ``least`` is the smallest that it can be."""
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
    ends = [_why(c, p, least)] if open_ else []
    rounded = [round(s.mean, c.metric.digits) for s in c.sets]
    if min(rounded) < 0 < max(rounded):
        means = ", ".join(f"{s.params} {_number(c, s.mean, '+')}" for s in c.sets)
        ends.append(f"the sign differs between the sets ({means})")
    ends += [] if c.metric.primary else ["descriptive, as p is not corrected for the number of metrics"]
    said = f"On {c.dataset}, {claim} {'; '.join([', '.join(facts), *ends])}."
    return f"{caveat(c.states)} {said}".lstrip()


def brief(c: Contrast) -> str:
    """Return the verdict in a line or two: what it rests on, the difference, its interval, the pairs and p."""
    facts = [f"{c.a} - {c.b} = {_number(c, c.mean, '+')}{f' {c.metric.unit}' if c.metric.unit else ''}"]
    if c.low is not None and c.high is not None:
        facts.append(f"95 % interval [{_number(c, c.low)}, {_number(c, c.high)}]")
    adjusted = c.p if c.p_holm is None else c.p_holm  # what the verdict rests on
    facts += [_count(c.n, "pair"), f"{'Holm-adjusted ' * (adjusted != c.p)}p = {_p(adjusted)}"]
    said = f"On {c.dataset}, {_claim(c, c.verdict)} in {c.metric.label}: {', '.join(facts)}."
    return f"{caveat(c.states)} {said}".lstrip()


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
    return " and ".join([*lacks, *(["the interval includes 0"] if c.low <= 0 <= c.high else [])])


def _design(c: Contrast) -> str:
    sizes = [len(s.values) for s in c.sets]
    if len(set(sizes)) == 1:
        return f"{_count(len(sizes), 'set')} x {_count(sizes[0], 'seed')}"
    return f"{_count(len(sizes), 'set')} with {', '.join(map(str, sizes[:-1]))} and {sizes[-1]} seeds"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' if n != 1 else ''}"


def _number(c: Contrast, value: float, sign: str = "") -> str:
    return f"{value:{sign}z.{c.metric.digits}f}"


def _p(p: float) -> str:
    return f"{p:.2g}".replace("e-0", "e-")
