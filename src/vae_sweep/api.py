"""Trained models, runs, sweeps and datasets as Python objects: ``import vae_sweep as vs``.

Like the commands, these functions look for runs and data in the current folder. ``tracking_uri`` names another MLflow
store; None is MLFLOW_TRACKING_URI where that is set, else ``mlflow.db`` in the current folder. What fails raises a
:class:`UserError` of one line: the value, what is allowed, what to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

    from vae_sweep.comparison.evidence import Evidence
    from vae_sweep.datasets import ImageDataset
    from vae_sweep.models import VAE
    from vae_sweep.tracking.store import Store, StoredRun

__all__ = ["Run", "Sweep", "UserError", "load_dataset", "load_model", "load_run", "load_sweep"]

HISTORY = ("images_seen", *(f"{split}/{term}" for split in ("train", "val") for term in ("loss", "recon", "kl")))
FIRST = ("name", "model", "params", "variant", "seed", "status", "test_loss", "val_loss", "epochs")  # of a table
CONTRAST = ("dataset", "a", "b", "n", "mean", "low", "high", "p", "p_holm", "verdict", "planned", "sentence")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn what Hydra, OmegaConf and the system raise about a wrong value into a UserError of one line."""
    from vae_sweep.config.messages import explain

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = explain(error)
        if reason is None:
            raise
        raise UserError(reason) from error


@_one_line_errors()
def load_model(
    run: str | os.PathLike[str], *, model: type[VAE] | str | None = None, tracking_uri: str | None = None
) -> VAE:
    """Return the trained model of a run, on the CPU and in evaluation mode.

    ``model.sample(n)`` and ``model.decode(z)`` give images (n, C, H, W); ``model.encode(x)`` of images in [0, 1] gives
    the posterior's mean and log variance, (n, latents) each. Decoded images are in [0, 1] where the decoder ends in a
    sigmoid, as in all models of vae_sweep but ``linear``; clamp them otherwise.

    Args:
        run: id of a run, or the beginning of it; its name in the newest sweep; ``last``; or the path of a
            checkpoint.pt, or of its folder.
        model: the class, or its dotted path, where it is not vae_sweep's own. A module that only a checkpoint names
            is never imported.
        tracking_uri: store of the run.

    Raises:
        UserError: for a run or file that does not exist, is damaged, or names a class of somebody else's.
    """
    return open_checkpoint(os.fspath(run), Path.cwd(), tracking_uri, model)[0]


@_one_line_errors()
def load_run(run: str, *, tracking_uri: str | None = None) -> Run:
    """Return a run by its id or its beginning, by its name in the newest sweep, or the newest finished for ``last``.

    Raises:
        UserError: where the store has no such run, or several.
    """
    store = _store(f"run={run}", Path.cwd(), tracking_uri)
    return _run(store, find_run(store, run))


@_one_line_errors()
def load_sweep(sweep: str = "last", *, tracking_uri: str | None = None) -> Sweep:
    """Return a sweep by the id of its own run, or by the beginning of that id, or the newest one.

    Raises:
        UserError: where the store has no such sweep, or several.
    """
    store = _store(f"sweep={sweep}", Path.cwd(), tracking_uri)
    found = find_sweep(store, sweep)
    return Sweep(found.run_id, found.name, found.status, store)


@_one_line_errors()
def load_dataset(name: str, /, **settings: Any) -> ImageDataset:
    """Return a dataset, prepared as a sweep of this folder prepares it, and cached in ``data/cache``.

    ``dataset.train``, ``.val`` and ``.test`` have ``images``, uint8 (N, C, H, W), and ``labels``, int64 (N,), -1 where
    there are none.

    Args:
        name: shapes, cifar10, celeba or folder.
        settings: the keys of ``conf/dataset/<name>.yaml`` that differ from it, such as ``n_train=400``.

    Raises:
        UserError: for a name or setting that does not exist, or data that are not there.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from vae_sweep import datasets
    from vae_sweep.config import schema
    from vae_sweep.config.arguments import hydra_quoted
    from vae_sweep.sweeps.source import source

    schema.register()
    root = Path.cwd()
    callers = GlobalHydra.instance().hydra  # Hydra may be in use already, and refuses to be initialized twice
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(schema.config_dir()), version_base="1.3"):
            cfg = compose("config", [f"dataset={hydra_quoted(name)}"])
    finally:
        GlobalHydra.instance().hydra = callers
    cfg.paths.root = str(root)
    for key, value in settings.items():
        cfg.dataset[key] = value
    return datasets.load(source(cfg.dataset, root), resolve_path(root, cfg.paths.data, "paths.data") / "cache")


@dataclass(frozen=True)
class Run:
    """One run of the tracking store, as it was when it was loaded."""

    id: str
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    metrics: dict[str, float] = field(repr=False)  # last values by key, such as test/loss (nats per image)
    tags: dict[str, str] = field(repr=False)
    store: Store = field(repr=False, compare=False)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What it was trained with, nested as the configuration is; empty where it ended before that was recorded."""
        from omegaconf import OmegaConf

        with self.store.artifact(self.id, "config.yaml") as path:
            found: Any = OmegaConf.to_container(OmegaConf.load(path)) if path else {}
        return found

    @cached_property
    def history(self) -> DataFrame:
        """A row per epoch: images_seen, and loss, recon and kl of train and val.

        In nats per image, but not with objective.reduction=mean.
        """
        import pandas as pd

        rows = self.store.history(self.id, HISTORY)
        return pd.DataFrame(rows, columns=["epoch", *HISTORY]).set_index("epoch")

    @cached_property
    def figures(self) -> dict[str, Image]:
        """Its figures by name: curves, reconstructions, samples, interpolations, kl_spectrum."""
        from PIL import Image

        found = {}
        for entry in self.store.client.list_artifacts(self.id, "figures"):
            with self.store.artifact(self.id, entry.path) as path:
                assert path is not None
                with Image.open(path) as image:
                    found[path.stem] = image.copy()
        return found

    @_one_line_errors()
    def model(self, model: type[VAE] | str | None = None) -> VAE:
        """Return its trained model, as :func:`load_model` does."""
        return _checkpoint(self.store, self.store.get(self.id), self.id, model)[0]

    @_one_line_errors()
    def dataset(self, source: str | None = None) -> ImageDataset:
        """Return the images that it was trained on; ``source``: class of a data source that is not vae_sweep's own.

        Raises:
            UserError: where they are not there any more, or have changed.
        """
        found = dataset_of(self.configuration, self.id, Path.cwd(), source)
        check_unchanged(found, self.id, self.tags)
        return found


