"""The site of docs/: MkDocs builds it without a warning, with its generated parts, and it asks no other host."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vae_sweep.config.schema import SCHEMAS
from vae_sweep.sweeps.display import HEAD
from vae_sweep.sweeps.status import Status

ROOT = Path(__file__).parents[1]
pytest.importorskip("mkdocs", reason="the site's packages are not installed: pip install -e '.[docs]'")


@pytest.fixture(scope="module")
def site(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    def fill(folder: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
            cwd=ROOT,
            env=os.environ | {"NO_MKDOCS_2_WARNING": "true"},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return made_once("site", fill)


def text(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", ["", "start", "tutorial", "data", "contributing", "changes", "benchmarks", "evidence"])
def test_documents_are_pages(site: Path, page: str) -> None:
    assert "<h1" in (site / page / "index.html").read_text(encoding="utf-8")


def test_every_document_is_in_the_navigation(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    pages = {page.parent.relative_to(site).as_posix() for page in site.rglob("index.html")} - {"."}
    assert len(pages) > 20
    assert [page for page in pages if f'href="{page}/"' not in home] == []


def test_the_configuration_is_made_of_the_schema(site: Path) -> None:
    shown = text(site / "configuration" / "index.html")
    for key in ("training.patience", "objective.beta", "dataset.value_range", "metrics.features", "seed"):
        assert key in shown
    assert "epochs without improvement before a run stops" in shown  # of the schema
    assert "less than 1 % of a typical loss" in shown  # of config.yaml
    assert re.search(r"params\.epochs\s+int \| None\s+null\s+length of one_cycle", shown)
    assert [
        f"{group}={name}" for group, kinds in SCHEMAS.items() for name in kinds if f"{group}={name}" not in shown
    ] == []


def test_commands_and_python_are_described(site: Path) -> None:
    assert "usage: python -m vae_sweep.generate run=..." in text(site / "commands" / "index.html")
    assert "Return the trained model of a run" in text(site / "python" / "index.html")


def test_files_of_the_repository_can_be_opened(site: Path) -> None:
    """A link out of docs/, as a page of the repository has it, leads to a copy of the file."""
    assert (site / "files/conf/config.yaml").read_bytes() == (ROOT / "conf/config.yaml").read_bytes()
    assert 'href="../files/conf/config.yaml"' in (site / "configuration" / "index.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loads = r'<(?:script|img|iframe|link(?! rel="canonical"))[^>]*\s(?:src|href)="(?:https?:)?//'
    assert [page for page in site.rglob("*.html") if re.search(loads, page.read_text(encoding="utf-8"))] == []
    drawn = [page for page in site.rglob("*.html") if 'class="mermaid"' in page.read_text(encoding="utf-8")]
    assert drawn == []  # the theme would load a library for it


def test_the_picture_of_the_live_table_is_that_of_the_display() -> None:
    pytest.importorskip("playwright", reason="the Python package playwright is not installed")
    spec = importlib.util.spec_from_file_location("docs_figures", ROOT / "docs" / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    figures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figures)
    trained = Status("fc-p1", "fc", "training", epoch=3, val=[90.0, 60.5, 41.25], left=75.0, written=time.time())
    svg = figures.drawn([trained, Status("conv-p1")])
    shown = re.sub(r"<[^>]+>", "", svg).replace("&#160;", " ")
    assert "2 cells: 1 training, 1 waiting" in shown
    assert re.search(r"fc-p1 +training +3 +41\.25", shown)
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", svg)  # it loads no font


def test_the_picture_of_the_live_table_has_the_parts_of_the_display() -> None:
    """The stored one: it may be of an earlier version."""
    shown = text(ROOT / "docs" / "live-table.svg")
    assert re.search(r"\d+\scells:\s\d", shown)
    assert re.search(r"\s*".join(HEAD), shown.replace("\xa0", " "))


def test_pictures_are_small() -> None:
    made = [ROOT / "docs" / name for name in ("live-table.svg", "report.png", "explore.png")]
    assert [picture.name for picture in made if picture.stat().st_size > 200_000] == []
