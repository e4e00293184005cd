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
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from vae_sweep.base.errors import RunFailed, show_traceback
from vae_sweep.base.locks import held, hold_lock, this_process, warn_without_locks
from vae_sweep.base.process import nobody_reads, set_up
from vae_sweep.base.signals import interrupt
from vae_sweep.comparison.identity import run_key, settings_key, sweep_key, training_code
from vae_sweep.config import schema as configuration
from vae_sweep.config.messages import user_message
from vae_sweep.config.plan import is_local, plan, without_hydra
from vae_sweep.config.settings import settings_of
from vae_sweep.config.validation import validate, validate_launcher
from vae_sweep.sweeps.display import display_of, displays, quiet_log, stop_display
from vae_sweep.sweeps.folders import clear_stop_request, folder_of, project_id, save_config, temporary_files_in
from vae_sweep.sweeps.launchers import joblib_temp_folder, patch_launcher
from vae_sweep.sweeps.setup import choose_features, finished_anywhere, open_store, project_root, quoted
from vae_sweep.sweeps.status import Reporter
from vae_sweep.tracking.names import ANEW, ERROR, NOTE, OUTPUTS, PLAN, PROJECT, ROLE, RUN_KEY, SWEEP_KEY

if TYPE_CHECKING:
    from vae_sweep.comparison.rows import Cell, Row
    from vae_sweep.sweeps import repeat
    from vae_sweep.sweeps.context import Context
    from vae_sweep.tracking.store import RunRecord, Store

configuration.register()  # workers unpickle the callback before they compose their configuration
log = logging.getLogger(__name__)

LOST = "its worker ended: "  # before the reason of a run that could not close itself
_held = ExitStack()  # this process's claim on its sweep; not on the callback, which travels to the workers


class SweepCallback(Callback):
    """Hydra's view of a sweep; ``current`` is the one that this process works for."""

    current: SweepCallback | None = None
    place: Path | None = None  # where this process keeps the end of its sweep

    def __init__(self) -> None:
        self.context: Context | None = None
        self.failures: list[str] = []  # one line per failed cell, known once the sweep is closed
        self.closed = False

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what cannot work, prepare the data, open the parent run; nothing has been trained yet."""
        from vae_sweep.sweeps import repeat  # here, since NumPy takes a tenth of a second, and --help needs none

        with _refusals():
            HydraConfig.instance().set_config(config)  # Hydra does so only when a job starts; paths refer to it
            root = project_root(config)
            planned = plan(config)
            cells = [cfg for _, cfg in planned[0].values()]
            place = repeat.place_of(cells, root) if cells else None
            if place and config.resume and repeat.shown_again(place, config, cells, root):
                raise SystemExit(0)
            with _displayed(config):
                self.context = open_sweep(config, root, *planned)
            if place and not config.resume:
                place.unlink(missing_ok=True)  # the end of an older sweep
        SweepCallback.current, SweepCallback.place = self, place
        if config.resume and self.nothing_to_do():
            raise SystemExit(0)  # without a job; the command closes the sweep

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse what cannot work, prepare the data, open the store for a single run."""
        with _refusals(), _displayed(config):
            self.context = open_single(config)
        SweepCallback.current = self

    def on_job_start(self, config: DictConfig, *, task_function: TaskFunction, **kwargs: Any) -> None:
        SweepCallback.current = self
        set_up()  # of a worker
        if self.context is not None and self.context.own_display:
            quiet_log()

    def nothing_to_do(self) -> bool:
        """Whether all runs of the sweep have all that is configured; their status files then say so."""
        from vae_sweep.sweeps.remeasure import finished_runs
        from vae_sweep.training import state

        assert self.context is not None
        runs = finished_runs(self.context)
        for cell, run in runs.items():
            folder = folder_of(Path(self.context.root), self.context.sweep_key, cell.key)
            log.info("%s is already finished, as run %s; resume=false trains it again", cell.name, run.run_id[:8])
            reporter = Reporter(folder, cell.name, cell.model)
            with reporter.active():
                reporter.skips(run.run_id, run.metrics)
            state.clear(folder)  # of a process that was killed after its last record
        return bool(runs)

    def close(self, error: BaseException | None = None) -> None:
        """Close the parent run with a last comparison and print it; does nothing the second time."""
        stop_display()
        if self.closed or self.context is None or self.context.parent_id is None:
            return
        self.closed = True
        with _held:
            rows = close_sweep(self.context, error)
        for row in _own(rows, self.context):
            if row.status == "FAILED" or (row.reason or "").startswith(LOST):
                self.failures.append(f"{row.name}: {row.reason}")
            elif row.status == "PENDING" and isinstance(error, RunFailed) and not self.context.fail_fast:
                known = str(error).startswith(f"{row.name}: ")
                self.failures.append(str(error) if known else f"{row.name}: it did not start; its log says why")


