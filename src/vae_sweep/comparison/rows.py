"""Rows of a sweep -> records, CSV and JSON.

Pure: the same rows give the same records, whatever state their runs are in, so a table can be rewritten after every
job. Losses are nats/image (lower is better) and comparable only at equal `beta`, `reduction` and data.
"""

from __future__ import annotations

import csv as csv_format
import io
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from vae_sweep.comparison import identity

REFERENCE = "linear (closed form)"
PERMUTED = " (pixels permuted)"  # after a dataset's name in tables


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's values."""

    name: str  # of its run, until somebody renames that
    variant: str  # what sets it apart beside model, params and seed; "" where nothing else is swept
    dataset: str
    model: str
    params: str
    seed: int
    batch_size: int
    lr: float
    schedule: str  # constant, or one_cycle with its epochs; and whether pictures are mirrored
    latent_dim: int
    beta: float
    reduction: str
    key: str = ""  # identity of its run; stored sweeps of earlier versions have none
    settings: str = ""  # hash of its configuration alone
    made_of: tuple[tuple[str, str], ...] = ()  # images and code, by name
    overrides: tuple[str, ...] = ()  # those that tell its job from the others


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
    metrics: Mapping[str, float] = field(default_factory=dict)  # held-out metrics of this model by key


@dataclass(frozen=True)
class Row:
    """What is known of one run so far; None is unknown."""

    run_id: str | None
    name: str
    status: str  # FINISHED | RUNNING | FAILED | KILLED | PENDING
    reason: str | None = None  # why it failed
    trained_in: str | None = None  # what trained it, where that was another sweep
    dataset: str = ""
    digest: str | None = None  # sha256 of its images
    model: str = ""
    params: str = ""  # name of the hyperparameter set
    variant: str = ""  # what else sets the run apart in its sweep, such as beta=4
    seed: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    schedule: str | None = None  # of the learning rate: constant, or one_cycle with its epochs
    latent_dim: int | None = None
    beta: float | None = None
    reduction: str | None = None
    n_parameters: int | None = None
    epochs: int | None = None  # run until training stopped
    best_epoch: int | None = None
    training_state: str | None = None  # how training ended: see convergence
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
    metrics: Mapping[str, float] = field(default_factory=dict)  # every held-out metric by its key, such as test/psnr
    configuration: Mapping[str, str] = field(default_factory=dict)  # what decides its numbers, once it has started
    key: str = ""  # identity of the run; what makes two rows the same one


COLUMNS = [f.name for f in fields(Row) if f.name not in ("reference", "metrics", "digest", "configuration", "key")]
COLUMNS.insert(COLUMNS.index("wall_time_s"), "distance_to_linear")
COLUMNS.insert(COLUMNS.index("n_parameters"), "active_latents")


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One flat, JSON-able dict per run, then per distinct reference of its dataset; numbers not finite are None.

    Losses in nats/image; `distance_to_linear` = test loss minus that of the closed form, negative is better than it.
    References that differ in `latent_dim` alone are one record with `latent_dim` "128, 256".
    """
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items() if k != "shared"}
        for r in ordered(rows)
    ]


def column_dict(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The records by column, all of one length, as `mlflow.log_table` takes them: str, int, float or None."""
    found = records(rows)
    return {column: [record[column] for record in found] for column in columns(rows)}


def columns(rows: Sequence[Row]) -> list[str]:
    """The names of a record's fields: COLUMNS, then every other held-out metric that some row has."""
    keys = {key for row in rows for key in row.metrics}
    keys |= {key for row in rows if row.reference for key in row.reference.metrics}
    return COLUMNS + sorted(keys - {f"test/{term}" for term in ("loss", "recon", "kl")})


def json_text(rows: Sequence[Row]) -> str:
    """The records as JSON."""
    return json.dumps(records(rows), indent=2, allow_nan=False) + "\n"


def csv(rows: Sequence[Row]) -> str:
    """The records as CSV with a header; None is an empty field."""
    out = io.StringIO()
    writer = csv_format.DictWriter(out, columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(rows))
    return out.getvalue()


def ordered(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One dict per run and reference, numbers as they are, sorted by dataset, set, variant, model and seed.

    Each dataset's references stand after its runs. ``shared`` is what a run must share with another to be its pair.
    """
    blank: dict[str, Any] = dict.fromkeys(columns(rows))
    found = []
    groups: dict[tuple[Any, ...], list[ReferenceRow]] = defaultdict(list)
    for row in rows:
        values = {**row.metrics, **vars(row)}
        record = blank | {name: value for name, value in values.items() if name in blank}
        record["shared"] = tuple(sorted(identity.shared(row.configuration).items()))
        if row.reference is not None:
            numbers = vars(row.reference)  # not asdict, whose copies would take most of a refresh's time
            groups[tuple(value for key, value in numbers.items() if key not in ("latent_dim", "metrics"))].append(
                row.reference
            )
            if is_finite(row.test_loss) and is_finite(row.reference.test_loss):
                assert row.test_loss is not None
                record["distance_to_linear"] = row.test_loss - row.reference.test_loss
        found.append(record)
    for same in groups.values():
        sizes = sorted({reference.latent_dim for reference in same})
        known = asdict(same[0]) | {"latent_dim": sizes[0] if len(sizes) == 1 else ", ".join(map(str, sizes))}
        known["active_latents"] = known.pop("active")
        shared = set.intersection(*(set(reference.metrics.items()) for reference in same))  # sizes differ in others
        known |= {key: value for key, value in shared if key in blank}
        del known["metrics"]
        found.append(blank | known | {"name": REFERENCE, "model": REFERENCE, "status": "REFERENCE"})

    def order(record: dict[str, Any]) -> tuple[Any, ...]:
        reference = record["status"] == "REFERENCE"
        size = int(str(record["latent_dim"]).split(",")[0]) if reference else -1
        keys = (
            record["params"] or "",
            record["variant"] or "",
            record["model"],
            -1 if record["seed"] is None else record["seed"],
        )
        return record["dataset"], reference, size, *keys, record["name"], record["run_id"] or ""

    return sorted(found, key=order)


def with_unique_names(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with names that say what sets equal ones apart: the dataset, or else the run."""
    for form in ("{0.name}", "{0.name} on {0.dataset}", "{0.name} on {0.dataset}, {0.run_id}"):
        names = [form.format(row) for row in rows]
        if len(set(names)) == len(names):
            break
    return [replace(row, name=name) for row, name in zip(rows, names, strict=True)]


def is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def schedule_label(schedule: str, epochs: int | str | None, mirror: bool) -> str:
    """Return how tables call a schedule of the learning rate: ``constant``, ``one_cycle over 8 epochs, mirrored``."""
    label = schedule if epochs is None else f"{schedule} over {epochs} epochs"
    return f"{label}, mirrored" if mirror else label


def data_label(name: str, permuted: bool) -> str:
    """Return how tables call a dataset: ``cifar10``, or ``cifar10 (pixels permuted)``."""
    return f"{name}{PERMUTED}" if permuted else name
