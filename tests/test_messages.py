"""Every bad input ends with one clear line and a non-zero exit, before anything is trained.

``python tests/test_messages.py`` prints the whole table with the lines as they come out.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from bad_inputs import CONFIGURATION, ENVIRONMENT, PARTS, TABLE
from running import Preloaded


@pytest.mark.parametrize("case", CONFIGURATION | ENVIRONMENT)
def test_a_bad_setting_ends_in_one_clear_line(case: str, command, tmp_path: Path) -> None:
    print(TABLE[case].run(command, tmp_path))


@pytest.mark.parametrize("case", ["no such model", "images too many", "no number", "no sweep"])
def test_a_bad_input_to_a_real_process_ends_in_one_clear_line(case: str, real_command, tmp_path: Path) -> None:
    """As a user starts it: nothing is imported yet, and Python itself prints the line and exits."""
    TABLE[case].run(real_command, tmp_path)


def test_no_bad_input_hides_another_of_its_name() -> None:
    assert len(TABLE) == sum(map(len, PARTS))


def test_generate_without_arguments_says_how(command, tmp_path: Path) -> None:
    done = command(cwd=tmp_path, module="vae_sweep.generate")
    assert done.returncode == 2
    assert done.stdout.startswith("usage: python -m vae_sweep.generate run=... [key=value ...]\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "does the architecture of a VAE matter"),
        (["--cfg", "job"], "latent_dim: 128"),
        (["--info", "defaults"], "model/conv"),
        (["-sc", "install=bash"], "complete"),
    ],
)
def test_hydras_own_commands_work_and_leave_no_files(
    arguments: list[str], expected: str, command, tmp_path: Path
) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind


def main() -> None:
    commands = Preloaded()
    print("| input | command | message as printed |\n| --- | --- | --- |")
    wrong = 0
    for name, case in TABLE.items():
        with tempfile.TemporaryDirectory() as home:
            try:
                line = case.run(commands.run, Path(home))
            except AssertionError as error:
                line, wrong = f"**wrong**: {' '.join(str(error).split())[-900:]}", wrong + 1
        shown = " ".join([*(f"{k}={v}" for k, v in case.environment.items()), case.arguments])
        module = "" if case.module == "vae_sweep" else f"{case.module.rpartition('.')[2]} "
        print(f"| {name} | `{module}{shown}` | {line.replace('|', chr(92) + '|')} |", flush=True)
    commands.close()
    sys.exit(wrong)


if __name__ == "__main__":
    main()