def open_sweep(
    config: DictConfig, root: Path, planned: dict[str, tuple[list[str], DictConfig]], swept: dict[str, list[str]]
) -> Context:
    """Check every cell, prepare every dataset, open the parent run; the cells are those of :func:`plan`.

    Raises:
        UserError: for the first cell that cannot work.
    """
    # Workers elsewhere may have another working directory: hand them this one.
    with read_write(config.hydra):
        config.hydra.overrides.hydra.append(f"paths.root={quoted(str(root))}")
    validate_launcher(config.hydra)
    from vae_sweep.sweeps.context import Context  # here, since these take seconds and refusals should not
    from vae_sweep.sweeps.preparation import prepare_cells

    cells = prepare_cells(planned, tuple(swept), root, is_local(config))
    features, reason = choose_features(config, root)
    store = open_store(config, root)
    key = sweep_key([cell.key for cell in cells] or _search(config), config.sweep.name)
    _claim(folder_of(root, key))
    _close_orphaned_runs(store, root, folder_of(root, key))
    clear_stop_request(root, key)
    patch_launcher(config.hydra.launcher["_target_"], interrupt, tuple(cells))
    from vae_sweep.report.publish import refresh

    record = _open_parent(config, store, key, root, list(cells), swept)
    try:
        _save_plan(config, record, key, root, cells)
        rows = refresh(store, record.run_id, list(cells), root)
        opened = store.get(record.run_id)
        anew_since = opened.started if ANEW in opened.tags else None
        finished = {row.key for row in rows if row.status == "FINISHED"}
        if displays and anew_since is None and is_local(config):
            finished |= finished_anywhere(config, store)
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
        anew_since=anew_since,
        anew=not config.resume,
        swept=tuple(swept),
        cells=tuple(cells),
        own_display=_watch(folder_of(root, key), tuple(cells), finished),
    )


def _watch(folder: Path, cells: tuple[Cell, ...] = (), finished: Collection[str] = (), single: str = "") -> bool:
    """Let the display show the runs from now on; return whether there is one."""
    for display in displays:
        display.watch(folder, cells, finished, single)
    return bool(displays)


@contextmanager
def _displayed(config: DictConfig) -> Iterator[None]:
    """Show what is prepared, and then the runs until :func:`stop_display`; a refusal ends it, too."""
    asked = str(config.get("progress", "auto"))
    display = display_of(asked)
    if display is not None:
        display.start()
        displays.append(display)
    try:
        yield
    except BaseException:
        stop_display()
        raise


def _claim(folder: Path) -> None:
    """Lock the sweep's folder for this process, and keep temporary files in it."""
    _held.enter_context(hold_lock(folder, "this sweep", "stop it, or give this one another sweep.name"))
    warn_without_locks(folder)
    os.environ.setdefault("JOBLIB_TEMP_FOLDER", joblib_temp_folder(folder / "tmp"))
    _held.enter_context(temporary_files_in(folder))


