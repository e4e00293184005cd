"""The life of one run: whether it is new, continued or finished; how it ends, and what the store then says."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from vae_sweep.base.errors import RunFailed, Stopped, UserError
from vae_sweep.base.locks import hold_lock, this_process
from vae_sweep.base.signals import Terminated
from vae_sweep.comparison.identity import changed, settings_key, training_code
from vae_sweep.comparison.rows import Cell
from vae_sweep.config.plan import by_key, cell_name
from vae_sweep.sweeps.context import Context, Job
from vae_sweep.sweeps.environment import environment, machine_kind
from vae_sweep.sweeps.folders import folder_of, load_config, request_stop, stop_requested, temporary_files_in
from vae_sweep.sweeps.preparation import identity_of
from vae_sweep.sweeps.record import best_effort, train_and_record
from vae_sweep.sweeps.remeasure import redraw, remeasure
from vae_sweep.sweeps.watch import ends_with_its_sweep
from vae_sweep.tracking.client import shorten_timeouts, versions
from vae_sweep.tracking.names import MACHINE, MADE_OF, ROLE, RUN_KEY, SETTINGS, SWEEP_KEY, linked
from vae_sweep.tracking.store import RunRecord, Store, StoredRun
from vae_sweep.training import checkpoint, state
from vae_sweep.training.device import resolve_device

log = logging.getLogger(__name__)

FAIL_FAST = "another cell failed and fail_fast=true"


def execute(
    cfg: DictConfig,
    context: Context,
    overrides: Sequence[str],
    output_dir: Path,
    on_change: Callable[[str, bool], None] = lambda run_id, closed: None,
) -> float:
    """Train, evaluate and record one run; return its lowest validation loss in nats per image.

    ``overrides`` are those of the job. What the sweep has planned for them is trained, also where ``cfg`` was composed
    from files that were edited since. ``on_change`` is called with the run's id and False once the run is open in the
    store, and with True once it is closed.

    Raises:
        RunFailed: for whatever stopped the run; the store holds the reason and the traceback.
        KeyboardInterrupt: the whole sweep was interrupted.
    """
    logging.raiseExceptions = False  # a full disk under the log file is not worth a traceback per line
    given = by_key(overrides).items()
    cell = next((cell for cell in context.cells if by_key(cell.overrides).items() <= given), None)
    name = cell.name if cell else cell_name(cfg, list(overrides), context.swept)
    stop = stop_requested(Path(context.root), context.sweep_key) if context.parent_id else None
    if stop is not None:
        raise RunFailed(f"{name}: not started: {stop}")
    if context.code not in (None, training_code()):
        where = f"{this_process()['host']}, {Path(__file__).parent}"
        raise RunFailed(
            f"{name}: not started: the worker ({where}) has other code than the sweep; install the same there"
        )
    try:
        job = _job(cfg, context, cell, name, output_dir)
        with ends_with_its_sweep(context), hold_lock(job.folder, f"run {name}"), temporary_files_in(job.folder):
            return _continued(job, on_change)
    except Terminated:
        if context.owner == this_process():
            raise
        raise RunFailed(f"{name}: its process was told to end; the same command continues it") from None
    except UserError as error:
        raise RunFailed(f"{name}: {error}") from None


def _job(cfg: DictConfig, context: Context, cell: Cell | None, name: str, output_dir: Path) -> Job:
    root = Path(context.root)
    if cell is None:
        key, made_of = identity_of(cfg, root)
        if context.cells and key not in {cell.key for cell in context.cells}:
            raise UserError("its configuration changed since the sweep started; start the same command again")
    else:
        cfg, key, made_of = load_config(root, context.sweep_key, cell.key), cell.key, dict(cell.made_of)
    return Job(cfg, context, name, key, made_of, output_dir, folder_of(root, context.sweep_key, key))


def _continued(job: Job, on_change: Callable[[str, bool], None]) -> float:
    """Skip, continue or start the run of the job's identity."""
    store = job.context.store()
    before = _before(job, store) if job.cfg.resume else None
    if before and _is_complete(before):
        with best_effort("what was measured or drawn again"):
            again = [remeasure(job, before), redraw(job, before)]
            if any(again):
                on_change(before.run_id, True)
        state.clear(job.folder)  # of a process that was killed between the last record and this
        return before.metrics["best/val_loss"]
    record = _reopened(job, store, before) if before else _started(job, store)
    status, reason = "KILLED", "interrupted"
    try:
        on_change(record.run_id, False)
        loss = train_and_record(job, record)
        status, reason = "FINISHED", ""
    except Stopped as error:
        reason = str(error)
    except KeyboardInterrupt:
        store.client.retry_for = 0.0
        shorten_timeouts()
        raise
    except Exception as error:
        expected = isinstance(error, UserError)
        status, reason = "FAILED", str(error) if expected else f"{type(error).__name__}: {error}"
        (log.error if expected else log.exception)("%s failed: %s", job.name, reason)
        with best_effort("the traceback"):
            record.log_text(traceback.format_exc(), "error.txt")
    finally:
        if reason:
            with best_effort("the reason"):
                record.set_tags({"vae_sweep.error": reason})
        recorded = False
        with best_effort("the final status"):
            record.finish(status)
            recorded = True
        on_change(record.run_id, True)
    if status == "FINISHED" and not recorded:
        raise RunFailed(f"{job.name}: trained, but not recorded as finished; the same command completes it")
    if status == "FAILED" and job.context.fail_fast and job.context.parent_id:
        request_stop(Path(job.context.root), job.context.sweep_key, FAIL_FAST)
    if status != "FINISHED":
        raise RunFailed(f"{job.name}: {reason}")  # out here, so that it does not carry the model's memory along
    state.clear(job.folder)
    return loss


