"""What Hydra's launchers lack: interrupts, requeued jobs, a dead job that does not end the sweep, long runs first.

joblib, Ray and submitit are imported only where their launcher is in use.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from vae_sweep.base.errors import RunFailed
from vae_sweep.comparison.rows import Cell
from vae_sweep.config.plan import by_key


def patch_launcher(launcher: str, on_sigterm: Any, cells: Sequence[Cell] = ()) -> None:
    """Patch the launcher of class ``launcher`` where it needs it; ``on_sigterm`` keeps handling SIGTERM."""
    if "submitit" in launcher:
        _collect_from_all()
    if launcher.endswith(".RayLauncher"):
        _keep_our_signal(on_sigterm)
    if launcher.endswith(".JoblibLauncher"):
        _start_longest_first(cells)
        if hasattr(signal, "SIGHUP"):
            _start_resource_tracker()


def cell_of(cells: Iterable[Cell], overrides: Sequence[str]) -> Cell | None:
    """Return the cell that a job's overrides choose; None where the cells are not known ahead."""
    given = by_key(overrides).items()
    return next((cell for cell in cells if by_key(cell.overrides).items() <= given), None)


def _start_longest_first(cells: Sequence[Cell]) -> None:
    """joblib: start the jobs with the most arithmetic first, so that no core waits at the end for the last of them."""
    from hydra_plugins.hydra_joblib_launcher import _core

    class LongestFirst(_core.Parallel):
        def __call__(self, jobs: Iterable[Any]) -> list[Any]:
            given = list(jobs)  # each as (execute_job, (number, overrides, ...), {})
            flops = [cell.flops if (cell := cell_of(cells, job[1])) else 0.0 for _, job, _ in given]
            order = sorted(range(len(given)), key=lambda n: -flops[n])
            results = dict(zip(order, super().__call__([given[n] for n in order]), strict=True))
            return [results[n] for n in range(len(given))]

    _core.Parallel = LongestFirst


def joblib_temp_folder(folder: Path) -> str:
    """Return where joblib may keep its temporary files: in ``folder``, or in the system's where it cannot name it.

    Its resource tracker reads ASCII lines of at most 512 bytes.
    """
    name = str(folder)
    return name if name.isascii() and name.isprintable() and len(name) < 350 else tempfile.gettempdir()


def _start_resource_tracker() -> None:
    """joblib: a closed terminal must not end its resource tracker, as Ctrl-C and SIGTERM do not.

    The one that is started in its place prints a traceback for each resource that it does not know.
    """
    from joblib.externals.loky.backend import resource_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # a child inherits it
    try:
        resource_tracker.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect_from_all() -> None:
    """submitit: a job that died without a result is one failed run, not the end of waiting for the others."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core import core
    from submitit.core.utils import UncompletedJobError

    results: Any = core.Job.results

    def results_or_failure(job: Any) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError:
            lost = JobReturn(status=JobStatus.FAILED)
            lost.return_value = RunFailed(
                f"job {job.job_id} ended without a result; its log: {job.paths.stderr}; where memory was short, give "
                "more with hydra.launcher.mem_gb=16"
            )
            return [lost]

    setattr(core.Job, "results", results_or_failure)  # noqa: B010


def _keep_our_signal(on_sigterm: Any) -> None:
    """Ray takes SIGTERM for itself when it starts."""
    import ray

    init = ray.init

    def patched(*arguments: Any, **named: Any) -> Any:
        started = init(*arguments, **named)
        signal.signal(signal.SIGTERM, on_sigterm)
        return started

    ray.init = patched


def allow_requeue() -> None:
    """Slurm: let submitit put this job back into the queue at its time limit; the SIGTERM after that is part of it."""
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return
    number = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
    requeue = signal.getsignal(number)

    def handler(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if callable(requeue):
            requeue(signum, frame)

    if callable(requeue):
        signal.signal(number, handler)


def end_workers() -> None:
    """End the processes and jobs that the launcher of this process has started: a signal may have reached it alone."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        loky._executor.shutdown(wait=True, kill_workers=True)
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
    slurm = sys.modules.get("submitit.slurm.slurm")
    if slurm is not None:
        watcher = slurm.SlurmJob.watcher
        arrays = sorted({job.split("_")[0] for job in watcher._registered - watcher._finished})
        if arrays:  # jobs still in the queue would start after the sweep's next start
            subprocess.run(["scancel", *arrays], check=False)
