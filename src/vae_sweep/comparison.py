"""Rows of a sweep -> the comparison, as records, Markdown, text, CSV and JSON, and one honest paragraph.

Pure: the same rows give the same text, whatever state their runs are in, so a table can be rewritten after every
job. Losses are nats/image (lower is better) and comparable only at equal `beta`, `reduction` and data.
"""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
import statistics
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

REFERENCE = "linear (closed form)"
_SPLITS = ("train", "val", "test")
_REASON_LENGTH = 80


@dataclass(frozen=True)
class ReferenceRow:
    """The closed-form linear VAE (probabilistic PCA of the training images) on one run's loss."""

    dataset: str
    latent_dim: int
    beta: float
    reduction: str
    active: int  # latents in use
    train_loss: float  # nats/image, as all losses here
    train_recon: float
    train_kl: float
    val_loss: float
    val_recon: float
    val_kl: float
    test_loss: float
    test_recon: float
    test_kl: float


@dataclass(frozen=True)
class Row:
    """What is known of one run so far; None is unknown."""

    run_id: str | None
    name: str
    status: str  # FINISHED | RUNNING | FAILED | KILLED | PENDING
    reason: str | None = None  # why it failed
    dataset: str = ""
    model: str = ""
    params: str = ""  # name of the hyperparameter set
    seed: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    latent_dim: int | None = None
    beta: float | None = None
    reduction: str | None = None
    n_parameters: int | None = None
    epochs: int | None = None  # run until training stopped
    best_epoch: int | None = None
    train_loss: float | None = None
    train_recon: float | None = None
    train_kl: float | None = None
    val_loss: float | None = None
    val_recon: float | None = None
    val_kl: float | None = None
    test_loss: float | None = None
    test_recon: float | None = None
    test_kl: float | None = None
    wall_time_s: float | None = None
    images_per_s: float | None = None
    reference: ReferenceRow | None = None


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat, JSON-able dict per run, then per distinct reference of its dataset; numbers not finite are None.

    Losses in nats/image; `distance_to_linear` = test loss minus that of the closed form, negative is better than it.
    References that differ in `latent_dim` alone are one record with `latent_dim` "128, 256".
    """
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in r.items()}
        for r in _records(rows)
    ]


def column_dict(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The records by column, all of one length, as `mlflow.log_table` takes them: str, int, float or None."""
    found = records(rows)
    return {column: [record[column] for record in found] for column in _COLUMNS}


def json_text(rows: Sequence[Row]) -> str:
    """The records as JSON."""
    return json.dumps(records(rows), indent=2, allow_nan=False) + "\n"


def csv(rows: Sequence[Row]) -> str:
    """The records as CSV with a header; None is an empty field."""
    out = io.StringIO()
    writer = csv_format.DictWriter(out, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(rows))
    return out.getvalue()


def markdown(rows: Sequence[Row], title: str = "Comparison", max_chars: int | None = None) -> str:
    """The table with its caption. With `max_chars`, runs (last first) are left out until it fits, and counted.

    MLflow cuts a description at 8,000 characters; about 20 runs fit.
    """
    found = _records(rows)
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
    """The same table for a terminal: aligned, at most 160 wide for usual names, reasons of failures below."""
    found = _records(rows)
    head, body = _table(found, "linear*", _one_line, reasons=False)
    head = [name.replace(" loss", "").replace(" time", "") for name in head]  # width is scarce here
    body = [[cell.replace(" + ", "+") if cell.endswith(")") else cell for cell in cells] for cells in body]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    left = {head.index(name) for name in ("Data", "Set", "Model", "Status", "Run") if name in head}
    lines = [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in [head, ["-" * width for width in widths], *body]
    ]
    lines += [f"{r['name']} {_status(r, reasons=True)}" for r in found if r["status"] == "FAILED" and r["reason"]]
    notes = [line for part in caption(rows).split(". ") for line in textwrap.wrap(part.rstrip(".") + ".", 158)]
    notes += [f"* {REFERENCE}."] if any(r["status"] == "REFERENCE" for r in found) else []
    return "\n".join([title, "", *lines, "", *notes]) + "\n"


def caption(rows: Sequence[Row]) -> str:
    """What the columns mean: units, direction, splits, seeds, the reference."""
    found = [r for r in _records(rows) if r["status"] != "REFERENCE"]
    data = ", ".join(sorted({r["dataset"] for r in found if r["dataset"]})) or "unknown"
    losses = sorted({(r["reduction"], r["beta"]) for r in found if r["beta"] is not None and r["reduction"]})
    said = "; ".join(f"{reduction}, beta {beta:g}" for reduction, beta in losses) or "unknown"
    parts = [
        f"Data: {data}.",
        f"Losses in nats/image, lower is better: loss = recon + beta * kl (squared error: {said}).",
        "Train, Val, Test = images the loss is averaged over; Val chose the epoch, Test was used once, at the end.",
        "Epochs = run until training stopped; Best = the epoch whose weights count.",
        "Vs linear = test loss minus that of the closed-form optimal linear VAE (probabilistic PCA of the training "
        "images, same loss and latent size); negative is better than it.",
        _seeds_sentence(found),
    ]
    if any(reduction == "mean" for reduction, _ in losses):
        parts.insert(2, "With reduction mean the squared error is averaged over an image's values: not nats.")
    if len(losses) > 1 or "," in data:
        parts.insert(2, "Compare losses only within the same data, beta and reduction.")
    return " ".join(parts)


