"""What a comparison allows one to say, in one paragraph."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from vae_sweep.comparison.convergence import caveat
from vae_sweep.comparison.rows import Row, is_finite, ordered
from vae_sweep.metrics.losses import number, spec, unit
from vae_sweep.report.text import cell_key, one_line, seeds_sentence, status_text


def summary(rows: Sequence[Row]) -> str:
    """What these rows allow one to say: how far they are trained, differences between models per set, what is missing.

    Differences are paired on equal data, hyperparameters and seed, in test loss; finished runs only.
    """
    runs = [r for r in ordered(rows) if r["status"] != "REFERENCE"]
    done = [r for r in runs if r["status"] == "FINISHED" and is_finite(r["test_loss"])]
    missing = [f"{one_line(r['name'])} ({status_text(r)})" for r in runs if r not in done]
    absent = [f"Not in this comparison: {', '.join(missing)}."] if missing else []
    if not done:
        return " ".join(["No run has a test loss yet: nothing can be compared.", *absent])
    models = sorted({r["model"] for r in done})
    nonlinear = [model for model in models if model != "linear"]
    base = "conv" if "conv" in nonlinear else (nonlinear or models)[0]
    parts = [caveat(r["training_state"] for r in done)]
    parts += [_differences(done, other, base) for other in nonlinear if other != base]
    parts += [seeds_sentence(done)]
    stands = [_standing(model, [r for r in done if r["model"] == model]) for model in models]
    if any(stands):
        parts.append(f"Against the closed-form linear VAE, in test loss: {'; '.join(filter(None, stands))}.")
    return " ".join([*filter(None, parts), *absent])


def _differences(done: list[dict[str, Any]], model: str, base: str) -> str:
    """Mean difference of test losses, model minus base, per set, over the seeds that both have."""
    losses: dict[tuple[Any, ...], dict[Any, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for r in done:
        losses[cell_key(r)][r["seed"]][r["model"]].append(r["test_loss"])
    names = [cell[:3] for cell in losses]
    said, reductions = [], set()
    for cell, seeds in losses.items():
        pairs = [by[model] for by in seeds.values()], [by[base] for by in seeds.values()]
        d = [statistics.fmean(m) - statistics.fmean(b) for m, b in zip(*pairs, strict=True) if m and b]
        if not d:
            continue
        data, params, variant, batch, lr, schedule, latent, beta, reduction, _ = cell
        several = len({name[0] for name in names}) > 1
        label = " ".join(filter(None, [data if several else "", params, variant]))
        if names.count(cell[:3]) > 1:
            label += f" [batch {batch}, lr {lr}, {schedule}, latent {latent}, beta {beta}, {reduction}]"
        sd = f" (mean of {len(d)} seeds, sd {number(statistics.stdev(d), spec(reduction))})" if len(d) > 1 else ""
        said.append(f"{label} {number(statistics.fmean(d), '+' + spec(reduction))}{sd}")
        reductions.add(reduction)
    if not said:
        return f"{model} and {base} share no finished cell (same data, hyperparameters and seed)."
    head = ", ".join(filter(None, [f"Test loss of {model} minus {base}", unit(reductions)]))
    return f"{head} (positive: {base} is better): {', '.join(said)}."


def _standing(model: str, runs: list[dict[str, Any]]) -> str:
    """How often a model beats the closed form, and by how much."""
    found = sorted(
        (r["distance_to_linear"], "+" + spec(r["reduction"])) for r in runs if is_finite(r["distance_to_linear"])
    )
    if not found:
        return ""
    better = sum(distance < 0 for distance, _ in found)
    word, count = ("better", better) if better else ("worse", sum(distance > 0 for distance, _ in found))
    ends = [number(*end) for end in (found[0], found[-1])]
    span = ends[0] if len(found) == 1 else " to ".join(ends)
    return f"{model} is {word} in {count} of {len(found)} runs ({span})"
