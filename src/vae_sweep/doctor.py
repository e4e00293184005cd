"""What this machine can do: ``python -m vae_sweep.doctor``."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vae_sweep import __version__
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import available_cores, shown, total_memory
from vae_sweep.config.options import option, run_command

PACKAGES = ("torch", "torchvision", "mlflow", "hydra-core", "omegaconf", "numpy", "pandas", "matplotlib")
EXTRAS = {  # extra: its packages, and what it is for
    "fd": (("torch-fidelity", "efficientnet-lite-pytorch"), "distances between distributions of images"),
    "export": (("onnx", "onnxruntime", "safetensors"), "models for other programs"),
    "ray": (("hydra-ray-launcher",), "sweeps on one machine or a cluster of Ray"),
    "slurm": (("hydra-submitit-launcher",), "sweeps on a batch system"),
    "postgres": (("psycopg",), "a store in PostgreSQL"),
}
ROOM = 2 * 2**30  # bytes: a default sweep keeps about half a GB


@dataclass
class Options:
    """Say what is installed, what this machine computes on, and whether store, data and disk are ready."""

    uri: str | None = option("tracking store; null: as in training, seen from this folder", None)


def main() -> None:
    """Entry point of ``python -m vae_sweep.doctor``."""

    def work(options: Options) -> None:
        for name, value in findings(options.uri, Path.cwd()):
            print(f"{name:<16} {value}")

    run_command("doctor", Options, work)


def findings(uri: str | None, root: Path) -> Iterator[tuple[str, str]]:
    """Yield what was looked at and what was found, with a remedy where something is missing."""
    yield "vae_sweep", f"{__version__}, Python {platform.python_version()}"
    yield "packages", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    for extra, (packages, purpose) in EXTRAS.items():
        missing = [name for name in packages if not _version(name)]
        remedy = f"not installed; pip install 'vae-sweep[{extra}]'"
        yield f"extra {extra}", f"{remedy if missing else 'installed'} ({purpose})"
    yield "device", _device()
    yield "processor", f"{available_cores()} cores for this process, {shown(total_memory())} of memory"
    yield "features", _features()
    yield "store", _store(uri, root)
    yield "data", _data(root)
    free = shutil.disk_usage(root).free
    yield "disk", f"{shown(free)} free" + ("" if free > ROOM else "; a sweep needs about half a GB, free some space")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _device() -> str:
    from vae_sweep.training.device import PRECISIONS, computes_in, device_name, resolve_device

    device = resolve_device("auto")
    able = [precision for precision in PRECISIONS if computes_in(precision, device)]
    return f"{device} ({device_name(device)}); training.precision: {', '.join(able)}"


def _features() -> str:
    from vae_sweep.metrics.features import resolve
    from vae_sweep.training.device import resolve_device

    try:
        network, why = resolve("auto", None, resolve_device("auto"))
    except UserError as error:
        return str(error)
    return f"{network} ({why})"


def _store(uri: str | None, root: Path) -> str:
    from vae_sweep.tracking.store import Store

    try:
        store = Store.existing(uri, root, "none yet; the first sweep makes it")
    except UserError as error:
        return str(error)
    newest = store.newest({"vae_sweep.role": "sweep"})
    return f"{store.uri}; {f'its last sweep: {newest.name} ({newest.run_id})' if newest else 'without a sweep'}"


def _data(root: Path) -> str:
    from vae_sweep.datasets.celeba import CelebA
    from vae_sweep.datasets.cifar10 import Cifar10

    there = ["shapes (generated)", "folder (your images)"]
    there += ["cifar10"] if Cifar10(root=str(root / "data")).is_there else []
    with suppress(UserError):
        CelebA(root=str(root / "data")).fingerprint()
        there.append("celeba")
    return ", ".join(there)


if __name__ == "__main__":
    main()