def summary(rows: Sequence[Row]) -> str:
    """What these rows allow one to say: differences between models per set, the linear reference, what is missing.

    Differences are paired on equal data, hyperparameters and seed, in nats/image of test loss; finished runs only.
    """
    runs = [r for r in _records(rows) if r["status"] != "REFERENCE"]
    done = [r for r in runs if r["status"] == "FINISHED" and _finite(r["test_loss"])]
    missing = [f"{_one_line(r['name'])} ({_status(r)})" for r in runs if r not in done]
    absent = [f"Not in this comparison: {', '.join(missing)}."] if missing else []
    if not done:
        return " ".join(["No run has a test loss yet: nothing can be compared.", *absent])
    models = sorted({r["model"] for r in done})
    nonlinear = [model for model in models if model != "linear"]
    base = "conv" if "conv" in nonlinear else (nonlinear or models)[0]
    parts = [_differences(done, other, base) for other in nonlinear if other != base]
    parts += [_seeds_sentence(done)]
    stands = [_standing(model, [r for r in done if r["model"] == model]) for model in models]
    if any(stands):
        parts.append(f"Against the closed-form linear VAE, in test loss: {'; '.join(filter(None, stands))}.")
    return " ".join([*filter(None, parts), *absent])


def _records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Runs sorted by (dataset, set, model, seed), each dataset's references after its runs; numbers as they are."""
    blank = dict.fromkeys(_COLUMNS)
    found = []
    groups: dict[tuple[Any, ...], list[ReferenceRow]] = defaultdict(list)
    for row in rows:
        record = blank | {name: value for name, value in vars(row).items() if name in blank}
        if row.reference is not None:
            numbers = asdict(row.reference)
            groups[tuple(value for key, value in numbers.items() if key != "latent_dim")].append(row.reference)
            if _finite(row.test_loss) and _finite(row.reference.test_loss):
                assert row.test_loss is not None
                record["distance_to_linear"] = row.test_loss - row.reference.test_loss
        found.append(record)
    for same in groups.values():
        sizes = sorted({reference.latent_dim for reference in same})
        known = asdict(same[0]) | {"latent_dim": sizes[0] if len(sizes) == 1 else ", ".join(map(str, sizes))}
        known["active_latents"] = known.pop("active")
        found.append(blank | known | {"name": REFERENCE, "model": REFERENCE, "status": "REFERENCE"})

    def order(record: dict[str, Any]) -> tuple[Any, ...]:
        reference = record["status"] == "REFERENCE"
        size = int(str(record["latent_dim"]).split(",")[0]) if reference else -1
        keys = (record["params"] or "", record["model"], -1 if record["seed"] is None else record["seed"])
        return record["dataset"], reference, size, *keys, record["name"], record["run_id"] or ""

    return sorted(found, key=order)


_COLUMNS = [f.name for f in fields(Row) if f.name != "reference"]
_COLUMNS.insert(_COLUMNS.index("wall_time_s"), "distance_to_linear")
_COLUMNS.insert(_COLUMNS.index("n_parameters"), "active_latents")


def _table(
    found: list[dict[str, Any]], reference: str, escape: Callable[[str], str], reasons: bool = True
) -> tuple[list[str], list[list[str]]]:
    """Header and cells, as text; a column that would say the same in every row is left to the caption."""
    runs = [r for r in found if r["status"] != "REFERENCE"]
    columns: list[tuple[str, bool, Callable[[dict[str, Any]], str]]] = [
        ("Data", len({r["dataset"] for r in runs}) > 1, lambda r: escape(r["dataset"])),
        ("Set", True, lambda r: escape(r["params"] or "")),
        ("Model", True, lambda r: reference if r["status"] == "REFERENCE" else escape(r["model"])),
        ("Seed", len({r["seed"] for r in runs} - {None}) > 1, lambda r: _number(r["seed"], "d")),
        ("Batch", True, lambda r: _number(r["batch_size"], "d")),
        ("LR", True, lambda r: _number(r["lr"], "g")),
        ("Latent", True, lambda r: str(r["latent_dim"] or "")),
        ("Beta", len({r["beta"] for r in runs} - {None}) > 1, lambda r: _number(r["beta"], "g")),
        (
            "Reduction",
            len({r["reduction"] for r in runs} - {None}) > 1,
            lambda r: escape(r["reduction"] or ""),
        ),
        ("Parameters", True, lambda r: _number(r["n_parameters"], ",d")),
        ("Epochs", True, lambda r: _number(r["epochs"], "d")),
        ("Best", True, lambda r: _number(r["best_epoch"], "d")),
        ("Train loss (recon + kl)", True, lambda r: _loss(r, "train")),
        ("Val loss", True, lambda r: _number(r["val_loss"], _digits(r))),
        ("Test loss (recon + kl)", True, lambda r: _loss(r, "test")),
        ("vs linear", True, lambda r: _number(r["distance_to_linear"], "+" + _digits(r))),
        ("Wall time", True, lambda r: _duration(r["wall_time_s"])),
        ("Images/s", True, lambda r: _number(r["images_per_s"], ",.0f")),
        ("Status", any(r["status"] != "FINISHED" for r in runs), lambda r: escape(_status(r, reasons))),
        ("Run", True, lambda r: escape((r["run_id"] or "")[:8])),
    ]
    shown = [(name, cell) for name, wanted, cell in columns if wanted]
    return [name for name, _ in shown], [[cell(record) for _, cell in shown] for record in found]


