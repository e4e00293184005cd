"""Format, lint, types, and documents that say what is true."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from vae_sweep.cli import config_dir
from vae_sweep.config import schema as configuration
from vae_sweep.config.validation import validate

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("tool", ["ruff format --check .", "ruff check .", "mypy"])
def test_format_lint_and_types_are_clean(tool: str) -> None:
    done = subprocess.run([sys.executable, "-m", *tool.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rooms_import_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_images_and_links_of_the_documents_exist(page: Path) -> None:
    """As any host shows them that lists the repository; the site's are checked where it is built."""
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def documented_commands() -> list[str]:
    """The sweeps of README and docs that a reader can type as they are."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CONTRIBUTING.md")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    given: dict[str, str] = {}  # NAME="..." of an earlier line
    typed = []
    for line in lines:
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
            given[assigned[1]] = assigned[2]
        line = re.sub(r"\$(\w+)", lambda name: given.get(name[1], name[0]), line)
        if "python -m vae_sweep " in line and "$" not in line:
            typed.append(line)
    sweeps = [line[line.index("python -m vae_sweep ") :] for line in typed]
    return sorted({sweep for sweep in sweeps if "launcher=slurm" not in sweep})


@pytest.mark.parametrize("command", documented_commands())
def test_every_sweep_of_the_documents_composes(command: str) -> None:
    """All cells of it, against the schema; that the commands also run is shown on tiny data elsewhere."""
    configuration.register()
    arguments = shlex.split(command)[3:]
    own = "--config-dir" in arguments
    overrides = [argument for argument in arguments if re.match(r"[\w./+]+=", argument)]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        for cell in BasicSweeper.split_arguments(parsed, None)[0]:
            if own and "model=mine" in cell:
                continue  # made by the reader
            cfg = compose("config", cell)
            validate(cfg)
