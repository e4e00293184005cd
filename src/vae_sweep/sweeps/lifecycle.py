"""The sweep: opens the parent run, refreshes the comparison after every cell, closes it.

Hydra calls the callback in the first process (``on_multirun_start``, ``on_run_start``) and in every worker
(``on_job_start``); its instance is pickled into the workers, which is how they learn where they belong. Hydra only
warns about an exception in a callback, so whatever must stop the command leaves as SystemExit, and the sweep is
closed by the command itself.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from vae_sweep.base.errors import UserError
from vae_sweep.base.locks import hold_lock, is_held, this_process, warn_without_locks
from vae_sweep.base.process import set_up
from vae_sweep.base.signals import interrupt
from vae_sweep.comparison.identity import settings_key, sweep_key, training_code
from vae_sweep.config import schema as configuration
from vae_sweep.config.messages import user_message
from vae_sweep.config.plan import LOCAL_LAUNCHERS, plan, without_hydra
from vae_sweep.config.validation import validate, validate_launcher
from vae_sweep.sweeps.folders import clear_stop_request, folder_of, project_id, save_config, temporary_files_in
from vae_sweep.sweeps.launchers import joblib_temp_folder, patch_launcher

if TYPE_CHECKING:
    from vae_sweep.comparison.rows import Row
    from vae_sweep.sweeps.context import Context
    from vae_sweep.tracking.store import Store

configuration.register()  # workers unpickle the callback before they compose their configuration
log = logging.getLogger(__name__)

_held = ExitStack()  # this process's claim on its sweep; not on the callback, which travels to the workers


class SweepCallback(Callback):
    """Hydra's view of a sweep; ``current`` is the one that this process works for."""

    current: SweepCallback | None = None

    def __init__(self) -> None:
        self.context: Context | None = None
        self.failures: list[str] = []  # one line per failed cell, known once the sweep is closed
        self.closed = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what cannot work, prepare the data, open the parent run; nothing has been trained yet."""
        with _refusals():
            self.context = open_sweep(config)
        SweepCallback.current = self

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what cannot work, prepare the data, open the store for a single run."""
        with _refusals():
            self.context = open_single(config)
        SweepCallback.current = self

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        SweepCallback.current = self
        set_up()  # of a worker

    def close(self, error: BaseException | None = None) -> None:
        """Close the parent run with a last comparison and print it; does nothing the second time."""
        if self.closed or self.context is None or self.context.parent_id is None:
            return
        self.closed = True
        with _held:
            rows = close_sweep(self.context, error)
        self.failures = [f"{row.name}: {row.reason}" for row in rows if row.status == "FAILED"]


def open_sweep(config: DictConfig) -> Context:
    """Check every cell, prepare every dataset, open the parent run.

    Raises:
        UserError: for the first cell that cannot work.
    """
    HydraConfig.instance().set_config(config)  # Hydra does so only when a job starts; paths refer to it
    root = _root(config)
    # Workers elsewhere may have another working directory; what was meant is this one.
    with read_write(config.hydra):
        config.hydra.overrides.hydra.append(f"paths.root={_quoted(str(root))}")
    validate_launcher(config.hydra)
    cells, swept = plan(config, root)
    features, reason = _features(config, root)
    from vae_sweep.report.publish import PLAN, plan_text, refresh
    from vae_sweep.sweeps.context import Context  # here, since these take seconds and refusals should not
    from vae_sweep.sweeps.environment import environment

    store = _open_store(config, root)
    key = sweep_key([cell.key for cell in cells] or _search(config), config.sweep.name)
    own_folder = folder_of(root, key)
    _held.enter_context(hold_lock(own_folder, "this sweep"))
    warn_without_locks(own_folder)
    os.environ.setdefault("JOBLIB_TEMP_FOLDER", joblib_temp_folder(own_folder / "tmp"))
    _held.enter_context(temporary_files_in(own_folder))
    _close_orphaned_runs(store, root)
    clear_stop_request(root, key)
    patch_launcher(config.hydra.launcher["_target_"], interrupt)
    choices = [f"{key}={','.join(values)}" for key, values in swept.items()]
    datasets = sorted({cell.dataset for cell in cells})
    own = {"vae_sweep.role": "sweep", "vae_sweep.sweep_key": key}
    tags = {
        **environment(),
        "vae_sweep.place": project_id(root),
        "vae_sweep.overrides": " ".join(config.hydra.overrides.task),
        "vae_sweep.outputs": str(config.hydra.sweep.dir),
    }
    before = store.newest(own) if config.resume else None
    if before:
        log.info("continuing sweep %s", before.run_id)
        record = store.reopen(before.run_id)
        record.set_tags(tags)
    else:
        name = f"{','.join(datasets) or 'sweep'}: {' '.join(choices) or 'one cell'}"
        record = store.start_run(config.sweep.name or name, own | tags)
    try:
        for cell, cfg in cells.items():
            cfg.tracking.uri = config.tracking.uri  # without a password
            save_config(root, key, cell.key, cfg)
        record.log_text(plan_text(list(cells)), PLAN)
        refresh(store, record.run_id, list(cells), root)
    except BaseException:
        record.finish("FAILED")
        raise
    return Context(
        root=str(root),
        uri=store.uri,
        experiment_id=store.experiment_id,
        parent_id=record.run_id,
        sweep_key=key,
        project=project_id(root),
        owner=this_process(),
        code=training_code(),
        retry_for=config.tracking.retry_seconds,
        features=features,
        features_reason=reason,
        fail_fast=config.fail_fast,
        swept=tuple(swept),
        cells=tuple(cells),
    )


