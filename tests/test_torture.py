"""A sweep that is killed in every way ends with the numbers of one that was left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_sweep_that_is_killed_again_and_again_ends_with_the_same_numbers() -> None:
    script = Path(__file__).parent / "torture" / "kill.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--grid", "tiny"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for target in ("parent", "worker", "group"):
        assert f"| {target} |" in done.stdout