@dataclass(frozen=True)
class Sweep:
    """One sweep of the tracking store; what it holds is read when it is asked for, and then kept."""

    id: str  # of its own run
    name: str
    status: str  # RUNNING, FINISHED, FAILED or KILLED
    store: Store = field(repr=False, compare=False)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Its runs by their names in the table, those that have not started left out."""
        stored = {run.run_id: run for run in self.store.children(self.id)}
        return {row.name: _run(self.store, stored[row.run_id]) for row in self._evidence.rows if row.run_id in stored}

    @cached_property
    def table(self) -> DataFrame:
        """What the comparison.csv of ``compare`` holds, the names and losses first.

        A row per run; each dataset ends with its closed-form linear VAEs. Datasets and sets that differ have different
        names. Losses are in nats per image, but not with objective.reduction=mean.
        """
        from vae_sweep.comparison.rows import frame

        found = frame(self._evidence.rows)
        first = [column for column in FIRST if column in found]
        return found[[*first, *found.columns.difference(first, sort=False)]]

    @cached_property
    def contrasts(self) -> DataFrame:
        """A row per pair of models and metric: mean of the paired differences a - b, 95 % interval, p, verdict on b.

        ``p`` is that of the exact sign-flip permutation test, ``p_holm`` the adjusted one of the primary metrics.
        ``planned`` pairs are those that the models' baselines ask for.
        """
        import pandas as pd

        found = [
            {"metric": c.metric.key, **{key: getattr(c, key) for key in CONTRAST}} for c in self._evidence.contrasts
        ]
        return pd.DataFrame(found, columns=["metric", *CONTRAST]).astype(
            dict.fromkeys(("low", "high", "p_holm"), float)
        )

    @cached_property
    def report(self) -> str:
        """The report as HTML, one page that needs nothing else."""
        from vae_sweep.report.publish import files

        return files(self._evidence)["report.html"]

    @cached_property
    def _evidence(self) -> Evidence:
        from vae_sweep.report.collect import gather

        return gather(self.store, [self.store.get(self.id)])


def find_sweep(store: Store, sweep: str) -> StoredRun:
    """Return a sweep's own run, by its id or the beginning of it, or the newest one for ``last``.

    Raises:
        UserError: where there is none.
    """
    found = store.newest({"vae_sweep.role": "sweep"}) if sweep == "last" else store.get(sweep, "sweep")
    if found is None:
        raise UserError(f"sweep=last: {store.uri} holds no sweep; start one with `python -m vae_sweep -m ...`")
    if found.tags.get("vae_sweep.role") != "sweep":
        parent = found.tags.get("mlflow.parentRunId")
        hint = f"it belongs to sweep={parent}" if parent else "give the id that a sweep prints at its end"
        raise UserError(f"sweep={sweep}: {found.name} is one run, not a sweep; {hint}")
    return found


def find_run(store: Store, run: str) -> StoredRun:
    """Return a run by its id or its beginning, by its name in the newest sweep, or the newest finished for ``last``.

    Raises:
        UserError: where there is none, or several.
    """
    if re.fullmatch(r"[0-9a-f]{1,32}", run):
        return store.get(run)
    if run == "last":
        newest = store.newest({"vae_sweep.role": "run"}, status="FINISHED")
        if newest is None:
            raise UserError(f"run=last: {store.uri} holds no finished run")
        return newest
    sweep = store.newest({"vae_sweep.role": "sweep"})
    runs = store.children(sweep.run_id) if sweep else []
    found = [known for known in runs if known.name == run]
    if len(found) != 1:
        names = ", ".join(sorted({known.name for known in runs})) or "none"
        raise UserError(
            f"run={run}: {'several runs' if found else 'no run'} of the last sweep {'have' if found else 'has'} this "
            f"name; its names: {names}; or give a run id, of the characters 0-9 and a-f"
        )
    return found[0]


def open_checkpoint(
    run: str, root: Path, uri: str | None = None, model: type[VAE] | str | None = None
) -> tuple[VAE, dict[str, Any]]:
    """Return the model of :func:`load_model`, seen from the folder ``root``, and the other content of its checkpoint.

    The content of a stored run's has its ``run_id`` and ``tags``.

    Raises:
        UserError: as :func:`load_model` does.
    """
    from vae_sweep.training import checkpoint

    local = resolve_path(root, run, "run")
    if local.suffix == ".pt" or os.path.exists(local):  # unlike Path.exists, it takes a name of any length
        file = local / "checkpoint.pt" if os.path.isdir(local) else local
        return checkpoint.load(file, _class(model))
    nothing = UserError(f"run={run}: no such file; give a run id, a name in the last sweep, or a checkpoint.pt")
    if len(run) > 250:  # longer than any name
        raise nothing
    store = _store(f"run={run}: no such file", root, uri)
    try:
        found = find_run(store, run)
    except UserError as error:
        raise (nothing if "/" in run else error) from None  # a name holds one where paths are swept
    return _checkpoint(store, found, run, model)


def dataset_of(config: dict[str, Any], run: str, root: Path, source_class: str | None = None) -> ImageDataset:
    """Return the images of a run's configuration, from the folder that it was trained in where that still exists.

    Raises:
        UserError: where they are not there, or where the configuration, which may be anybody's, does not say which.
    """
    from vae_sweep.sweeps import preparation

    return preparation.dataset_of(config, run, root, source_class)


def check_unchanged(dataset: ImageDataset, run: str, tags: dict[str, str]) -> None:
    """Refuse images that are not those that the run with these ``tags`` was trained on.

    Raises:
        UserError: where they differ.
    """
    from vae_sweep.comparison.identity import IMAGES, SPLITS, made_of_text
    from vae_sweep.tracking.names import MADE_OF

    known = made_of_text(tags.get(MADE_OF, ""))
    now = {IMAGES: dataset.digest, **({SPLITS: dataset.arrangement} if dataset.arrangement else {})}
    differ = [part for part, value in now.items() if known.get(part, value) != value]
    if differ:
        raise UserError(
            f"run={run}: {' and '.join(differ)} of {dataset.name} have changed since it was trained; put those back, "
            "or give others yourself (input=<your images>; vs.load_dataset)"
        )


def _checkpoint(store: Store, run: StoredRun, given: str, model: type[VAE] | str | None) -> tuple[VAE, dict[str, Any]]:
    from vae_sweep.training import checkpoint

    with store.artifact(run.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(
                f"run={given}: {run.name} is {run.status} and has no checkpoint; give the id of a finished run "
                "(a sweep's own run has none: its table lists those that do)"
            )
        try:
            trained, content = checkpoint.load(path, _class(model))
        except UserError as error:  # a downloaded copy has a name that nobody gave
            raise UserError(str(error).replace(f"run={path}", f"run={given}")) from error
    return trained, content | {"run_id": run.run_id, "tags": run.tags}


def name_of(content: dict[str, Any]) -> str:
    """Return what a checkpoint holds, in words: ``conv-p1 on shapes, seed 0: epoch 53, test loss 57.94``."""
    from vae_sweep.metrics.losses import spec

    facts, config = content.get("facts", {}), content.get("config", {})  # of a file that anybody may have written
    said = f"{facts.get('name')} on {config.get('dataset', {}).get('name')}, seed {config.get('seed')}"
    test, reduction = facts.get("test"), str(config.get("objective", {}).get("reduction"))
    epoch, loss = facts.get("best_epoch"), test.get("loss") if isinstance(test, dict) else None
    if not (isinstance(epoch, int | float) and isinstance(loss, int | float)):
        return said
    return f"{said}: epoch {epoch:.0f}, test loss {loss:{spec(reduction)}}"


def file_name(content: dict[str, Any], *more: str) -> str:
    """Return a file's name without its ending, for what is made of the content of :func:`open_checkpoint`.

    It has the beginning of a stored run's id, since several runs may share a name.
    """
    stored = [content["run_id"][:8]] if "run_id" in content else []
    return re.sub(r"[^\w.=-]+", "_", "-".join([content["facts"]["name"], *stored, *more]))


def _class(model: type[VAE] | str | None) -> type[VAE] | None:
    from vae_sweep.base import plugins
    from vae_sweep.models import VAE

    return plugins.find(model, VAE, "model") if isinstance(model, str) else model


def _store(what: str, root: Path, uri: str | None) -> Store:
    from vae_sweep.tracking.store import Store

    return Store.existing(uri, root, f"{what}: no runs are stored here")


def _run(store: Store, run: StoredRun) -> Run:
    return Run(run.run_id, run.name, run.status, run.metrics, run.tags, store)
