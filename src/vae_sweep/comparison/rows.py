"""What is known of a sweep's runs, as rows, and the one table that every output is made from.

Pure: the same rows give the same table, whatever state their runs are in, so it can be made again after every job.
Losses are nats/image (lower is better) and comparable only at equal `beta`, `reduction`, `variance` and data.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

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
    schedule: str  # constant, or one_cycle with its epochs; and whether images are mirrored
    latent_dim: int
    beta: float
    reduction: str
    variance: str = "0.5"  # of the decoder: a number, optimal or learned
    key: str = ""  # identity of its run
    settings: str = ""  # hash of its configuration alone
    made_of: tuple[tuple[str, str], ...] = ()  # images and code, by name
    overrides: tuple[str, ...] = ()  # those that set its job apart
    baseline: str | None = None  # its model's, see pairing; "" names none, None is unknown
    flops: float = 0.0  # of its training, at most: floating-point operations of all passes; 0.0: unknown


@dataclass(frozen=True)
class LinearRow:
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
    variance: str = "0.5"  # of the decoder: a number, optimal or learned


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
    variance: str | None = None  # of the decoder: a number, optimal or learned
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
    reference: LinearRow | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)  # every held-out metric by its key, such as test/psnr
    configuration: Mapping[str, str] = field(default_factory=dict)  # what decides its numbers, once it has started
    key: str = ""  # identity of the run; what makes two rows the same one
    baseline: str | None = None  # of its model, see pairing


NOT_SHOWN = ("reference", "metrics", "digest", "configuration", "key", "baseline")
COLUMNS = [f.name for f in fields(Row) if f.name not in NOT_SHOWN]
COLUMNS.insert(COLUMNS.index("wall_time_s"), "distance_to_linear")
COLUMNS.insert(COLUMNS.index("n_parameters"), "active_latents")


def frame(rows: Sequence[Row]) -> DataFrame:
    """Return a table of the runs by dataset, set, variant, model and seed; each dataset ends with its closed forms.

    Columns: :data:`COLUMNS`, then the held-out metrics that some run has. Its objects are str, int, float and None for
    what is unknown. `distance_to_linear` = test loss minus that of the closed form, negative is better than it. Closed
    forms (status REFERENCE) that differ in `latent_dim` alone are one row with `latent_dim` "128, 256".
    """
    import pandas as pd  # here, since it takes a second and refusals should not

    linear = [row.reference for row in rows if row.reference]
    found = [*map(_run, rows), *_closed_forms(linear)]
    heldout = {key for metrics in [row.metrics for row in rows] + [row.metrics for row in linear] for key in metrics}
    columns = [*COLUMNS, *sorted(heldout - {f"test/{term}" for term in ("loss", "recon", "kl")})]
    table = pd.DataFrame(
        [[record.get(column) for column in columns] for record in found], columns=columns, dtype=object
    )
    closed = table["status"] == "REFERENCE"
    latents = table["latent_dim"].where(closed, 0).map(lambda sizes: int(str(sizes).split(",")[0]))
    keys = ["dataset", "closed", "latents", "params", "variant", "model", "seed", "name", "run_id"]
    order = table.assign(closed=closed, latents=latents).sort_values(keys, na_position="first").index
    return table.loc[order].reset_index(drop=True)


def finite(table: DataFrame) -> DataFrame:
    """Return the table with None for numbers that are not finite, as JSON and CSV take it."""
    known = [[not isinstance(v, float) or math.isfinite(v) for v in row] for row in table.itertuples(index=False)]
    return table.where(known, None) if known else table


def to_json(table: DataFrame) -> str:
    """Return the finite table as JSON records; pandas' own writer rounds numbers to 15 digits."""
    return json.dumps(finite(table).to_dict("records"), indent=2, allow_nan=False) + "\n"


def to_csv(table: DataFrame) -> str:
    """Return the finite table as CSV with a header; None is an empty field."""
    return finite(table).to_csv(index=False, lineterminator="\n")


def _run(row: Row) -> dict[str, Any]:
    distance = None
    if row.reference and row.test_loss is not None and math.isfinite(row.test_loss - row.reference.test_loss):
        distance = row.test_loss - row.reference.test_loss
    return {**row.metrics, **vars(row), "distance_to_linear": distance}


def _closed_forms(found: Sequence[LinearRow]) -> list[dict[str, Any]]:
    """One record for all that differ in nothing but their latents, with the metrics that are alike to 0.1 %."""
    same: dict[tuple[Any, ...], list[LinearRow]] = defaultdict(list)
    for linear in found:
        same[tuple(value for key, value in vars(linear).items() if key not in ("latent_dim", "metrics"))].append(linear)
    records = []
    for group in same.values():
        sizes = sorted({linear.latent_dim for linear in group})
        first, *others = (linear.metrics for linear in group)
        alike = {
            key: value
            for key, value in first.items()
            if all(math.isclose(value, other.get(key, math.nan), rel_tol=1e-3) for other in others)
        }
        names = {"name": REFERENCE, "model": REFERENCE, "status": "REFERENCE", "active_latents": group[0].active}
        latents = sizes[0] if len(sizes) == 1 else ", ".join(map(str, sizes))
        records.append({**alike, **vars(group[0]), **names, "latent_dim": latents})
    return records


def with_unique_names(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with names that say what sets equal ones apart: the dataset, or else the run."""
    for form in ("{0.name}", "{0.name} on {0.dataset}", "{0.name} on {0.dataset}, {0.run_id}"):
        names = [form.format(row) for row in rows]
        if len(set(names)) == len(names):
            break
    return [replace(row, name=name) for row, name in zip(rows, names, strict=True)]


def is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def schedule_label(schedule: str, epochs: int | None, mirror: bool) -> str:
    """Return how tables call a schedule of the learning rate: ``constant``, ``one_cycle over 8 epochs, mirrored``."""
    label = schedule if epochs is None else f"{schedule} over {epochs} epochs"
    return f"{label}, mirrored" if mirror else label


def loss_label(row: Row) -> str:
    """Return how tables call a loss: ``beta 1, sum``, and with another variance ``beta 1, variance optimal``."""
    return f"beta {row.beta:g}, " + (str(row.reduction) if has_squared_error(row) else f"variance {row.variance}")


def has_squared_error(row: Row) -> bool:
    """Return whether the recon of a loss is the squared error itself, summed or averaged."""
    return row.reduction == "mean" or row.variance in (None, "0.5")


def data_label(name: str, permuted: bool) -> str:
    """Return how tables call a dataset: ``cifar10``, or ``cifar10 (pixels permuted)``."""
    return f"{name}{PERMUTED}" if permuted else name
