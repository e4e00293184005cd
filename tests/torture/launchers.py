"""Does the launcher change a result? The same sweep under several launchers, compared item by item with `basic`.

    python tests/torture/launchers.py                                  # all but slurm
    python tests/torture/launchers.py ray-cluster slurm --keep launchers

`ray-cluster` starts two node processes on this machine (ray-on-loopback.sh), or takes `--ray-address`. `slurm` takes
the cluster of this machine, or starts one of one node (slurm-on-loopback.sh: Debian, as root). Prints a Markdown table;
the exit code is 0 if and only if every asked launcher ran one sweep of six finished runs, identical to those of
`basic` in all that stores.py compares. Timings are left out of the comparison.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
from stores import ITEMS, Facts, collect, runs_of

HERE = Path(__file__).resolve().parent
SWEEP = ["-m", "model=fc,conv", "params=p1,p2,p3", "experiment=smoke"]
CELLS = 6
LAUNCHERS = {
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "ray": ["hydra/launcher=ray_local", "hydra.launcher.ray.init.num_cpus=2"],
    "ray-cluster": ["hydra/launcher=ray_cluster"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=60"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.mem_gb=2", "hydra.launcher.array_parallelism=2"],
}
PLUGINS = {
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "ray-cluster": "hydra_plugins.hydra_ray_launcher",
    "submitit": "hydra_plugins.hydra_submitit_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}


@dataclass
class Result:
    """What one launcher made of the sweep."""

    exit_code: int
    seconds: float
    statuses: Counter[str]  # of the cells
    sweeps: list[str]  # statuses of the runs without a parent
    facts: Facts

    @property
    def complete(self) -> bool:
        """Whether there is one finished sweep with every cell finished."""
        return not self.exit_code and self.sweeps == ["FINISHED"] and self.statuses == Counter(FINISHED=CELLS)


def main() -> None:
    """Run the sweep under every asked launcher; print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "launchers", nargs="*", metavar="LAUNCHER", help=f"of {', '.join(LAUNCHERS)}; basic always runs"
    )
    parser.add_argument("--ray-address", help="of a cluster that runs already; its nodes must see this file system")
    parser.add_argument("--keep", type=Path, help="leave the sweeps' folders here")
    given = parser.parse_args()
    unknown = set(given.launchers) - set(LAUNCHERS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no such launcher")
    asked = ["basic", *(given.launchers or [name for name in LAUNCHERS if name != "slurm"])]
    results: dict[str, Result | str] = {}
    with tempfile.TemporaryDirectory(prefix="l-") as temporary:  # a short name: sockets stand below it
        base = (given.keep or Path(temporary, "sweeps")).resolve()
        for name in dict.fromkeys(asked):
            if name in PLUGINS and not installed(PLUGINS[name]):
                results[name] = "not installed"
                continue
            with cluster(name, Path(temporary), given.ray_address) as (environment, arguments):
                results[name] = sweep(base / name, [*LAUNCHERS[name], *arguments], environment)
    sys.exit(0 if report(results) else 1)


def installed(module: str) -> bool:
    """Return whether a Hydra plugin is installed."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def cluster(name: str, folder: Path, ray_address: str | None) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Give the environment and the further arguments of a launcher, its cluster running."""
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["RAY_USAGE_STATS_ENABLED"] = "0"
    if name == "ray-cluster" and ray_address:
        yield environment, [f"hydra.launcher.ray.init.address='{ray_address}'"]
    elif name == "ray-cluster":
        with started("ray-on-loopback.sh", folder / "ray", environment) as variables:
            yield variables, []
    elif name == "slurm" and not (
        shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0
    ):
        with started("slurm-on-loopback.sh", folder / "slurm", environment) as variables:
            yield variables, []
    else:
        yield environment, []


@contextmanager
def started(script: str, folder: Path, environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Run a cluster of this machine by one of the scripts beside this file; give the environment to use it in."""
    command = [str(HERE / script)]
    try:
        subprocess.run([*command, "start", str(folder)], env=environment, check=True, stdout=subprocess.DEVNULL)
        shown = subprocess.run(
            ["bash", "-c", f". {folder}/env && env -0"], env=environment, check=True, capture_output=True, text=True
        )
        yield dict(line.split("=", 1) for line in shown.stdout.split("\0") if "=" in line)
    finally:
        subprocess.run([*command, "stop", str(folder)], env=environment, stdout=subprocess.DEVNULL)


def sweep(root: Path, arguments: list[str], environment: dict[str, str]) -> Result:
    """Run the sweep in ``root``, in an experiment of its own; return what is in the store afterwards."""
    root.mkdir(parents=True)
    uri, experiment = f"sqlite:///{root / 'mlflow.db'}", "torture-launchers"
    command = [sys.executable, "-m", "vae_sweep", *SWEEP, *arguments]
    command += [f"tracking.uri='{uri}'", f"tracking.experiment={experiment}"]
    begun = time.perf_counter()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - begun
    (root / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        print(f"{root.name}: exit code {done.returncode}\n{done.stderr[-3000:]}", file=sys.stderr)
    client = mlflow.MlflowClient(tracking_uri=uri)
    runs: list[Any] = list(runs_of(client, experiment))
    parents = {run.info.run_id: run for run in runs if "mlflow.parentRunId" not in run.data.tags}
    cells = [run for run in runs if run.data.tags.get("mlflow.parentRunId") in parents]
    return Result(
        done.returncode,
        seconds,
        Counter(run.info.status for run in cells),
        [run.info.status for run in parents.values()],
        collect(client, experiment, root),
    )


def report(results: dict[str, Result | str]) -> bool:
    """Print the table and the first differences; return whether all is well."""
    reference = results["basic"]
    assert isinstance(reference, Result)
    differences: list[str] = []
    good = True
    print("| launcher | exit code | sweeps | runs | seconds | identical to basic |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, result in results.items():
        if isinstance(result, str):
            print(f"| {name} | {result} | | | | |")
            good = False
            continue
        wrong = [
            f"{name}, {item}, {key}: {reference.facts[item].get(key)} != {result.facts[item].get(key)}"
            for item in ITEMS
            for key in sorted(reference.facts[item].keys() | result.facts[item].keys(), key=str)
            if reference.facts[item].get(key) != result.facts[item].get(key)
        ]
        counts = ", ".join(f"{len(result.facts[item])} {item}" for item in ("metric rows", "weights", "pictures"))
        same = f"yes ({counts})" if not wrong else f"**no: {len(wrong)} differ**"
        runs = ", ".join(f"{count} {status}" for status, count in result.statuses.items()) or "none"
        print(
            f"| {name} | {result.exit_code} | {', '.join(result.sweeps) or 'none'} | {runs} | {result.seconds:.0f} | "
            f"{'' if name == 'basic' else same} |"
        )
        good &= result.complete and not wrong
        differences += wrong
    for line in differences[:20]:
        print(f"- {line}")
    return good


if __name__ == "__main__":
    main()
