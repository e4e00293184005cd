"""The comparison as a table, for a terminal and as Markdown, with a caption that says what its columns mean."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_sweep.comparison.convergence import CONVERGED, caveat
from vae_sweep.comparison.pairing import setting
from vae_sweep.comparison.rows import Row, frame, has_squared_error, is_finite
from vae_sweep.metrics.catalogue import BITS_PER_DIM
from vae_sweep.metrics.losses import number, spec, terms, unit

if TYPE_CHECKING:
    from pandas import DataFrame

REASON_LENGTH = 80
WIDTH = 160  # of a line where nothing is known of the terminal
# Columns that are left out where they say the same of every run, or no more than this.
VARYING = ("Data", "Seed", "Beta", "Reduction", "Variance")
USUAL = {
    "Bits/dim": "",
    "Variant": "",
    "Schedule": "constant",
    "Training": CONVERGED,
    "Status": "FINISHED",
    "Trained in": "",
}
WORDS = ("Data", "Set", "Model", "Variant", "Status", "Run")  # columns that are aligned left
# What a narrow terminal lacks, in this order: a column, the terms of its losses, or all but the beginning of words.
LESS = (
    *(
        "Bits/dim",
        "Images/s",
        "Train terms",
        "Parameters",
        "Best",
        "LR",
        "Batch",
        "Train",
        "Test terms",
        "Schedule",
        "Latent",
    ),
    *("20 letters", "Trained in", "Val", "12 letters", "Reduction", "Variance", "Wall", "Epochs", "8 letters", "Run"),
)
MARK = "*"  # after the lowest test loss of a set


def markdown(rows: Sequence[Row], title: str = "Comparison", max_chars: int | None = None) -> str:
    """The table with its caption. With `max_chars`, rows (last first) are left out until it fits, and counted.

    Closed forms stay, since the rest cannot be read without them, unless they alone would fill a quarter. MLflow cuts
    a description at 8,000 characters; about 20 runs fit.
    """
    table = frame(rows)
    shown = _cells(table, wide=True)
    lines: list[str] = []
    runs: list[int] = []
    references: list[int] = []
    for status, cells in zip(table["status"], shown.to_numpy().tolist(), strict=True):
        closed = status == "REFERENCE"
        lines.append("| " + " | ".join(f"*{cell}*" if closed and cell else cell for cell in cells) + " |\n")
        (references if closed else runs).append(len(lines) - 1)
    head = f"### {escape(title)}\n\n" if title else ""
    head += f"| {' | '.join(shown)} |\n|{' --- |' * len(shown.columns)}\n"
    note, end = "", f"\n{caption(rows)}\n"
    while max_chars is not None and (runs or references) and len(head + "".join(lines) + note + end) > max_chars:
        many = sum(len(lines[i]) for i in references) > max_chars / 4 or not runs
        lines[(references if many else runs).pop()] = ""
        note = f"\n... and {lines.count('')} more rows: see comparison.csv\n"
    return head + "".join(lines) + note + end


def text(rows: Sequence[Row], title: str = "Comparison", width: int = WIDTH, bold: bool = False) -> str:
    """The same table for a terminal: aligned, in lines of at most ``width`` characters.

    A narrow one lacks columns (:data:`LESS`) and says which. The best run of each set is marked, on a terminal also in
    bold. Reasons of failures, and how trainings ended that did not converge, stand below.
    """
    table, records = frame(rows), frame(rows).to_dict("records")
    best = _best(rows)
    marked = [(r["run_id"], r["name"]) in best for r in records]
    shown = _cells(table, wide=False).drop(columns="Training", errors="ignore")
    shown, left_out = _fitted(_marked(shown, marked) if best else shown, width)
    head, *lines = _aligned(shown)
    lines = [f"\x1b[1m{line}\x1b[0m" if mark and bold else line for line, mark in zip(lines, marked, strict=True)]
    rule = "  ".join("-" * max(map(len, [name, *shown[name]])) for name in shown)
    failed = [f"{r['name']} {_status(r)}" for r in records if r["status"] in ("FAILED", "KILLED") and r["reason"]]
    several = len({row.seed for row in rows} - {None}) > 1
    notes = [f"{MARK} = the lowest test loss of its set{' and seed' * several}."] if best else []
    said = [part.rstrip(".") + "." for part in caption(rows).split(". ")]
    notes += [part for part in said if part.partition(" = ")[0] not in left_out]
    notes += (
        [f"Left out at this width: {', '.join(left_out)}; comparison.md of the sweep's run has them."]
        if left_out
        else []
    )
    below = [*wrapped(failed, width), *wrapped(_trainings(records), width), "", *wrapped(notes, width)]
    return "\n".join([title, "", head, rule, *lines, *below]) + "\n"


def wrapped(parts: Sequence[str], width: int) -> list[str]:
    """Return the paragraphs as lines of at most ``width`` characters; a longer word keeps a line of its own."""
    return [
        line
        for part in parts
        for line in textwrap.wrap(part, width, break_long_words=False, break_on_hyphens=False) or [""]
    ]


def _best(rows: Sequence[Row]) -> set[tuple[str | None, str]]:
    """Id and name of the run with the lowest test loss among those that compare: of one set and seed."""
    groups: dict[Any, list[tuple[float, str | None, str]]] = defaultdict(list)
    for row in rows:
        if row.status == "FINISHED" and row.test_loss is not None and is_finite(row.test_loss):
            groups[setting(row), row.digest, row.seed].append((row.test_loss, row.run_id, row.name))
    return {min(group, key=lambda run: run[0])[1:] for group in groups.values() if len(group) > 1}


def _marked(shown: DataFrame, marked: Sequence[bool]) -> DataFrame:
    """The table with the mark after those test losses, and room for it after the others."""
    (name,) = (name for name in shown if name.startswith("Test"))
    cells = [cell + (MARK if mark else " ") for cell, mark in zip(shown[name], marked, strict=True)]
    return shown.assign(**{name: cells}).rename(columns={name: f"{name} "})


def _fitted(shown: DataFrame, width: int) -> tuple[DataFrame, list[str]]:
    """The table made as narrow as :data:`LESS` allows, until it fits; and what it then lacks."""
    lacks: list[str] = []
    for less in LESS:
        if less == "Bits/dim" and "Variance" in shown:
            continue  # it is what compares there
        if len(_aligned(shown, padded=True)[0]) <= width:
            break
        what, _, how = less.partition(" ")
        name = next((name for name in shown if what in (name, name.partition(" ")[0])), "")
        if how == "letters":
            words = [name for name in WORDS if name in shown]
            most = int(what)
            shown = shown.assign(**{w: [c if len(c) <= most else f"{c[: most - 1]}…" for c in shown[w]] for w in words})
        elif how == "terms" and name:
            short = shown[name].str.replace(r" \(.*\)", "", regex=True)
            shown = shown.assign(**{name: short}).rename(columns={name: what + " " * name.endswith(" ")})
        elif name:
            shown = shown.drop(columns=name)
            lacks.append(what)
    return shown, lacks


def _aligned(shown: DataFrame, padded: bool = False) -> list[str]:
    """The table's lines, its head first; ``padded``: all as wide as the widest may be."""
    columns = []
    for name in shown:
        cells = [name, *shown[name]]
        most = max(map(len, cells))
        columns.append([cell.ljust(most) if name in WORDS else cell.rjust(most) for cell in cells])
    lines = ["  ".join(line) for line in zip(*columns, strict=True)]
    return lines if padded else [line.rstrip() for line in lines]


