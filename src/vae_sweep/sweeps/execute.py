"""The life of one run: new, continued or finished; how it ends, and what the store then says."""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vae_sweep.base.errors import RunFailed, Stopped, UserError, escaped
from vae_sweep.base.locks import hold_lock, this_process
from vae_sweep.base.process import nobody_reads, python
from vae_sweep.base.signals import Terminated
from vae_sweep.comparison.identity import SPLITS, changed, in_short, made_of_text, settings_key, training_code
from vae_sweep.comparison.rows import Cell
from vae_sweep.config.plan import cell_name
from vae_sweep.config.settings import settings_of
from vae_sweep.report.publish import figures_due, refresh
from vae_sweep.sweeps.context import Context
from vae_sweep.sweeps.display import stop_display
from vae_sweep.sweeps.environment import environment, machine_kind
from vae_sweep.sweeps.folders import folder_of, load_config, request_stop, stop_requested, temporary_files_in
from vae_sweep.sweeps.launchers import cell_of
from vae_sweep.sweeps.logged_model import record_model
from vae_sweep.sweeps.preparation import identity_of, resolve_choices
from vae_sweep.sweeps.record import best_effort, train_and_record
from vae_sweep.sweeps.remeasure import is_complete, redraw, remeasure
from vae_sweep.sweeps.run import Job, Run
from vae_sweep.sweeps.status import Reporter
from vae_sweep.sweeps.watch import ends_with_its_sweep
from vae_sweep.tracking.client import shorten_timeouts, versions
from vae_sweep.tracking.names import (
    ERROR,
    MACHINE,
    MADE_OF,
    MODEL,
    NOTE_LIMIT,
    OUTPUTS,
    PROJECT,
    ROLE,
    RUN_KEY,
    SETTINGS,
    SWEEP_KEY,
    linked,
)
from vae_sweep.tracking.store import RunRecord, StoredRun
from vae_sweep.tracking.uris import masked, sqlite_uri, ui_command
from vae_sweep.training import checkpoint, state

log = logging.getLogger(__name__)

LIVE_FIGURES = 24  # cells; a larger sweep draws its figures only at its end, since each drawing reads every run
FAIL_FAST = "another cell failed and fail_fast=true"


def execute(cfg: DictConfig, context: Context, overrides: Sequence[str], output_dir: Path) -> float:
    """Train, evaluate and record one run; return its lowest validation loss in nats per image.

    ``overrides`` are those of the job. What the sweep has planned for them is trained, also where ``cfg`` was composed
    from files that were edited since.

    Raises:
        RunFailed: for whatever stopped the run; the store holds the reason and the traceback.
        KeyboardInterrupt: the whole sweep was interrupted.
    """
    logging.raiseExceptions = False  # a full disk under the log file is not worth a traceback per line
    cell = cell_of(context.cells, overrides)
    name = cell.name if cell else cell_name(cfg, list(overrides), context.swept)
    try:
        if reason := _may_not_start(context):
            log.error("%s: not started: %s", name, reason)
            raise RunFailed(f"{name}: not started: {reason}")
        job = _job(cfg, context, cell, name, output_dir)
        with ends_with_its_sweep(context), hold_lock(job.folder, f"run {name}"), _worked_on(job):
            run_id, loss = _finished(job)
        if context.parent_id is None:
            with best_effort("where the run is"):
                try:
                    _say_what_there_is(job, run_id)
                except BrokenPipeError:
                    nobody_reads()
        return loss
    except Terminated:
        if context.owner == this_process():
            raise
        raise RunFailed(f"{name}: its process was terminated; the same command continues it") from None
    except UserError as error:
        log.error("%s: %s", name, error)
        _stop_if_fail_fast(context, f"{name}: {error}")
        raise RunFailed(f"{name}: {error}") from None


def _finished(job: Job) -> tuple[str, float]:
    """Train the run, unless it was finished before; its id and its lowest validation loss."""
    before = _before(job) if job.cfg.resume or job.context.parent_id else None  # a requeued job has one, too
    if before and is_complete(before):
        job.reporter.skips(before.run_id, before.metrics)
        return before.run_id, _update(job, before)
    run, outcome = Run.of(job, _reopened(job, before) if before else _started(job)), Outcome()
    with _closed_at_the_end(run, outcome):
        loss = train_and_record(run)
    outcome.check(run)
    state.clear(job.folder)
    return run.record.run_id, loss


