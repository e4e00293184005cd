"""Completion in bash: what the Tab key offers after a beginning of a command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from running import clean_environment

BASH = shutil.which("bash")
# As bash does at a Tab: words are split at blanks and at COMP_WORDBREAKS, `=` among them.
TAB = r"""
eval "$("$1" -m vae_sweep -sc install=bash)"
complete -p python vae-sweep > /dev/null || exit 3
vae-sweep() { "$PYTHON" -m vae_sweep "$@"; }
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<< "$COMP_LINE"
_vae_sweep
printf '%s\n' "${COMPREPLY[@]}"
"""


def offered(line: str, folder: Path) -> list[str]:
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", TAB, "bash", sys.executable, line],
        cwd=folder,
        env=clean_environment() | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="this system has no bash")
def test_tab_offers_what_fits(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "my.yaml").write_text("# @package _global_\nseed: 3\n", encoding="utf-8")
    python = f"{sys.executable} -m vae_sweep"
    assert offered("vae-sweep model=fc", tmp_path) == ["fc", "fc_dct", "fc_matched", "fc_res", "fc_skip"]
    assert offered("vae-sweep sweep model=fc,conv params=p", tmp_path) == ["p1", "p2", "p3"]
    assert offered(f"{python} -m model=linear,con", tmp_path) == ["linear,conv", "linear,conv_dct", "linear,conv_res"]
    assert offered(f"{python} --config-dir my_conf experiment=", tmp_path) == ["celeba30", "my", "smoke"]
    assert offered("vae-sweep dataset=folder dataset.val_", tmp_path) == ["dataset.val_fraction="]
    assert offered("vae-sweep s", tmp_path) == ["seed=", "sweep.", "sweep"]
    assert offered("vae-sweep generate run=", tmp_path) == []
    assert offered(f"{sys.executable} script.py mod", tmp_path) == []
