"""Every benchmark runs to its end, with so little work that its times say nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from running import TIMEOUT, clean_environment, run_process

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ONCE = ("--repetitions", "1")
FC = ("--models", "fc", "--params", "p1")
DATA = ("dataset=folder", "dataset.path=pictures", "dataset.name=mine")
REHEARSALS = [
    ("data", *ONCE, "--large", "0", "--small", "50"),
    ("directions", "trained.pt"),
    ("evaluation", "--images", "600", "--profile"),
    ("fixed_cost", *ONCE, "--models", "fc", "--images", "90", "--epochs", "1", "metrics.features=none"),
    ("floor", *ONCE, *FC, "--images", "128"),
    ("guarantees", "--images", "64", "--rounds", "1"),
    ("layers",),
    ("peers", *ONCE, *FC, "--images", "128", "--peers", "notebook", "params.lr=0.01"),
    ("published", "--points", "200", *DATA),
    ("scaling", *ONCE, "--models", "fc", "--images", "64", "--questions", "batch,latents", "--batches", "16"),
    ("settings", *ONCE, *FC, "--images", "64", "training.precision=auto"),
    ("sweep", *FC, "--images", "90", "--epochs", "1"),
    ("sweep", "--full", *FC, "--ways", "cores,notebook", *DATA, "params.batch_size=32", "training.max_epochs=1"),
    ("variance", "pictures"),
    ("refresh", "--cells", "2"),
]
OTHERS = {"common", "notebook"}  # modules that the benchmarks share


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a model trained on them."""
    place = tmp_path_factory.mktemp("benchmarks")
    (place / "pictures").mkdir()
    for i, values in enumerate(np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), np.uint8)):
        Image.fromarray(values).save(place / "pictures" / f"{i}.png")
    done = run_process(
        "model=linear", "params=tiny", *DATA, "training.max_epochs=1", "metrics.features=none", cwd=place
    )
    assert done.returncode == 0, done.stderr
    (trained,) = place.glob("outputs/**/checkpoint.pt")
    (place / "trained.pt").hardlink_to(trained)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("line", REHEARSALS, ids=[f"{i}-{line[0]}" for i, line in enumerate(REHEARSALS)])
def test_a_benchmark_prints_its_table(line: tuple[str, ...], place: Path) -> None:
    """The environment names a tracking server that is not there: no benchmark may ask it."""
    name, *arguments = line
    done = subprocess.run(
        [sys.executable, BENCHMARKS / f"{name}.py", *arguments],
        cwd=place,
        env=clean_environment() | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "LOKY_MAX_CPU_COUNT": "2"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"(?m)^\| (?!---).* \|$", done.stdout)
    assert len(rows) > 1 or re.search(r"2 cells: \d+ refreshes", done.stdout), done.stdout
    assert not re.search(r"\bnan\b", done.stdout)


def test_every_benchmark_is_rehearsed() -> None:
    assert {line[0] for line in REHEARSALS} == {path.stem for path in BENCHMARKS.glob("*.py")} - OTHERS