def _say_what_there_is(job: Job, run_id: str) -> None:
    """Print where a run without a sweep is, and what to do with it."""
    stop_display()
    artifacts = job.store.local_artifacts(run_id)
    address = "" if job.store.uri == sqlite_uri(job.root / "mlflow.db") else f" uri={shlex.quote(job.store.uri)}"
    print(f"\nRun {run_id}: FINISHED.")
    print(f"  its figures:     {(artifacts / 'figures').as_uri() if artifacts else 'in the MLflow UI'}")
    print(f"  the MLflow UI:   {ui_command(job.store.uri, job.root)}")
    print(f"  images of it:    {python()} -m vae_sweep.generate run={run_id}{address}", flush=True)


def _may_not_start(context: Context) -> str | None:
    """Why no run of the sweep may start here; None where it may."""
    stop = stop_requested(Path(context.root), context.sweep_key) if context.parent_id else None
    if stop is None and context.code not in (None, training_code()):
        where = f"{this_process()['host']}, {Path(__file__).parent}"
        return f"the worker ({where}) has another version of vae_sweep than the sweep; install the same version there"
    return stop


def _stop_if_fail_fast(context: Context, failure: str) -> None:
    """Let no other cell of the sweep start or go on, where one has failed and that is wanted."""
    if context.fail_fast and context.parent_id:
        request_stop(Path(context.root), context.sweep_key, escaped(f"{FAIL_FAST} ({failure.splitlines()[0]})"))


def _job(cfg: DictConfig, context: Context, cell: Cell | None, name: str, output_dir: Path) -> Job:
    root = Path(context.root)
    if cell is None:
        resolve_choices(cfg)
        key, made_of = identity_of(cfg, root)
        if context.cells and key not in {cell.key for cell in context.cells}:
            raise UserError("its configuration changed since the sweep started; start the same command again")
    else:
        cfg, key, made_of = load_config(root, context.sweep_key, cell.key), cell.key, dict(cell.made_of)
    if cfg.tracking.uri:
        cfg.tracking.uri = masked(cfg.tracking.uri)  # a password must not travel with the results
    folder = folder_of(root, context.sweep_key, key)
    return Job(cfg, context, name, key, made_of, output_dir, folder, Reporter(folder, name, cfg.model.name))


@contextmanager
def _worked_on(job: Job) -> Iterator[None]:
    """While inside, the status of a run says so, and its temporary files are in its folder."""
    with temporary_files_in(job.folder), job.reporter.active():
        yield


def _update(job: Job, before: StoredRun) -> float:
    """Measure and draw a finished run again where metrics or figures were configured differently."""
    with best_effort("what was measured or drawn again"):
        run = Run.of(job, job.store.record(before.run_id))
        again = [remeasure(run, before), redraw(run, before)]
        if again[0] or MODEL not in before.tags or job.cfg.get("register"):
            record_model(run)
        if any(again):
            refresh_comparison(job.context, before.run_id, figures=True)
    state.clear(job.folder)  # of a process that was killed between the last record and this
    return before.metrics["best/val_loss"]


@dataclass
class Outcome:
    """How a run ended."""

    status: str = "KILLED"
    reason: str = "interrupted"
    recorded: bool = False  # whether the store took the status

    def check(self, run: Run) -> None:
        """Raise RunFailed unless the run finished and the store knows it."""
        if self.status == "FAILED" or (self.status == "FINISHED" and not self.recorded):
            _stop_if_fail_fast(run.context, f"{run.name}: {self.reason or 'the store could not record it as finished'}")
        if self.status == "FINISHED" and not self.recorded:
            raise RunFailed(
                f"{run.name}: trained, but the store could not record it as finished; the same command completes it"
            )
        if self.status != "FINISHED":
            raise RunFailed(f"{run.name}: {self.reason}")


