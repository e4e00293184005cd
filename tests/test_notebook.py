"""The notebook runs from its first cell to its last in a new folder, and was committed as it ran."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from running import clean_environment

NOTEBOOK = Path(__file__).parents[1] / "notebooks/architecture_comparison.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_on_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in clean_environment().items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("NOTEBOOK_DATA", "dataset=shapes experiment=smoke")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts, images = shown(notebook)
    assert re.search(r"6 runs, \d+ images to train, \d+ to test", texts)
    assert "inconclusive" in texts  # one seed per cell gives no verdict
    assert "CelebA is not here" in texts
    assert images == 6
    assert (tmp_path / "mlflow.db").exists()


def test_the_notebook_was_committed_as_it_ran() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    texts, images = shown(notebook)
    assert images == 6
    assert "cifar10-jpeg" in texts
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


def shown(notebook: nbformat.NotebookNode) -> tuple[str, int]:
    """All text of the outputs, and the number of images."""
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    data = [output.get("data", {}) for output in outputs]
    texts = [output.get("text", "") for output in outputs] + [found.get("text/html", "") for found in data]
    texts += [found.get("text/plain", "") for found in data]
    return "\n".join(texts), sum("image/png" in found for found in data)
