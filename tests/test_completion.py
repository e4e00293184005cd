"""Completion in bash: what the Tab key offers after a beginning of a command."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from running import clean_environment

BASH = shutil.which("bash")
# As bash does at a Tab: words are split at blanks and at COMP_WORDBREAKS, `=` among them.
TAB = r"""
eval "$("$PYTHON" -m vae_sweep -sc install=bash)"
complete -p python vae-sweep > /dev/null || exit 3
vae-sweep() { "$PYTHON" -m vae_sweep "$@"; }
for COMP_LINE; do
    COMP_POINT=${#COMP_LINE} COMPREPLY=()
    read -ra COMP_WORDS <<< "$COMP_LINE"
    _vae_sweep
    echo "${COMPREPLY[*]}"
done
"""


def offered(lines: Iterable[str], folder: Path) -> list[str]:
    """What is offered after each line."""
    assert BASH is not None
    done = subprocess.run(
        [BASH, "--norc", "-c", TAB, "bash", *lines],
        cwd=folder,
        env=clean_environment() | {"PYTHON": sys.executable},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.skipif(BASH is None, reason="this system has no bash")
def test_tab_offers_what_fits(tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "experiment").mkdir(parents=True)
    (tmp_path / "my_conf" / "experiment" / "my.yaml").write_text("# @package _global_\nseed: 3\n", encoding="utf-8")
    python = f"{sys.executable} -m vae_sweep"
    expected = {
        "vae-sweep model=fc": "fc fc_dct fc_matched fc_res fc_skip",
        "vae-sweep sweep model=fc,conv params=p": "p1 p2 p3",
        f"{python} -m model=linear,con": "linear,conv linear,conv_dct linear,conv_res",
        f"{python} --config-dir my_conf experiment=": "celeba30 my smoke",
        "vae-sweep dataset=folder dataset.val_": "dataset.val_fraction=",
        "vae-sweep s": "seed= sweep. sweep",
        "vae-sweep generate run=": "",
        f"{sys.executable} script.py mod": "",
    }
    assert dict(zip(expected, offered(expected, tmp_path), strict=True)) == expected
