"""The comparison as a table, for a terminal and as Markdown, with a caption that says what its columns mean."""

from __future__ import annotations

import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from vae_sweep.comparison.convergence import CONVERGED, caveat
from vae_sweep.comparison.rows import REFERENCE, Row, is_finite, ordered
from vae_sweep.metrics.losses import number, spec, terms, unit

_REASON_LENGTH = 80


def markdown(rows: Sequence[Row], title: str = "Comparison", max_chars: int | None = None) -> str:
    """The table with its caption. With `max_chars`, runs (last first) are left out until it fits, and counted.

    MLflow cuts a description at 8,000 characters; about 20 runs fit.
    """
    found = ordered(rows)
    head, body = _table(found, REFERENCE, _markdown_escape)
    lines = []
    for record, cells in zip(found, body, strict=True):
        if record["status"] == "REFERENCE":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    top = f"### {_markdown_escape(title)}\n\n" if title else ""
    top += "| " + " | ".join(head) + " |\n|" + "|".join(" --- " for _ in head) + "|\n"
    end = f"\n{caption(rows)}\n"

    # Runs go first: without the reference the rest of the table cannot be read.
    runs = [i for i, record in enumerate(found) if record["status"] != "REFERENCE"]
    drop = [i for i in range(len(found)) if i not in set(runs)] + runs
    kept = set(range(len(found)))
    while True:
        left_out = len(found) - len(kept)
        note = f"\n... and {left_out} more rows: see comparison.csv\n" if left_out else ""
        text = top + "".join(lines[i] + "\n" for i in sorted(kept)) + note + end
        if max_chars is None or len(text) <= max_chars or not drop:
            return text
        kept.discard(drop.pop())


def text(rows: Sequence[Row], title: str = "Comparison") -> str:
    """The same table for a terminal: aligned, at most 160 wide for usual names.

    Reasons of failures, and how trainings ended that did not converge, stand below.
    """
    found = ordered(rows)
    head, body = _table(found, "linear*", one_line, wide=False)
    head = [name.replace(" loss", "").replace(" time", "") for name in head]  # width is scarce here
    body = [[re.sub(r" ([+*]) ", r"\1", cell) if cell.endswith(")") else cell for cell in cells] for cells in body]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    left = {head.index(name) for name in ("Data", "Set", "Model", "Variant", "Status", "Run") if name in head}
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in [head, ["-" * width for width in widths], *body]
    ]
    lines += [
        f"{r['name']} {status_text(r, reasons=True)}"
        for r in found
        if r["status"] in ("FAILED", "KILLED") and r["reason"]
    ]
    lines += [line for part in _trainings(found) for line in textwrap.wrap(part, 158)]
    notes = [line for part in caption(rows).split(". ") for line in textwrap.wrap(part.rstrip(".") + ".", 158)]
    notes += [f"* {REFERENCE}."] if any(r["status"] == "REFERENCE" for r in found) else []
    return "\n".join([title, "", *lines, "", *notes]) + "\n"


def caption(rows: Sequence[Row]) -> str:
    """What the columns mean: units, direction, splits, seeds, the reference."""
    found = [r for r in ordered(rows) if r["status"] != "REFERENCE"]
    data = ", ".join(sorted({r["dataset"] for r in found if r["dataset"]})) or "unknown"
    losses = sorted({(r["reduction"], r["beta"]) for r in found if r["beta"] is not None and r["reduction"]})
    said = "; ".join(f"{reduction}, beta {beta:g}" for reduction, beta in losses) or "unknown"
    measured = f"Losses in {unit({r for r, _ in losses})}".removesuffix(" in ")
    parts = [
        f"Data: {data}.",
        f"{measured}, lower is better: loss = recon + beta * kl (squared error: {said}).",
        "Train, Val, Test = images the loss is averaged over; Val chose the epoch, Test was used once, at the end.",
        "Epochs = run until training stopped; Best = the epoch whose weights count.",
        caveat([r["training_state"] for r in found if r["status"] == "FINISHED"], remedies=True),
        "Vs linear = test loss minus that of the closed-form optimal linear VAE (probabilistic PCA of the training "
        "images, same loss and latent size); negative is better than it.",
        seeds_sentence(found),
    ]
    if any(reduction == "mean" for reduction, _ in losses):
        parts.insert(2, "With reduction mean the squared error is averaged over an image's values: not nats.")
    if len(losses) > 1 or "," in data:
        parts.insert(2, "Compare losses only within the same data, beta and reduction.")
    return " ".join(filter(None, parts))


def seeds_sentence(runs: list[dict[str, Any]]) -> str:
    seeds: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for r in runs:
        seeds[(*cell_key(r), r["model"])].add(r["seed"])
    counts = sorted(map(len, seeds.values())) or [0]
    if counts[-1] <= 1:
        return "One seed per cell: noise between seeds was not measured, so nothing can be said about it."
    span = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{span} seeds per cell."