def _finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _number(value: float | None, spec: str) -> str:
    """The number, nothing when unknown, and the word when it is not finite: divergence should be seen."""
    if value is None:
        return ""
    return format(value, spec) if math.isfinite(value) else str(float(value))


def _digits(record: dict[str, Any]) -> str:
    return ".4f" if record["reduction"] == "mean" else ".2f"  # averaged squared errors are about 0.06


def _loss(record: dict[str, Any], split: str) -> str:
    loss, recon, kl = (_number(record[f"{split}_{term}"], _digits(record)) for term in ("loss", "recon", "kl"))
    return f"{loss} ({recon} + {kl})" if loss and recon and kl else loss


def _duration(seconds: float | None) -> str:
    if not _finite(seconds) or seconds is None:
        return ""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}h{m:02d}m" if hours else f"{m}m{s:02d}s" if m else f"{s}s"


def _status(record: dict[str, Any], reasons: bool = False) -> str:
    if record["status"] == "REFERENCE":
        return ""
    if record["status"] == "FAILED" and reasons and record["reason"]:
        reason = _one_line(record["reason"])
        return "FAILED: " + (reason if len(reason) <= _REASON_LENGTH else reason[: _REASON_LENGTH - 3] + "...")
    return str(record["status"])


def _one_line(value: str) -> str:
    return " ".join(value.split())


def _markdown_escape(value: str) -> str:
    return _one_line(value).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _cell(record: dict[str, Any]) -> tuple[Any, ...]:
    """All that two runs must share, but model and seed, for their difference to mean something."""
    keys = ("dataset", "params", "batch_size", "lr", "latent_dim", "beta", "reduction")
    return tuple(record[key] for key in keys)


def _seeds_sentence(runs: list[dict[str, Any]]) -> str:
    seeds: dict[tuple[Any, ...], set[Any]] = defaultdict(set)
    for r in runs:
        seeds[(*_cell(r), r["model"])].add(r["seed"])
    counts = sorted(map(len, seeds.values())) or [0]
    if counts[-1] <= 1:
        return "One seed per cell: noise between seeds was not measured, so nothing can be said about it."
    span = str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
    return f"{span} seeds per cell."


def _differences(done: list[dict[str, Any]], model: str, base: str) -> str:
    """Mean difference of test losses, model minus base, per set, over the seeds that both have."""
    losses: dict[tuple[Any, ...], dict[Any, dict[str, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for r in done:
        losses[_cell(r)][r["seed"]][r["model"]].append(r["test_loss"])
    names = [cell[:2] for cell in losses]
    said = []
    for cell, seeds in losses.items():
        pairs = [by[model] for by in seeds.values()], [by[base] for by in seeds.values()]
        d = [statistics.fmean(m) - statistics.fmean(b) for m, b in zip(*pairs, strict=True) if m and b]
        if not d:
            continue
        data, params, batch, lr, latent, beta, reduction = cell
        label = params if len({name[0] for name in names}) == 1 else f"{data} {params}"
        if names.count(cell[:2]) > 1:
            label += f" [batch {batch}, lr {lr}, latent {latent}, beta {beta}, {reduction}]"
        spread = f" (mean of {len(d)} seeds, sd {statistics.stdev(d):.2f})" if len(d) > 1 else ""
        said.append(f"{label} {statistics.fmean(d):+{'.4f' if reduction == 'mean' else '.2f'}}{spread}")
    if not said:
        return f"{model} and {base} share no finished cell (same data, hyperparameters and seed)."
    return f"Test loss of {model} minus {base}, nats/image (positive: {base} is better): {', '.join(said)}."


def _standing(model: str, runs: list[dict[str, Any]]) -> str:
    """How often a model beats the closed form, and by how much."""
    found = sorted((r["distance_to_linear"], _digits(r)) for r in runs if _finite(r["distance_to_linear"]))
    if not found:
        return ""
    better = sum(distance < 0 for distance, _ in found)
    word, count = ("better", better) if better else ("worse", sum(distance > 0 for distance, _ in found))
    ends = [_number(distance, "+" + digits) for distance, digits in (found[0], found[-1])]
    span = ends[0] if len(found) == 1 else " to ".join(ends)
    return f"{model} is {word} in {count} of {len(found)} runs ({span})"
