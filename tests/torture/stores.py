"""Does the store change a result? The same sweep on several stores, compared item by item with SQLite.

    python tests/torture/stores.py server=http://127.0.0.1:5000 direct=postgresql://user:password@127.0.0.1:5433/mlflow

Every sweep runs in a folder and an experiment of its own; credentials of a server come from MLFLOW_TRACKING_USERNAME
and MLFLOW_TRACKING_PASSWORD. Prints a Markdown table; the exit code is 0 if and only if everything is identical and no
password was found in what was kept. Timings are left out of the comparison.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"

import mlflow
import torch

SWEEP = ["-m", "model=fc,conv", "params=p1,p2,p3", "experiment=smoke"]
TIMINGS = {"wall_time_s", "train_time_s", "images_per_s", "cpu_time_s", "peak_memory_mb"}
PROGRESS = {"cells", "cells_finished"}  # of the sweep's own run, logged as cells end: only the last value counts
PLACES = ("paths.", "tracking.", "dataset.root", "dataset.path")  # parameters that say where, not what
ITEMS = ("runs", "parameters", "metric rows", "tags", "datasets", "artifacts", "pictures", "weights", "comparison.csv")
Facts = dict[str, dict[Any, Any]]


def main() -> None:
    """Run the sweep on SQLite and on every named store; print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", metavar="NAME=URI", help="a tracking URI under a name of your choice")
    parser.add_argument("--keep", type=Path, help="leave the sweeps' folders here")
    parser.add_argument("--sweep", default=" ".join(SWEEP), help="arguments of the sweep")
    given = parser.parse_args()
    stores = dict(store.split("=", 1) for store in given.stores)
    with tempfile.TemporaryDirectory() as temporary:
        base = (given.keep or Path(temporary)).resolve()
        facts: dict[str, Facts] = {}
        seconds: dict[str, float] = {}
        leaks: dict[str, list[str]] = {}
        for name, uri in {"sqlite": None, **stores}.items():
            root = base / name
            root.mkdir(parents=True)
            experiment = f"torture-{secrets.token_hex(4)}"
            uri = uri or f"sqlite:///{root / 'mlflow.db'}"
            seconds[name] = sweep(uri, root, experiment, given.sweep.split())
            client = mlflow.MlflowClient(tracking_uri=uri)
            facts[name] = collect(client, experiment, root)
            leaks[name] = list(kept_passwords(client, uri, experiment, root))
    sys.exit(0 if report(facts, seconds, leaks) else 1)


def sweep(uri: str, root: Path, experiment: str, arguments: list[str]) -> float:
    """Run the sweep in ``root``; return its seconds."""
    command = [sys.executable, "-m", "vae_sweep", *arguments]
    command += [f"tracking.uri='{uri}'", f"tracking.experiment={experiment}"]
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    (root / "output.txt").write_text(done.stdout + done.stderr)
    if done.returncode:
        sys.exit(f"the sweep on {root.name} failed with exit code {done.returncode}:\n{done.stderr[-3000:]}")
    return time.perf_counter() - started


