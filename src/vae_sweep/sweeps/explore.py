"""The slider page of finished sweeps, from their checkpoints: one run of each cell, that of the lowest seed."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError, first_line
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.rows import Row
from vae_sweep.datasets import ImageDataset, Source
from vae_sweep.metrics.losses import number, spec, unit
from vae_sweep.models.vae import VAE
from vae_sweep.report import presentation as show
from vae_sweep.report.explore import Explorer, Subject, explorer
from vae_sweep.sweeps.preparation import dataset_of
from vae_sweep.tracking.store import Store
from vae_sweep.training import checkpoint

log = logging.getLogger(__name__)

T = TypeVar("T")
NAME = "explore.html"  # artifact of the sweep's run
MAX_MODELS = 24  # of a page


def explore(store: Store, evidence: Evidence, root: Path) -> Explorer | None:
    """Return the page of these sweeps, seen from the folder ``root``; None where no run can be shown.

    A run without a checkpoint or without its images is left out, with a line in the log.
    """
    finished = [
        row
        for rows in show.cells(evidence).values()
        for row in [row for row in show.by_seed(rows) if row.status == "FINISHED"][:1]
    ]
    if len(finished) > MAX_MODELS:
        log.warning("%s: it shows the first %d of %d models", NAME, MAX_MODELS, len(finished))
    several = len({row.dataset for row in finished}) > 1
    page = explorer(evidence.title, _subjects(store, finished[:MAX_MODELS], root, several), len(finished))
    if finished and not page.models:
        log.warning("%s is not written: %s", NAME, page.said)
    return page if page.models else None


def attempt(store: Store, evidence: Evidence, root: Path) -> Explorer | None:
    """Return :func:`explore`, and None with a line in the log where it fails: the page is not what a sweep is for."""
    try:
        return explore(store, evidence, root)
    except Exception as error:
        log.warning("%s could not be made (%s: %s)", NAME, type(error).__name__, first_line(error))
        return None


def _subjects(store: Store, rows: Sequence[Row], root: Path, named: bool) -> Iterator[Subject]:
    """What the page shows, one run after the other; ``named``: titles have the dataset's name."""
    known: dict[str, ImageDataset | UserError] = {}  # by configuration
    left_out: dict[str, list[str]] = {}  # by reason
    for row in rows:
        cell = show.cell_of(row)
        where = f" on {cell.dataset}" if named else ""
        try:
            yield _subject(store, row, f"{cell.model}, {cell.params}, seed {row.seed}{where}", root, known)
        except UserError as error:
            left_out.setdefault(str(error), []).append(row.name)
    for reason, names in left_out.items():
        log.warning("%s leaves out %s: %s", NAME, ", ".join(names), reason)


def _subject(store: Store, row: Row, title: str, root: Path, known: dict[str, ImageDataset | UserError]) -> Subject:
    """What the page shows of a run.

    Raises:
        UserError: where its checkpoint or its images are not there, or are other ones.
    """
    with store.artifact(row.run_id or "", "checkpoint.pt") as path:
        if path is None:
            raise UserError("it has no checkpoint")
        model, content = checkpoint.load(path, _imported(row.configuration.get("model._target_"), VAE))
    key = json.dumps(content["config"]["dataset"], sort_keys=True, default=str)
    if key not in known:
        try:
            known[key] = _images(content["config"], row.run_id or "", root)
        except UserError as error:
            known[key] = error
    dataset = known[key]
    if isinstance(dataset, UserError):
        raise dataset
    if row.digest not in (None, dataset.digest):
        raise UserError(f"the images of {dataset.name} have changed since it was trained")
    loss = f"test loss {number(row.test_loss, spec(row.reduction))} {unit([row.reduction or 'sum'])}".rstrip()
    return Subject(title, loss, row.dataset, model, dataset.test, dataset.facts)


def _images(config: dict[str, Any], run: str, root: Path) -> ImageDataset:
    """The images of a run's configuration, where nothing needs to be downloaded for them."""
    node = config["dataset"] | ({"download": False} if "download" in config["dataset"] else {})
    target = node.get("_target_")
    trusted = _imported(target, Source) is not None  # type: ignore[type-abstract]
    return dataset_of({**config, "dataset": node}, run, root, target if trusted else None)


def _imported(target: Any, base: type[T]) -> type[T] | None:
    """The class at a dotted path if its module is imported already, as the sweep's own process does; else None.

    A checkpoint may name any module: none is imported for it.
    """
    module = str(target).rpartition(".")[0]
    return plugins.find(str(target), base, "model._target_") if module in sys.modules else None
