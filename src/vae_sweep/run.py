"""The life of one run: whether it is new, continued or finished; how it ends, and what the store then says."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from vae_sweep import checkpoint, state
from vae_sweep.context import Context
from vae_sweep.errors import RunFailed, Stopped, UserError
from vae_sweep.identity import code_key, run_key
from vae_sweep.interrupts import Terminated
from vae_sweep.lease import lease, me
from vae_sweep.measuring import measure_again
from vae_sweep.places import ask_to_stop, asked_to_stop, folder_of, temporary_files_in
from vae_sweep.preparation import prepare
from vae_sweep.provenance import environment
from vae_sweep.recording import said_if_lost, train_and_record
from vae_sweep.tracking import StoredRun, hurry, versions
from vae_sweep.watch import ends_with_its_sweep

log = logging.getLogger(__name__)

FAIL_FAST = "another cell failed and fail_fast=true"


def execute(
    cfg: DictConfig,
    context: Context,
    name: str,
    output_dir: Path,
    on_change: Callable[[bool], None] = lambda finished: None,
) -> float:
    """Train, evaluate and record one run; return its lowest validation loss in nats per image.

    ``on_change`` is called with False once the run is open in the store, and with True once it is closed.

    Raises:
        RunFailed: for whatever stopped the run; the store holds the reason and the traceback.
        KeyboardInterrupt: the whole sweep was interrupted.
    """
    logging.raiseExceptions = False  # a full disk under the log file is not worth a traceback per line
    stop = asked_to_stop(Path(context.root), context.sweep_key) if context.parent_id else None
    if stop is not None:
        raise RunFailed(f"{name}: not started: {stop}")
    if context.code not in (None, code_key()):
        where = f"{me()['host']}, {Path(__file__).parent}"
        raise RunFailed(
            f"{name}: not started: the worker ({where}) has other code than the sweep; install the same there"
        )
    key = run_key(cfg)
    folder = folder_of(Path(context.root), context.sweep_key, key)
    try:
        with ends_with_its_sweep(context), lease(folder, f"run {name}"), temporary_files_in(folder):
            return _continued(cfg, context, name, output_dir, on_change, key, folder)
    except Terminated:
        if context.owner == me():
            raise
        raise RunFailed(f"{name}: its process was told to end; the same command continues it") from None
    except UserError as error:
        raise RunFailed(f"{name}: {error}") from None


def _continued(
    cfg: DictConfig,
    context: Context,
    name: str,
    output_dir: Path,
    on_change: Callable[[bool], None],
    key: str,
    folder: Path,
) -> float:
    """Skip, continue or start the run of identity ``key``."""
    store = context.store()
    own = {"vae_sweep.role": "run", "vae_sweep.run_key": key, "vae_sweep.sweep_key": context.sweep_key}
    before = store.newest(own, context.parent_id) if cfg.resume else None
    difference = _difference(before, cfg, context) if before else ""
    if before and before.status == "FINISHED" and "best/val_loss" in before.metrics:
        if difference:
            log.warning("%s is finished, but %s; resume=false trains it again", name, difference)
        else:
            log.info("%s is finished already, as run %s; resume=false trains it again", name, before.run_id[:8])
        with said_if_lost("the held-out metrics"):
            if measure_again(cfg, context, name, before):
                on_change(True)
        state.clear(folder)  # of a process that was killed between the last record and this
        return before.metrics["best/val_loss"]
    if before and difference:
        log.warning("%s was interrupted, and %s: it starts afresh", name, difference)
        before = None
    if before is None:
        state.clear(folder)
    if before:
        if "vae_sweep.outputs" in before.tags:
            (Path(before.tags["vae_sweep.outputs"]) / checkpoint.UNFINISHED).unlink(missing_ok=True)
        record = store.reopen(before.run_id)
        record.set_tags(environment() | {"vae_sweep.place": context.place})
    else:
        tags = {**own, "vae_sweep.code": code_key(), "vae_sweep.place": context.place, **environment(), **versions()}
        record = store.start_run(name, tags, context.parent_id)
    status, reason = "KILLED", "interrupted"
    try:
        on_change(False)
        loss = train_and_record(cfg, context, name, output_dir, record, folder)
        status, reason = "FINISHED", ""
    except Stopped as error:
        reason = str(error)
    except KeyboardInterrupt:
        store.client.patience = 0.0
        hurry()
        raise
    except Exception as error:
        expected = isinstance(error, UserError)
        status, reason = "FAILED", str(error) if expected else f"{type(error).__name__}: {error}"
        (log.error if expected else log.exception)("%s failed: %s", name, reason)
        with said_if_lost("the traceback"):
            record.log_text(traceback.format_exc(), "error.txt")
    finally:
        if reason:
            with said_if_lost("the reason"):
                record.set_tags({"vae_sweep.error": reason})
        recorded = False
        with said_if_lost("the final status"):
            record.finish(status)
            recorded = True
        on_change(True)
    if status == "FINISHED" and not recorded:
        raise RunFailed(f"{name}: trained, but not recorded as finished; the same command completes it")
    if status == "FAILED" and context.fail_fast and context.parent_id:
        ask_to_stop(Path(context.root), context.sweep_key, FAIL_FAST)
    if status != "FINISHED":
        raise RunFailed(f"{name}: {reason}")  # out here, so that it does not carry the model's memory along
    state.clear(folder)
    return loss


def _difference(before: StoredRun, cfg: DictConfig, context: Context) -> str:
    """What has changed since an earlier run of the same configuration; empty where nothing that counts did."""
    if before.tags.get("vae_sweep.code") != code_key():
        return "the code of models or training has changed since"
    known = before.params.get("dataset.digest")
    if known and known != prepare(cfg, Path(context.root))[0].digest:
        return "the images have changed since"
    return ""