def _before(job: Job, store: Store) -> StoredRun | None:
    """The run of this identity that the sweep has, or a finished one of another sweep, which it then shares."""
    own = {ROLE: "run", RUN_KEY: job.key}
    before = store.newest({**own, SWEEP_KEY: job.context.sweep_key}, job.context.parent_id)
    if before and _is_complete(before):
        log.info("%s is finished already, as run %s; resume=false trains it again", job.name, before.run_id[:8])
    elif job.context.parent_id:
        found = store.newest({**own, MACHINE: _machine(job)}, status="FINISHED")
        if found and _is_complete(found):
            store.record(found.run_id).set_tags({linked(job.context.parent_id): "reused"})
            log.info(
                "%s is finished already, as run %s of %s; resume=false trains it again",
                *(job.name, found.run_id[:8], f"sweep {found.parent_id[:8]}" if found.parent_id else "its own"),
            )
            return found
    return before


def _is_complete(run: StoredRun) -> bool:
    return run.status == "FINISHED" and "best/val_loss" in run.metrics


def _machine(job: Job) -> str:
    return machine_kind(resolve_device(job.cfg.training.device))


def _reopened(job: Job, store: Store, before: StoredRun) -> RunRecord:
    if before.tags.get(MACHINE) != _machine(job):
        log.warning("%s began on another kind of machine (%s): rounding differs", job.name, before.tags.get(MACHINE))
    if "vae_sweep.outputs" in before.tags:
        (Path(before.tags["vae_sweep.outputs"]) / checkpoint.UNFINISHED).unlink(missing_ok=True)
    record = store.reopen(before.run_id)
    record.set_tags(environment() | {"vae_sweep.place": job.context.project})
    return record


def _started(job: Job, store: Store) -> RunRecord:
    state.clear(job.folder)
    settings = settings_key(job.cfg)
    other = store.newest({ROLE: "run", SETTINGS: settings}) if job.cfg.resume else None
    difference = changed(json.loads(other.tags[MADE_OF]), job.made_of) if other else ""
    if other and difference:
        log.warning(
            "%s: %s changed since run %s of the same configuration; it is trained anew",
            *(job.name, difference, other.run_id[:8]),
        )
    tags = {ROLE: "run", RUN_KEY: job.key, SWEEP_KEY: job.context.sweep_key, SETTINGS: settings}
    tags |= {MADE_OF: json.dumps(job.made_of), MACHINE: _machine(job), "vae_sweep.place": job.context.project}
    return store.start_run(job.name, {**tags, **environment(), **versions()}, job.context.parent_id)