def _search(config: DictConfig) -> list[str]:
    """What a sweeper that chooses its cells as it goes searches in, and how."""
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    return [settings_key(without_hydra(config)), json.dumps(sweeper, sort_keys=True), *config.hydra.overrides.task]


def _close_orphaned_runs(store: Store, root: Path) -> None:
    """Close runs of this project folder that say RUNNING while no process holds them any more."""
    for run in store.running():
        folder = folder_of(root, run.tags.get("vae_sweep.sweep_key", ""), run.tags.get("vae_sweep.run_key", ""))
        if run.tags.get("vae_sweep.place") == project_id(root) and not is_held(folder):
            record = store.record(run.run_id)
            record.set_tags({"vae_sweep.error": "its process ended without closing it"})
            record.finish("KILLED")


def open_single(config: DictConfig) -> Context:
    """Check the configuration, prepare the data and open the store for one run without a parent.

    Raises:
        UserError: for a run that cannot work.
    """
    HydraConfig.instance().set_config(config)
    root = _root(config)
    cfg = without_hydra(config)
    validate(cfg)
    from vae_sweep.datasets import announce  # here, since these take seconds and refusals should not
    from vae_sweep.sweeps.preparation import check_model, prepare
    from vae_sweep.training.device import resolve_device

    resolve_device(cfg.training.device, cfg.training.precision)
    dataset, _ = prepare(cfg, root)
    announce(dataset)
    check_model(cfg, dataset.image_shape)
    from vae_sweep.sweeps.context import Context

    features, reason = _features(config, root)
    store = _open_store(config, root)
    _close_orphaned_runs(store, root)
    return Context(
        *(str(root), store.uri, store.experiment_id),
        project=project_id(root),
        owner=this_process(),
        retry_for=config.tracking.retry_seconds,
        features=features,
        features_reason=reason,
        progress_bar=sys.stderr.isatty(),
    )


def close_sweep(context: Context, error: BaseException | None) -> list[Row]:
    """Mark cells that were torn down, close the parent (KILLED, FAILED or FINISHED), print and return the rows."""
    from vae_sweep.report import publish, summary, text
    from vae_sweep.tracking.client import shorten_timeouts
    from vae_sweep.tracking.uris import ui_command

    assert context.parent_id is not None
    interrupted = isinstance(error, KeyboardInterrupt)
    if interrupted:
        shorten_timeouts()
    store, root = context.store(without_retries=interrupted), Path(context.root)
    status = "KILLED" if interrupted else "FAILED"
    try:
        for child in store.children(context.parent_id):
            folder = folder_of(root, context.sweep_key, child.tags.get("vae_sweep.run_key", ""))
            if child.status == "RUNNING" and not is_held(folder):  # who holds it lives, and closes it
                record = store.record(child.run_id)
                reason = "interrupted" if interrupted else f"its worker ended: {error or 'no error was reported'}"
                record.set_tags({"vae_sweep.error": reason})
                record.finish("KILLED")
        rows = publish.refresh(store, context.parent_id, context.cells, root)
        if not interrupted and rows and all(row.status == "FINISHED" for row in rows):
            status = "FINISHED"
        said = [summary.summary(rows), *([] if interrupted else _reported(store, context.parent_id))]
    finally:
        store.record(context.parent_id).finish(status)
    print("\n".join(["", text.text(rows).rstrip(), "", *said, ""]))
    print(f"Sweep {context.parent_id}: {status}. To compare its runs and see their pictures:")
    print(f"  {ui_command(store.uri, root)}", flush=True)
    return rows