def caption(rows: Sequence[Row]) -> str:
    """What the columns mean: units, direction, splits, seeds, the closed form."""
    data = ", ".join(sorted({row.dataset for row in rows if row.dataset})) or "unknown"
    known = [row for row in rows if row.beta is not None and row.reduction]
    losses = sorted({_loss_said(row) for row in known})
    measured = f"Losses in {unit({row.reduction for row in known if row.reduction})}".removesuffix(" in ")
    averaged = any(row.reduction == "mean" for row in known)
    parts = [
        f"Data: {data}.",
        f"{measured}, lower is better: loss = recon + beta * kl ({'; '.join(losses) or 'unknown'}).",
        *sorted({_recon(row) for row in known}),
        "Compare losses only within the same data and loss; bits/dim compare across losses."
        if len(losses) > 1 or "," in data
        else "",
        "With reduction mean the squared error is averaged over an image's values: not nats." if averaged else "",
        "Train (at most 10,000), Val, Test = images of the loss; Val chose the epoch, Test was used once, at the end.",
        "Epochs = run until training stopped; Best = the epoch whose weights count.",
        caveat([row.training_state for row in rows if row.status == "FINISHED"], remedies=True),
        "Vs linear = test loss minus that of the closed-form optimal linear VAE (probabilistic PCA of the training "
        "images, same loss and latent size); negative is better than it.",
        "Bits/dim = -ELBO of a discretised Gaussian likelihood of the best scale, on test images."
        if any(BITS_PER_DIM in row.metrics for row in rows)
        else "",
        _seeds(rows),
    ]
    return " ".join(filter(None, parts))


