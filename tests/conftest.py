from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def command():
    """Run the real command line in a folder; returns the finished process with its output as text."""

    def run(*arguments: str, cwd: Path, module: str = "vae_sweep", **environment: str):
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "HYDRA_"))}
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=cwd,
            env=clean | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