def cell_key(record: dict[str, Any]) -> tuple[Any, ...]:
    """All that two runs must share, but model and seed, for their difference to mean something."""
    keys = ("dataset", "params", "variant", "batch_size", "lr", "schedule", "latent_dim", "beta", "reduction", "shared")
    return tuple(record[key] for key in keys)


def status_text(record: dict[str, Any], reasons: bool = False) -> str:
    if record["status"] == "REFERENCE":
        return ""
    if record["status"] in ("FAILED", "KILLED") and reasons and record["reason"]:
        reason = one_line(record["reason"])
        return f"{record['status']}: " + (
            reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 3] + "..."
        )
    return str(record["status"])


def one_line(value: str) -> str:
    return " ".join(value.split())


def _table(
    found: list[dict[str, Any]], reference: str, escape: Callable[[str], str], wide: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Header and cells, as text; a column that would say the same in every row is left to the caption.

    What :func:`text` says below the table has no place in it unless ``wide``.
    """
    runs = [r for r in found if r["status"] != "REFERENCE"]
    summed = "recon + kl" if {r["beta"] for r in runs} <= {None, 1.0} else "recon + beta * kl"
    columns: list[tuple[str, bool, Callable[[dict[str, Any]], str]]] = [
        ("Data", len({r["dataset"] for r in runs}) > 1, lambda r: escape(r["dataset"])),
        ("Set", True, lambda r: escape(r["params"] or "")),
        ("Model", True, lambda r: reference if r["status"] == "REFERENCE" else escape(r["model"])),
        ("Variant", any(r["variant"] for r in runs), lambda r: escape(r["variant"] or "")),
        ("Seed", len({r["seed"] for r in runs} - {None}) > 1, lambda r: number(r["seed"], "d")),
        ("Batch", True, lambda r: number(r["batch_size"], "d")),
        ("LR", True, lambda r: number(r["lr"], "g")),
        (
            "Schedule",
            bool({r["schedule"] for r in runs} - {None, "constant"}),
            lambda r: escape(r["schedule"] or ""),
        ),
        ("Latent", True, lambda r: str(r["latent_dim"] or "")),
        ("Beta", len({r["beta"] for r in runs} - {None}) > 1, lambda r: number(r["beta"], "g")),
        (
            "Reduction",
            len({r["reduction"] for r in runs} - {None}) > 1,
            lambda r: escape(r["reduction"] or ""),
        ),
        ("Parameters", True, lambda r: number(r["n_parameters"], ",d")),
        ("Epochs", True, lambda r: number(r["epochs"], "d")),
        ("Best", True, lambda r: number(r["best_epoch"], "d")),
        (
            "Training",
            wide and not {r["training_state"] for r in runs} <= {None, CONVERGED},
            lambda r: escape(r["training_state"] or ""),
        ),
        (f"Train loss ({summed})", True, lambda r: _loss(r, "train")),
        ("Val loss", True, lambda r: number(r["val_loss"], spec(r["reduction"]))),
        (f"Test loss ({summed})", True, lambda r: _loss(r, "test")),
        ("vs linear", True, lambda r: number(r["distance_to_linear"], "+" + spec(r["reduction"]))),
        ("Wall time", True, lambda r: _duration(r["wall_time_s"])),
        ("Images/s", True, lambda r: number(r["images_per_s"], ",.0f")),
        ("Status", any(r["status"] != "FINISHED" for r in runs), lambda r: escape(status_text(r, wide))),
        ("Run", True, lambda r: escape((r["run_id"] or "")[:8])),
        ("Trained in", any(r["trained_in"] for r in runs), lambda r: escape(r["trained_in"] or "")),
    ]
    shown = [(name, cell) for name, wanted, cell in columns if wanted]
    return [name for name, _ in shown], [[cell(record) for _, cell in shown] for record in found]


def _trainings(found: list[dict[str, Any]]) -> list[str]:
    """The runs of each state of training but the good one; the caption says what all of them share."""
    named: dict[str, list[str]] = defaultdict(list)
    for r in found:
        if r["training_state"] not in (None, CONVERGED):
            named[r["training_state"]].append(r["name"])
    runs = sum(r["status"] != "REFERENCE" for r in found)
    return [f"{', '.join(names)}: {state}." for state, names in named.items() if len(names) < runs]


def _loss(record: dict[str, Any], split: str) -> str:
    known = {key: record[f"{split}_{key}"] for key in ("recon", "kl")} | {"beta": record["beta"]}
    loss = number(record[f"{split}_loss"], spec(record["reduction"]))
    if not loss or None in known.values():
        return loss
    return f"{loss} ({terms(**known, reduction=record['reduction'])})"


def _duration(seconds: float | None) -> str:
    if not is_finite(seconds) or seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def _markdown_escape(value: str) -> str:
    return one_line(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