def _loss_said(row: Row) -> str:
    said = f"squared error: {row.reduction}" if has_squared_error(row) else f"variance {row.variance}"
    return f"{said}, beta {row.beta:g}"


def _recon(row: Row) -> str:
    """What recon is where it is not the squared error."""
    if has_squared_error(row):
        return ""
    if row.variance in ("optimal", "learned"):
        said = "of the best variance" if row.variance == "optimal" else "of a learned variance"
        return f"Variance {row.variance}: recon = -ln p(x|z) of a Gaussian decoder {said}, with its constant."
    return f"Variance {row.variance}: recon = squared error / {2 * float(row.variance or 0):g}, without a constant."


def remarks(rows: Sequence[Row]) -> str:
    """How the models of finished runs stand to the closed form, and which runs the comparison lacks."""
    distances: dict[str, list[tuple[float, str]]] = defaultdict(list)
    missing = []
    for r in frame(rows).to_dict("records"):
        if r["status"] == "FINISHED" and is_finite(r["test_loss"]):
            if r["distance_to_linear"] is not None:
                distances[r["model"]].append((r["distance_to_linear"], f"+{spec(r['reduction'])}"))
        elif r["status"] != "REFERENCE":
            missing.append(f"{one_line(r['name'])} ({r['status']})")
    said = []
    for model, found in sorted(distances.items()):
        ends = dict.fromkeys(number(*end) for end in (min(found), max(found)))
        said.append(f"{model} {' to '.join(ends)} ({len(found)} run{'s' * (len(found) > 1)})")
    parts = [f"Test loss minus that of the closed-form linear VAE: {', '.join(said)}."] if said else []
    return " ".join([*parts, *([f"Not in this comparison: {', '.join(missing)}."] if missing else [])])