@contextmanager
def _closed_at_the_end(run: Run, outcome: Outcome) -> Iterator[None]:
    """Close the run in the store, however it ends; only an interrupt is passed on."""
    record = run.record
    try:
        refresh_comparison(run.context, record.run_id)
        yield
        outcome.status, outcome.reason = "FINISHED", ""
    except Stopped as error:
        outcome.reason = str(error)
    except KeyboardInterrupt:
        record.client.retry_for = 0.0
        shorten_timeouts()
        raise
    except Exception as error:
        expected = isinstance(error, UserError)
        outcome.status, outcome.reason = "FAILED", str(error) if expected else f"{type(error).__name__}: {error}"
        (log.error if expected else log.exception)("%s failed: %s", run.name, outcome.reason)
        with best_effort("the traceback"):
            record.log_text(traceback.format_exc(), "error.txt")
    finally:
        with best_effort("the final status"):  # first, since a second signal may be the end
            record.finish(outcome.status)
            outcome.recorded = True
        if outcome.reason:
            with best_effort("the reason"):
                record.set_tags({ERROR: outcome.reason})
        refresh_comparison(run.context, record.run_id, figures=True)


def refresh_comparison(context: Context, run_id: str, figures: bool = False) -> None:
    """Write the sweep's comparison again after a change of one run; with its figures, where they are due."""
    if context.parent_id is None:
        return
    try:
        root, few = Path(context.root), len(context.cells) <= LIVE_FIGURES
        due = figures and few and figures_due(root, context.parent_id)
        refresh(context.store(retry=False), context.parent_id, context.cells, root, due, run_id)
    except UserError as error:  # the table can be written again; the run must not suffer
        log.warning("the sweep's comparison could not be refreshed: %s", error)
    except Exception:
        log.warning("the sweep's comparison could not be refreshed", exc_info=True)


def _before(job: Job) -> StoredRun | None:
    """The run of this identity that the sweep has, or a finished one of another sweep, which it then shares."""
    own = {ROLE: "run", RUN_KEY: job.key}
    before = job.store.newest({**own, SWEEP_KEY: job.context.sweep_key}, job.context.parent_id)
    if before and before.is_held_by_another(job.context.project):
        before = None
    if before and is_complete(before):
        log.info("%s is already finished, as run %s; resume=false trains it again", job.name, before.run_id[:8])
    elif job.context.parent_id:
        found = job.store.newest({**own, MACHINE: machine_kind(job.device)}, status="FINISHED")
        if found and is_complete(found) and (found.started or 0.0) >= (job.context.anew_since or 0.0):
            job.store.record(found.run_id).set_tags({linked(job.context.parent_id): "reused"})
            log.info(
                "%s is already finished, as run %s of %s; resume=false trains it again",
                *(job.name, found.run_id[:8], f"sweep {found.parent_id[:8]}" if found.parent_id else "its own"),
            )
            return found
    return before


def _reopened(job: Job, before: StoredRun) -> RunRecord:
    if before.tags.get(MACHINE) != machine_kind(job.device):
        log.warning(
            "%s started on another kind of machine (%s): its numbers are not bit-identical",
            job.name,
            before.tags.get(MACHINE),
        )
    if OUTPUTS in before.tags:
        (Path(before.tags[OUTPUTS]) / checkpoint.UNFINISHED).unlink(missing_ok=True)
    record = job.store.reopen(before.run_id)
    record.set_tags(environment() | {PROJECT: job.context.project})
    return record


def _started(job: Job) -> RunRecord:
    state.clear(job.folder)
    cell = next((cell for cell in job.context.cells if cell.key == job.key), None)
    settings = cell.settings if cell else settings_key(settings_of(job.cfg))
    other = job.store.newest({ROLE: "run", SETTINGS: settings}) if job.cfg.resume else None
    made_of = in_short(job.made_of, NOTE_LIMIT)
    known = made_of_text(other.tags[MADE_OF]) if other else {}
    if other and (difference := changed(known, made_of_text(made_of))):
        log.warning(
            "%s: %s changed since run %s of the same configuration; a new run is trained",
            *(job.name, difference, other.run_id[:8]),
        )
    elif other and SPLITS in job.made_of and SPLITS not in known:
        log.warning(
            "%s: run %s of the same configuration did not record splits and labels, as an earlier version prepared its "
            "images; a new run is trained",
            *(job.name, other.run_id[:8]),
        )
    tags = {ROLE: "run", RUN_KEY: job.key, SWEEP_KEY: job.context.sweep_key, SETTINGS: settings}
    tags |= {
        MADE_OF: made_of,
        MACHINE: machine_kind(job.device),
        PROJECT: job.context.project,
    }
    return job.store.start_run(job.name, {**tags, **environment(), **versions()}, job.context.parent_id)