def collect(client: mlflow.MlflowClient, experiment: str, root: Path) -> Facts:
    """Return everything that must not depend on the store, by kind and by run."""
    facts: Facts = {item: {} for item in ITEMS}
    for run in runs_of(client, experiment):
        name, run_id = run.info.run_name, run.info.run_id
        facts["runs"][name] = run.info.status
        facts["parameters"] |= {
            (name, key): value for key, value in run.data.params.items() if not key.startswith(PLACES)
        }
        for key in run.data.metrics:
            rows = [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
            rows = rows[-1:] if key in PROGRESS else rows
            facts["metric rows"] |= {
                (name, key, *row[:1], number): "" if key in TIMINGS else row[1]
                for number, row in enumerate(sorted(rows))
            }
        facts["tags"] |= {(name, key): "" for key in run.data.tags}
        facts["datasets"][name] = [(i.dataset.name, i.dataset.digest) for i in run.inputs.dataset_inputs]
        for path in artifacts_of(client, run_id):
            facts["artifacts"][name, path] = ""
            if path.endswith((".png", ".npy", ".pt")) or path == "comparison.csv":
                with tempfile.TemporaryDirectory() as folder:
                    local = Path(client.download_artifacts(run_id, path, folder))
                    if path.endswith(".pt"):
                        facts["weights"][name, path] = weights(local)
                    elif path == "comparison.csv":
                        facts["comparison.csv"] = table(local)
                    else:
                        facts["pictures"][name, path] = hashlib.sha256(local.read_bytes()).hexdigest()
    return facts


def runs_of(client: mlflow.MlflowClient, experiment: str) -> Iterable[Any]:
    """Return all runs of an experiment."""
    found = client.search_experiments(filter_string=f"name = '{experiment}'")
    return client.search_runs([each.experiment_id for each in found], max_results=1000)


def artifacts_of(client: mlflow.MlflowClient, run_id: str, folder: str | None = None) -> Iterator[str]:
    """Yield the paths of a run's files."""
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from artifacts_of(client, run_id, entry.path)
        else:
            yield entry.path


def weights(path: Path) -> str:
    """Return a digest of the tensors of a checkpoint."""
    digest = hashlib.sha256()

    def add(key: str, node: Any) -> None:
        if isinstance(node, torch.Tensor):
            digest.update(f"{key} {node.dtype} {tuple(node.shape)}".encode() + node.contiguous().numpy().tobytes())
        elif isinstance(node, dict):
            for name in sorted(node):
                add(f"{key}.{name}", node[name])

    add("", torch.load(path, map_location="cpu", weights_only=True))
    return digest.hexdigest()


def table(path: Path) -> dict[tuple[str, str], str]:
    """Return the cells of a comparison without timings and run ids."""
    with path.open(newline="") as file:
        return {
            (row["name"], key): value
            for row in csv.DictReader(file)
            for key, value in row.items()
            if key not in TIMINGS | {"run_id"}
        }


def kept_passwords(client: mlflow.MlflowClient, uri: str, experiment: str, root: Path) -> Iterator[str]:
    """Yield where a secret of the store's address, or of the environment, was written to."""
    parts = urllib.parse.urlsplit(uri)
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    known = [password or (user if parts.scheme.startswith("http") else "")]
    known += [value for key, value in urllib.parse.parse_qsl(parts.query) if "pass" in key or "token" in key]
    known += [os.environ.get(f"MLFLOW_TRACKING_{name}", "") for name in ("PASSWORD", "TOKEN")]
    words = {form.encode() for word in known if word for form in (word, urllib.parse.unquote(word))}
    if not words:
        return
    for local in sorted(path for path in root.rglob("*") if path.is_file()):
        if any(word in local.read_bytes() for word in words):
            yield re.sub(r".*/(?=\.hydra/)", "", str(local.relative_to(root)))
    for run in runs_of(client, experiment):
        for kind, values in (("tag", run.data.tags), ("parameter", run.data.params)):
            for key, value in values.items():
                if any(word in value.encode() for word in words):
                    yield f"{kind} {key}"
        for path in artifacts_of(client, run.info.run_id):
            with tempfile.TemporaryDirectory() as folder:
                content = Path(client.download_artifacts(run.info.run_id, path, folder)).read_bytes()
                if any(word in content for word in words):
                    yield f"artifact {path}"


def report(facts: dict[str, Facts], seconds: dict[str, float], leaks: dict[str, list[str]]) -> bool:
    """Print the table and the first differences; return whether there are none."""
    print("| store | seconds | " + " | ".join(ITEMS) + " | password kept in |")
    print("| --- | --- |" + " --- |" * (len(ITEMS) + 1))
    differences = []
    for name, found in facts.items():
        cells = []
        for item in ITEMS:
            expected, got = facts["sqlite"][item], found[item]
            wrong = [key for key in expected.keys() | got.keys() if expected.get(key) != got.get(key)]
            cells.append(f"{len(got)}" if not wrong else f"{len(got)}, **{len(wrong)} differ**")
            differences += [f"{name}, {item}, {key}: {expected.get(key)} != {got.get(key)}" for key in wrong]
        places = ", ".join(dict.fromkeys(leaks[name])) or "nowhere"
        print(f"| {name} | {seconds[name]:.0f} | " + " | ".join(cells) + f" | {places} |")
    good = not differences and not any(leaks.values())
    print(f"\nNumbers are counts of compared items. {'Identical.' if not differences else 'Not identical:'}")
    for line in differences[:20]:
        print(f"- {line}")
    return good


if __name__ == "__main__":
    main()