def _open_parent(
    config: DictConfig, store: Store, key: str, root: Path, cells: list[Cell], swept: dict[str, list[str]]
) -> RunRecord:
    """Start the sweep's run, or open the one that the same command has left."""
    from vae_sweep.sweeps.environment import environment

    own = {ROLE: "sweep", SWEEP_KEY: key}
    tags = {
        **environment(),
        PROJECT: project_id(root),
        "vae_sweep.overrides": " ".join(config.hydra.overrides.task),
        OUTPUTS: str(config.hydra.sweep.dir),
    }
    before = store.newest(own) if config.resume else None
    if before and not before.is_held_by_another(project_id(root)):
        log.info("continuing sweep %s", before.run_id)
        record = store.reopen(before.run_id)
        record.set_tags(tags)
        return record
    choices = " ".join(f"{key}={','.join(values)}" for key, values in swept.items())
    datasets = ",".join(sorted({cell.dataset for cell in cells}))
    tags |= {} if config.resume else {ANEW: "true"}
    return store.start_run(config.sweep.name or f"{datasets or 'sweep'}: {choices or 'one cell'}", own | tags)


def _save_plan(config: DictConfig, record: RunRecord, key: str, root: Path, cells: dict[Cell, DictConfig]) -> None:
    """Keep the cells in the store, and each one's configuration for the process that will train it."""
    from vae_sweep.report.publish import plan_text

    for cell, cfg in cells.items():
        cfg.tracking.uri = config.tracking.uri  # without a password
        save_config(root, key, cell.key, cfg)
    record.log_text(plan_text(list(cells)), PLAN)


def _search(config: DictConfig) -> list[str]:
    """What a sweeper that chooses its cells as it goes searches in, and how."""
    sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    settings = settings_of(without_hydra(config))
    return [settings_key(settings), json.dumps(sweeper, sort_keys=True), *config.hydra.overrides.task]


def _close_orphaned_runs(store: Store, root: Path, claimed: Path | None = None) -> None:
    """Close runs of this project folder that say RUNNING while no process holds their lock any more.

    ``claimed``: the folder of the sweep that this process has just locked; an earlier run of it is an orphan, too.
    """
    own = project_id(root)  # first, since in a copied folder it gives the runs of its store to the copy
    folders = {
        run.run_id: folder_of(root, run.tags.get(SWEEP_KEY, ""), run.tags.get(RUN_KEY, ""))
        for run in store.running()
        if run.tags.get(PROJECT) == own
    }
    living = held(folders.values()) - {claimed}
    for run_id, folder in folders.items():
        if folder not in living:
            _kill(store.record(run_id), "its process ended without closing it")


def _kill(record: RunRecord, reason: str) -> None:
    record.set_tags({ERROR: reason})
    record.finish("KILLED")


def open_single(config: DictConfig) -> Context:
    """Check the configuration, prepare the data and open the store for one run without a parent.

    Raises:
        UserError: for a run that cannot work.
    """
    HydraConfig.instance().set_config(config)
    root = project_root(config)
    cfg = without_hydra(config)
    validate(cfg)
    from vae_sweep import models  # here, since these take seconds and refusals should not
    from vae_sweep.datasets import announce
    from vae_sweep.sweeps.context import Context
    from vae_sweep.sweeps.preparation import check_model, parts_of, prepare, resolve_choices
    from vae_sweep.training.device import resolve_device

    resolve_choices(cfg)
    resolve_device(cfg.training.device, cfg.training.precision, cfg.training.compile)
    models.check(cfg.model)
    dataset, _ = prepare(cfg, root)
    announce(dataset)
    check_model(cfg, dataset.image_shape)
    features, reason = choose_features(config, root)
    store = open_store(config, root)
    _close_orphaned_runs(store, root)
    made_of = parts_of(cfg, dataset)
    return Context(
        *(str(root), store.uri, store.experiment_id),
        project=project_id(root),
        owner=this_process(),
        retry_for=config.tracking.retry_seconds,
        anew_since=None if config.resume else time.time(),
        anew=not config.resume,
        features=features,
        features_reason=reason,
        own_display=_watch(folder_of(root, "single"), single=run_key(settings_of(cfg), made_of)),
    )


