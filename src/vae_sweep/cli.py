"""The command: Hydra composes, the task function runs one cell, what a user can mend comes out as one line."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import hydra
from omegaconf import DictConfig

from vae_sweep import config as configuration
from vae_sweep.errors import RunFailed
from vae_sweep.messages import one_line
from vae_sweep.sweep import SweepCallback, cell_name, refresh


def config_dir() -> Path:
    """Return the folder of the shipped configuration: inside the installed package, or in the checkout."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def task(cfg: DictConfig) -> float:
    """Run one cell; Hydra calls this in the worker, once per job."""
    from hydra.core.hydra_config import HydraConfig

    from vae_sweep.run import execute

    sweep = SweepCallback.current
    if sweep is None or sweep.context is None:
        raise RunFailed("the sweep's callback did not run; hydra.callbacks.sweep must stay as conf/config.yaml has it")
    context = sweep.context
    job = HydraConfig.get()
    name = cell_name(cfg, list(job.overrides.task), context.swept)

    def changed(finished: bool) -> None:
        if context.parent_id is not None:
            refresh(context, pictures=finished)

    return execute(cfg, context, name, Path(job.runtime.output_dir), changed)


def main() -> None:
    """Entry point of ``python -m vae_sweep`` and ``vae-sweep``."""
    configuration.register()
    full_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra pass exceptions on, so that one place words them
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")(task)()
    except KeyboardInterrupt:
        _stop_workers()
        _finalize(interrupted=True)
        print("vae_sweep: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        _finalize()
        message = one_line(error)
        if message is None or full_traceback:
            raise
        sys.exit(_all_failures(error, message))
    finally:
        _finalize()


def _finalize(interrupted: bool = False) -> None:
    if SweepCallback.current is not None:
        SweepCallback.current.finalize(interrupted)


def _all_failures(error: Exception, message: str) -> str | int:
    """What is left to say: Hydra passes on the first failure of a sweep only, so name every failed cell.

    A run alone has already logged its reason.
    """
    sweep = SweepCallback.current
    if sweep is not None and sweep.failures:
        return "\n".join(f"vae_sweep: {failure}" for failure in sweep.failures)
    return 1 if isinstance(error, RunFailed) else message


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stop_workers() -> None:
    """End the processes of the joblib launcher: an interrupt that reached this process alone leaves them running."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        loky._executor.shutdown(wait=True, kill_workers=True)