def _reported(store: Store, parent_id: str) -> list[str]:
    """Write the sweep's report; the verdicts, and where the report is."""
    from vae_sweep import compare
    from vae_sweep.report import collect
    from vae_sweep.sweeps.record import best_effort

    with best_effort("the report"):
        evidence = collect.gather(store, [store.get(parent_id)])
        compare.record(store, parent_id, compare.files(evidence))
        return ["", compare.verdicts(evidence), "", "The report, with figures: report.html of the sweep's run."]
    return []


def _features(config: DictConfig, root: Path) -> tuple[str, str]:
    """The feature network of all runs, decided once, and why.

    Raises:
        UserError: where the one that is asked for cannot be had.
    """
    import torch

    from vae_sweep.base.system import resolve_path
    from vae_sweep.metrics.features import resolve
    from vae_sweep.training.device import resolve_device

    name, weights = config.training.device, config.metrics.inception_weights
    if config.hydra.launcher["_target_"].endswith(LOCAL_LAUNCHERS):
        name = str(resolve_device(name))
    device = torch.device("cpu" if name == "auto" else name)  # jobs elsewhere may have what this machine has not
    path = str(resolve_path(root, weights, "metrics.inception_weights")) if weights else None
    return resolve(config.metrics.features, path, device)


def _root(config: DictConfig) -> Path:
    """The project folder, absolute.

    Raises:
        UserError: where its name cannot be handed to a worker as it is.
    """
    named = OmegaConf.select(config, "paths.root", throw_on_resolution_failure=False)
    root = Path(named or config.hydra.runtime.cwd)
    if not root.is_absolute():
        raise UserError(f"paths.root={named}: must be an absolute path, or left out for the current folder")
    if "${" in str(root) or "\\" in str(root):
        raise UserError(f"paths.root={root}: a folder name with ${{ or a backslash cannot be configured; use another")
    try:
        str(root).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(root).decode(errors="backslashreplace")
        raise UserError(f"paths.root={shown}: a folder name that is no UTF-8 cannot be recorded; rename it") from error
    return root


def _quoted(value: str) -> str:
    """A value as Hydra's command line takes it, whatever it holds but a backslash."""
    return '"' + value.replace('"', '\\"') + '"'


def _open_store(config: DictConfig, root: Path) -> Store:
    from vae_sweep.tracking.store import Store
    from vae_sweep.tracking.uris import masked, store_uri

    try:
        for folder in (root / "mlruns", root / "outputs"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"paths.root={root}: cannot be written ({error.strerror}: {error.filename}); "
            "give a folder where mlruns/ and outputs/ can be made"
        ) from error
    uri = store_uri(config.tracking.uri, root)
    if config.tracking.uri and masked(config.tracking.uri) != config.tracking.uri:
        _hide_password(config, masked(config.tracking.uri))
        HydraConfig.instance().set_config(config)  # its copy travels, too
    return Store.open(uri, root, config.tracking.experiment)


def _hide_password(config: DictConfig, shown: str) -> None:
    """Hydra prints the overrides and keeps them with the results; workers get the address by another way."""
    given, job, quoted = config.tracking.uri, config.hydra.job, f"tracking.uri={_quoted(shown)}"
    with read_write(config), read_write(config.hydra):
        config.tracking.uri = shown
        for overrides in (config.hydra.overrides.task, config.hydra.overrides.hydra):
            for index, override in enumerate(overrides):
                named = override.lstrip("+").startswith("tracking.uri=")
                overrides[index] = quoted if named else override.replace(given, shown)
        config.hydra.overrides.hydra.append(quoted)  # where it stands in a file of the user's
        job.override_dirname = (job.override_dirname or "").replace(given, shown)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what a user can mend into one line and exit code 1; let anything else show its traceback."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            log.exception("vae_sweep failed before the first run")
            raise SystemExit(1) from error
        raise SystemExit(message) from error
