"""What ran where: versions, machine, and the commit of the code."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import torch

import vae_sweep


@cache
def environment() -> dict[str, str]:
    """Return the tags of a run that do not depend on its configuration."""
    tags = {
        "vae_sweep.host": socket.gethostname(),
        "vae_sweep.pid": str(os.getpid()),
        "version.vae_sweep": vae_sweep.__version__,
        "version.python": platform.python_version(),
        "version.torch": torch.__version__,
        "version.numpy": np.__version__,
        "mlflow.source.name": "vae_sweep",
    }
    package = Path(vae_sweep.__file__).parent
    if _git(package, "ls-files", "__init__.py"):  # else it only lies inside another repository
        tags["mlflow.source.git.commit"] = _git(package, "rev-parse", "HEAD")
        tags["vae_sweep.git_dirty"] = str(bool(_git(package, "status", "--porcelain", "-uno"))).lower()
    return tags


@cache
def machine_kind(device: torch.device) -> str:
    """Return what two machines share on which one run has the same bits: processor, its instructions, PyTorch."""
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    else:
        processor = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type}: {processor}, PyTorch {torch.__version__}".replace(
        "'", ""
    )  # it stands in quotes in queries of the store


def _processor() -> str:
    """The processor's model as Linux names it, else what Python knows."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git(folder: Path, *arguments: str) -> str:
    """Output of a git command about the package's own checkout; empty where there is none."""
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
