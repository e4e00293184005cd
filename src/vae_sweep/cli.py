"""The command: Hydra composes, the task function runs one cell, errors that the user can fix come out as one line."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

import hydra
from omegaconf import DictConfig

from vae_sweep.base.errors import FULL, RunFailed, keep_asked
from vae_sweep.base.process import nobody_reads, set_up
from vae_sweep.base.signals import handle_sigint, interrupt
from vae_sweep.config import completion
from vae_sweep.config import schema as configuration
from vae_sweep.config.arguments import check_arguments
from vae_sweep.config.help import COMMANDS, version_text
from vae_sweep.config.messages import user_message
from vae_sweep.config.schema import config_dir
from vae_sweep.sweeps.display import stop_display
from vae_sweep.sweeps.lifecycle import SweepCallback
from vae_sweep.sweeps.watch import stop_workers

log = logging.getLogger(__name__)


def task(cfg: DictConfig) -> float:
    """Run one cell; Hydra calls this in the worker, once per job."""
    from hydra.core.hydra_config import HydraConfig

    from vae_sweep.sweeps.execute import execute

    sweep = SweepCallback.current
    if sweep is None or sweep.context is None:
        raise RunFailed("the sweep's callback did not run; hydra.callbacks.sweep must stay as conf/config.yaml has it")
    job = HydraConfig.get()
    return execute(cfg, sweep.context, list(job.overrides.task), Path(job.runtime.output_dir))


def main() -> None:
    """Entry point of ``python -m vae_sweep`` and ``vae-sweep``; a first word may name another command."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a user's own modules, for the console script as for `python -m`
    word = next(iter(sys.argv[1:]), "")
    if word in COMMANDS:
        del sys.argv[1]
        return importlib.import_module(f"vae_sweep.{word}").main()
    if word == "sweep":
        sys.argv[1] = "-m"
    if "--version" in sys.argv[1:]:  # Hydra would print its own
        return print(version_text())
    if completion.is_asked(sys.argv[1:]):
        configuration.register()
        return completion.answer(sys.argv[1:], _compose_and_run)
    try:
        set_up()
        sys.argv[1:] = check_arguments(sys.argv[1:])
    except Exception as refusal:
        message = user_message(refusal)
        if message is None:
            raise
        sys.exit(message)
    configuration.register()
    full_traceback = os.environ.get(FULL) == "1"
    keep_asked()
    os.environ[FULL] = "1"  # makes Hydra pass exceptions on, so that user_message words them
    logging.raiseExceptions = False  # a full disk under the log file is not worth a traceback per line
    # joblib takes the memory of a worker's first real run after a skipped one for a leak; it only starts another.
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given to the executor")
    signal.signal(signal.SIGTERM, interrupt)
    handle_sigint()
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # not under nohup
        signal.signal(signal.SIGHUP, interrupt)
    error: BaseException | None = None
    try:
        _compose_and_run()
    except SystemExit as stop:
        if stop.code not in (None, 0):
            error = stop
            raise
    except BaseException as raised:
        error = raised
    finally:
        failures = _close(error)
    if isinstance(error, KeyboardInterrupt):
        how = next(iter(_reminder()), "the same command continues")
        print("\n".join(_lines([*failures, f"interrupted; {how}"])), file=sys.stderr)
        sys.exit(130)
    if isinstance(error, BrokenPipeError):
        nobody_reads()
        sys.exit(1)
    if error is not None:
        message = user_message(error)
        if message is None or full_traceback:
            raise error
        if not failures:  # a run alone may have logged its reason
            shown = [] if isinstance(error, RunFailed) and _log_is_shown() else [message]
            sys.exit("\n".join([*shown, *_lines(_reminder())]) or 1)
        if not isinstance(error, RunFailed):
            print(message, file=sys.stderr)
    if failures:  # every failed cell: Hydra passes on the first failure of a sweep only
        sys.exit("\n".join(_lines([*failures, *_reminder()])))


def _compose_and_run() -> None:
    """Let Hydra do what ``sys.argv`` says."""
    hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(task)()


def _log_is_shown() -> bool:
    sweep = SweepCallback.current
    return sweep is not None and sweep.context is not None and not sweep.context.own_display


def _reminder() -> list[str]:
    """With ``resume=false`` it is not the same command that continues, whatever the lines above say."""
    sweep = SweepCallback.current
    if sweep is None or sweep.context is None or not sweep.context.anew:
        return []
    return ["without resume=false the same command continues; with it everything is trained again"]


def _lines(failures: list[str]) -> list[str]:
    return [f"vae_sweep: {failure}" for failure in failures]


def _close(error: BaseException | None) -> list[str]:
    """Close the sweep, whatever ended it; return one line per failed cell, and one where closing failed."""
    sweep = SweepCallback.current
    if sweep is None or sweep.context is None:
        return []
    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave the parent run open
    stop_display()
    if isinstance(error, KeyboardInterrupt) and sweep.context.parent_id is not None:
        stop_workers(Path(sweep.context.root), sweep.context.sweep_key)
    try:
        sweep.close(error)
    except Exception as failure:
        message = user_message(failure)
        if message is None:
            log.exception("the sweep could not be closed")
        reason = (message or type(failure).__name__).removeprefix("vae_sweep: ")
        return [*sweep.failures, f"the sweep could not be closed: {reason}; the same command completes it"]
    return sweep.failures