def close_sweep(context: Context, error: BaseException | None) -> list[Row]:
    """Mark cells that were torn down, close the parent (KILLED, FAILED or FINISHED), print and return the rows."""
    from vae_sweep.report import publish, text
    from vae_sweep.sweeps import repeat
    from vae_sweep.tracking.client import shorten_timeouts

    assert context.parent_id is not None
    interrupted = isinstance(error, KeyboardInterrupt)
    if interrupted:
        shorten_timeouts()
    store, root = context.store(retry=not interrupted), Path(context.root)
    status = "KILLED" if interrupted else "FAILED"
    try:
        _close_torn_down(context, store, "" if interrupted else str(error or "no error was reported"))
        rows = publish.refresh(store, context.parent_id, context.cells, root)
        known = bool(context.cells) or not isinstance(error, RunFailed)  # else a cell may have failed before its run
        if not interrupted and rows and known and all(row.status == "FINISHED" for row in _own(rows, context)):
            status = "FINISHED"
        said = [text.remarks(rows), *([] if interrupted else _reported(store, context.parent_id, root))]
    finally:
        store.record(context.parent_id).finish(status)
    ending = repeat.Ending(context.parent_id, rows, said, status)
    if status == "FINISHED" and SweepCallback.place:
        _keep(SweepCallback.place, ending, context, store)
    try:
        ending.show(store.uri, root)
    except BrokenPipeError:
        nobody_reads()
    return rows


def _close_torn_down(context: Context, store: Store, reason: str) -> None:
    """Close the runs whose processes ended without doing so; ``reason``: the first failure's, "" after an interrupt."""
    root, children = Path(context.root), store.children(context.parent_id or "")
    running = [child for child in children if child.status == "RUNNING"]
    folders = [folder_of(root, context.sweep_key, child.tags.get(RUN_KEY, "")) for child in running]
    living = held(folders)  # they close theirs
    for run, folder in zip(running, folders, strict=True):
        if folder not in living:
            of_another = any(reason.startswith(f"{child.name}: ") for child in children if child.name != run.name)
            why = f"{LOST}{'it left no result' if of_another else reason}" if reason else "interrupted"
            _kill(store.record(run.run_id), why)


def _own(rows: list[Row], context: Context) -> list[Row]:
    """The rows of the cells that this command asked for; all where a sweeper chooses them as it goes."""
    planned = {cell.key for cell in context.cells}
    return [row for row in rows if not planned or row.key in planned]


def _keep(place: Path, ending: repeat.Ending, context: Context, store: Store) -> None:
    """Keep the end of a sweep where the same command would find nothing to do: not without its two pages."""
    from vae_sweep.sweeps import explore, repeat
    from vae_sweep.sweeps.record import best_effort
    from vae_sweep.sweeps.remeasure import finished_runs

    with best_effort("that the sweep is finished"):
        where = store.local_artifacts(ending.sweep_id)
        if where and explore.NAME in "".join(ending.remarks) and finished_runs(context):
            repeat.keep(place, ending, store.uri, context.features, where)


def _reported(store: Store, parent_id: str, root: Path) -> list[str]:
    """Write the sweep's report and its slider page; the verdicts in short, and where the two are."""
    from vae_sweep.report import collect, publish
    from vae_sweep.sweeps import explore
    from vae_sweep.sweeps.record import best_effort
    from vae_sweep.tracking.views import save_view

    said: list[str] = []
    with best_effort("the report"):
        evidence = collect.gather(store, [store.get(parent_id)])
        publish.record(store, parent_id, publish.files(evidence))
        store.record(parent_id).set_tags({NOTE: publish.note(evidence)})
        save_view(store, parent_id)
        where = store.local_artifacts(parent_id)

        def shown(name: str) -> str:
            return (where / name).as_uri() if where else f"{name} of the sweep's run"

        said = ["\n".join(publish.brief_verdicts(evidence)), f"The report, with figures: {shown('report.html')}"]
        page = explore.attempt(store, evidence, root)
        if page:
            store.record(parent_id).log_text(page.html, explore.NAME)
            said[-1] += f"\nThe models, with sliders: {shown(explore.NAME)} ({page.said})"
    return said


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn an error that the user can fix into one line and exit code 1; let anything else show its traceback."""
    try:
        yield
    except Exception as error:
        message = user_message(error)
        if message is None:
            log.exception("vae_sweep failed before the first run")
            raise SystemExit(1) from error
        show_traceback()
        raise SystemExit(message) from error
