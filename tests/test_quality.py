"""Format, lint, types, and documents that say what is true."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from vae_sweep.cli import config_dir
from vae_sweep.config import schema as configuration
from vae_sweep.config.arguments import check_arguments
from vae_sweep.config.help import COMMANDS
from vae_sweep.config.keys import GROUPS
from vae_sweep.config.options import read_options
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
    """The commands of README and docs that a reader can type as they are, without ``python -m``."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CONTRIBUTING.md")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    given: dict[str, str] = {}  # NAME="..." of an earlier line
    typed = set()
    for line in lines:
        if assigned := re.fullmatch(r'(\w+)="(.*)"', line):
            given[assigned[1]] = assigned[2]
        line = re.sub(r"\$(\w+)", lambda name: given.get(name[1], name[0]), line)
        if (called := re.search(r"python -m (vae_sweep\b.*)", line)) and "$" not in line:
            typed.add(re.sub(rf"^vae_sweep (?=(?:{'|'.join(COMMANDS)})\b)", "vae_sweep.", called[1]))
    return sorted(line for line in typed if "launcher=slurm" not in line)


@cache
def composed(*choices: str) -> DictConfig:
    configuration.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("config", [*choices])


@pytest.mark.parametrize("command", [line for line in documented_commands() if line.startswith("vae_sweep ")])
def test_every_sweep_of_the_documents_composes(command: str) -> None:
    """All cells of it, against the schema; that the commands also run is shown on tiny data elsewhere."""
    arguments = check_arguments(shlex.split(command)[1:])
    overrides = [argument for argument in arguments if re.match(r"[\w./+]+=", argument)]
    parser = OverridesParser.create()
    cells = BasicSweeper.split_arguments(parser.parse_overrides(overrides), None)[0]
    assert "-m" in arguments or len(cells) == 1
    for cell in cells:
        if "--config-dir" in arguments and "model=mine" in cell:
            continue  # made by the reader
        choices = [word for word in cell if word.startswith("hydra") or word.partition("=")[0] in GROUPS]
        values = [word for word in cell if word not in choices]
        cfg = composed(*choices).copy()
        ConfigLoaderImpl._apply_overrides_to_config(parser.parse_overrides(values), cfg)  # as compose does
        validate(cfg)


@pytest.mark.parametrize("command", [line for line in documented_commands() if line.startswith("vae_sweep.")])
def test_every_other_command_of_the_documents_has_its_options(command: str) -> None:
    name, *words = shlex.split(command)
    module = import_module(name)
    if name != "vae_sweep.datasets.jpeg":  # whose words have no keys
        read_options(module.Options, words)


@pytest.mark.parametrize("folder", ["benchmarks", "docs", "tests/torture"])
def test_what_scripts_use_of_the_package_exists(folder: str) -> None:
    """Names that they import, and names in modules that they import."""
    for script in (ROOT / folder).glob("*.py"):
        nodes = list(ast.walk(ast.parse(script.read_text(encoding="utf-8"))))
        imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        found: dict[str, Any] = {}
        exec("\n".join(line for line in imports if re.match(r"(from|import) vae_sweep\b", line)), found)
        uses = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
        modules = [use for use in uses if isinstance(found.get(use.value.id), ModuleType)]
        assert [ast.unparse(use) for use in modules if not hasattr(found[use.value.id], use.attr)] == [], script


def losses(page: str) -> dict[tuple[str, str], dict[str, str]]:
    """The rows of a page's table of losses, by set and model."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.search(r"^\| Set \| Model (?:.*\n\|)*.*", text, re.MULTILINE)
    assert found
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[0].splitlines()]
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


def test_the_losses_of_the_readme_are_those_of_their_page() -> None:
    short, whole = losses("README.md"), losses("docs/cifar10.md")
    assert short == {key: {column: row[column] for column in short[key]} for key, row in whole.items()}


def test_intervals_that_a_page_repeats_are_those_of_another_page() -> None:
    text = {page: " ".join(page.read_text(encoding="utf-8").split()).replace(" nats [", " [") for page in PAGES}
    for page in (ROOT / "README.md", ROOT / "docs" / "cifar10.md"):
        stated = re.findall(r"\S+ \[-?[\d.]+, -?[\d.]+\]", text.pop(page))  # with the mean
        assert stated
        assert [interval for interval in stated if not any(interval in other for other in text.values())] == []


def test_the_documents_state_the_hyperparameter_sets_as_they_are() -> None:
    readme, settings = ((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/settings.md"))
    for name in ("p1", "p2", "p3"):
        params = OmegaConf.load(config_dir() / "params" / f"{name}.yaml")
        values = [str(params[key]) for key in ("batch_size", "lr", "latent_dim")]
        assert values in [re.findall(r"[\d.]+", stated) for stated in re.findall(rf"\b{name}\s\(([^)]+)\)", readme)]
        assert f"| {' | '.join([name, *values])} |" in settings