def escape(value: str) -> str:
    """The value on one line, with nothing in it that means something to a Markdown table."""
    return one_line(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def one_line(value: str) -> str:
    return " ".join(value.split())


def _cells(table: DataFrame, wide: bool) -> DataFrame:
    """The table as text, for Markdown (``wide``) or a terminal, without the columns that say nothing."""
    import pandas as pd

    runs = table["status"] != "REFERENCE"
    summed = "recon + kl" if set(table["beta"][runs]) <= {None, 1.0} else "recon + beta * kl"
    blank = _row(dict.fromkeys(table), summed, wide)
    shown = pd.DataFrame([_row(r, summed, wide) for r in table.to_dict("records")], columns=list(blank), dtype=object)
    of_runs = {name: set(shown[name][runs]) - {""} for name in shown}
    same = [name for name in VARYING if len(of_runs[name]) < 2]
    return shown.drop(columns=same + [name for name, usual in USUAL.items() if of_runs[name] <= {usual}])


def _row(r: dict[str, Any], summed: str, wide: bool) -> dict[str, str]:
    def word(key: str) -> str:
        value = str(r[key] or "")
        return escape(value) if wide else one_line(value)

    of, digits, loss = ("" if r["status"] == "REFERENCE" else r["status"]), spec(r["reduction"]), " loss" * wide
    return {
        "Data": word("dataset"),
        "Set": word("params"),
        "Model": word("model") if of or wide else "closed form",
        "Variant": word("variant"),
        "Seed": number(r["seed"], "d"),
        "Batch": number(r["batch_size"], "d"),
        "LR": number(r["lr"], "g"),
        "Schedule": word("schedule"),
        "Latent": word("latent_dim"),
        "Beta": number(r["beta"], "g"),
        "Reduction": word("reduction"),
        "Variance": word("variance"),
        "Parameters": number(r["n_parameters"], ",d"),
        "Epochs": number(r["epochs"], "d"),
        "Best": number(r["best_epoch"], "d"),
        "Training": word("training_state"),
        f"Train{loss} ({summed})": _loss(r, "train", wide),
        f"Val{loss}": number(r["val_loss"], digits),
        f"Test{loss} ({summed})": _loss(r, "test", wide),
        "vs linear": number(r["distance_to_linear"], f"+{digits}"),
        "Bits/dim": number(r.get(BITS_PER_DIM), ".3f"),
        "Wall time" if wide else "Wall": _duration(r["wall_time_s"]),
        "Images/s": number(r["images_per_s"], ",.0f"),
        "Status": escape(_status(r)) if wide and of else of or "",
        "Run": word("run_id")[:8],
        "Trained in": word("trained_in"),
    }


def _loss(r: dict[str, Any], split: str, wide: bool) -> str:
    recon, kl, beta = r[f"{split}_recon"], r[f"{split}_kl"], r["beta"]
    loss = number(r[f"{split}_loss"], spec(r["reduction"]))
    if not loss or None in (recon, kl, beta):
        return loss
    said = terms(recon, kl, beta, r["reduction"])
    return f"{loss} ({said if wide else said.replace(' ', '')})"


def _status(r: dict[str, Any]) -> str:
    """The status, with the reason of a failure."""
    if r["status"] not in ("FAILED", "KILLED") or not r["reason"]:
        return str(r["status"])
    reason = one_line(r["reason"])
    return f"{r['status']}: {reason if len(reason) <= REASON_LENGTH else reason[: REASON_LENGTH - 3] + '...'}"


def _duration(seconds: float | None) -> str:
    if seconds is None or not is_finite(seconds):
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def _seeds(rows: Sequence[Row]) -> str:
    """How many seeds the cells have."""
    seeds: dict[Any, set[int | None]] = defaultdict(set)
    for row in rows:
        seeds[setting(row), row.model].add(row.seed)
    counts = sorted(map(len, seeds.values())) or [0]
    if counts[-1] <= 1:
        return "One seed per cell: noise between seeds was not measured, so nothing can be said about it."
    return f"{counts[0]}{f' to {counts[-1]}' if counts[0] != counts[-1] else ''} seeds per cell."


def _trainings(records: Sequence[dict[str, Any]]) -> list[str]:
    """The runs of each state of training but the good one; the caption says what all of them share."""
    named: dict[str, list[str]] = defaultdict(list)
    for r in records:
        if r["training_state"] not in (None, CONVERGED):
            named[r["training_state"]].append(r["name"])
    runs = sum(r["status"] != "REFERENCE" for r in records)
    return [f"{', '.join(names)}: {state}." for state, names in named.items() if len(names) < runs]
