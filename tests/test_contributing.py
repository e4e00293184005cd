"""CONTRIBUTING.md: its examples are written to files and run, those inside the package in a copy of it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import vae_sweep
from running import BASIC, statuses
from vae_sweep.config.schema import config_dir

PACKAGE = Path(vae_sweep.__file__).parent
TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
FILES = {
    first.removeprefix("# "): code
    for kind, code in BLOCKS
    for first in [code.partition("\n")[0]]
    if kind in ("python", "yaml") and not first.startswith("# in ")
}
COMMANDS = [line for kind, code in BLOCKS if kind == "bash" for line in code.splitlines() if "-m vae_sweep" in line]


def inserted(package: Path) -> None:
    """Put the examples that belong into a module of ours where their first line says."""
    for _, code in BLOCKS:
        place = re.match(r"# in src/vae_sweep/(\S+), (above|below): (.*)\n", code)
        if place is None:
            continue
        file = package / place[1]
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        assert sum(place[3] in line for line in lines) == 1, f"CONTRIBUTING.md: {place[3]!r} is not one line of {file}"
        (at,) = [i + (place[2] == "below") for i, line in enumerate(lines) if place[3] in line]
        indent = re.match(r" *", lines[at])[0]
        new = "".join(f"{indent}{line}" if line.strip() else line for line in code[place.end() :].splitlines(True))
        lines.insert(at, new if indent else f"{new}\n\n")
        file.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """A folder with the examples' own files, beside a copy of the package with the examples inside it."""
    root = tmp_path_factory.mktemp("contributing")
    shutil.copytree(PACKAGE, root / "src" / "vae_sweep", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(config_dir(), root / "conf")
    inserted(root / "src" / "vae_sweep")
    for name, code in FILES.items():
        path = root / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    shutil.copy(empty_database, root / "project")
    return root / "project"


def changed_package(project: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(project.parent / "src")}


def test_the_rooms_are_those_of_the_package() -> None:
    table = TEXT.partition("| room |")[2].partition("\n\n")[0]
    named = [
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    ]
    modules = [path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__")]
    rooms = [path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()]
    assert sorted(named) == sorted([*rooms, *modules])


def test_every_example_of_a_sweep_runs(project: Path, real_command) -> None:
    assert len(COMMANDS) == 2
    for line in COMMANDS:
        words = shlex.split(line)[3:]
        launcher = [] if "hydra/launcher" in line else [BASIC]
        done = real_command(*words, *launcher, cwd=project, **changed_package(project))
        assert done.returncode == 0, done.stdout + done.stderr
    found = statuses(project)
    assert {"fc-tiny", "mine-tiny", "fc-small", "mine-small"} <= set(found)
    assert set(found.values()) == {"FINISHED"}
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        keys = connection.execute("SELECT key FROM metrics WHERE key LIKE '%spread'").fetchall()
        data = connection.execute("SELECT DISTINCT value FROM params WHERE key = 'dataset.name'").fetchall()
    assert keys == [("test/spread",)] * 4
    of_linear = [
        json.loads(path.read_text(encoding="utf-8")) for path in project.glob("mlruns/*/artifacts/reference.json")
    ]
    assert ["spread" in content["metrics"] for content in of_linear] == [True] * 4
    assert set(data) == {("shapes",), ("stripes",)}
    assert len(list(project.glob("mlruns/*/artifacts/figures/origin.png"))) == 4
    tables = [path.read_text(encoding="utf-8") for path in project.glob("mlruns/*/artifacts/comparison.csv")]
    assert len(tables) == 2
    assert all("test/spread" in table.partition("\n")[0] for table in tables)
    pages = [path.read_text(encoding="utf-8") for path in project.glob("mlruns/*/artifacts/explore.html")]
    assert len(pages) == 2
    assert all(re.search(r'"title": "mine, (tiny|small), seed 0"', page) for page in pages)
    assert not any('"frames"' in page for page in pages)  # a class and images of one's own decode live, too


def test_the_example_of_a_model_refuses_its_bad_arguments(project: Path, command) -> None:
    typed = shlex.split(COMMANDS[0])[3:]
    done = command(*typed, "model=mine", "model.width=0", cwd=project)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "vae_sweep: model.width=0: must be a whole number from 1 to 1,000,000"


def test_the_example_of_a_test_passes(project: Path, command) -> None:
    (name,) = [name for name in FILES if name.startswith("test_")]
    done = command("-q", "-p", "no:cacheprovider", name, cwd=project, module="pytest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_example_of_a_metric_is_in_the_printed_list(project: Path, real_command) -> None:
    done = real_command(cwd=project, module="vae_sweep.metrics.catalogue", **changed_package(project))
    assert re.search(r"^\| `test/spread` \| spread kept \|", done.stdout, re.MULTILINE), done.stderr


def test_arrays_of_ones_own_are_trained_on(project: Path, command, tmp_path: Path) -> None:
    copy = shutil.copytree(project, tmp_path / "project")
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    np.savez(copy / "images.npz", train=images, val=images[:20], test=images[20:40])
    chosen = ("experiment=smoke", "dataset=arrays", "model=linear", "params=tiny")
    done = command("--config-dir", "my_conf", *chosen, cwd=copy)
    assert done.returncode == 0, done.stderr
    assert "arrays: splits: 60 train, 20 val, 20 test" in done.stdout
