"""Images of a model while it trains: stored once each, the same in all runs, and without any effect on the training."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import vae_sweep as vs
from running import BASIC, rows
from vae_sweep.base.errors import StoreError
from vae_sweep.models.fc import FCVAE
from vae_sweep.report.model_figures import some_of
from vae_sweep.sweeps.image_grid import COLUMNS, N_ORIGINALS, draw, is_shown
from vae_sweep.tracking import sender
from vae_sweep.tracking.record import STORED_IMAGE, RunRecord
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.training.evaluation import to_float, to_uint8


def model() -> FCVAE:
    torch.manual_seed(0)
    return FCVAE((3, 8, 8), 4, [16])


def originals(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 8, 8), dtype=np.uint8)


def test_epochs_are_powers_of_two() -> None:
    assert [epoch for epoch in range(1, 40) if is_shown(epoch)] == [1, 2, 4, 8, 16, 32]


def test_images_are_those_of_the_model_and_no_generator_changes() -> None:
    vae, images = model(), originals(8)
    before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    found, again = draw(vae, images, seed=0), draw(vae, images, seed=0)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert np.array_equal(before[1], after[1])
    assert before[2] == after[2]
    assert {key: len(stack) for key, stack in found.items()} == {
        "samples": 16,
        "reconstructions": 16,
        "interpolations": 32,
    }
    assert all(np.array_equal(found[key], again[key]) for key in found)
    assert not np.array_equal(draw(vae, images, seed=1)["samples"], found["samples"])
    decoded = to_uint8(vae.reconstruct(to_float(torch.from_numpy(images))))
    top, below, *_ = np.split(found["reconstructions"], 4)
    assert np.array_equal(top, images[:4])
    assert np.array_equal(below, decoded[:4])
    ends = found["interpolations"][:: COLUMNS["interpolations"]], found["interpolations"][7::8]
    assert np.abs(ends[0].astype(int) - decoded[0::2]).max() <= 1
    assert np.abs(ends[1].astype(int) - decoded[1::2]).max() <= 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_test_images_are_enough(n: int) -> None:
    found = draw(model(), originals(n), seed=0)
    assert len(found["reconstructions"]) == 2 * n
    assert len(found.get("interpolations", ())) == n // 2 * COLUMNS["interpolations"]


class Record:
    """Stands for a run in the store, whose first ``failures`` images are refused."""

    def __init__(self, failures: int) -> None:
        self.failures, self.images = failures, []

    def without_retries(self) -> Record:
        return self

    def log_image(self, pixels: np.ndarray, key: str, step: int, time_ms: int) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the store does not answer")
        self.images.append((key, step, pixels.shape))


def test_images_wait_for_the_store_and_are_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "RETRY_AFTER", 0.05)
    record, pixels = Record(2), torch.zeros(8, 8, 3, dtype=torch.uint8)
    kept = [{"key": "samples", "epoch": 1, "time_ms": 0, "pixels": pixels}]  # of an interrupted process
    book = EpochSender(record, [], (), kept, {("samples", 2)})  # type: ignore[arg-type]
    for epoch in (2, 4, 4):
        book.add_image("samples", epoch, pixels)
    until = time.monotonic() + 10
    while kept and time.monotonic() < until:
        time.sleep(0.02)
    book.send()
    assert record.images == [("samples", 1, (8, 8, 3)), ("samples", 4, (8, 8, 3))]
    assert kept == []


@pytest.fixture
def unseen(new_project: Callable[[str], Path], command: Callable) -> Path:
    """The sweep of ``swept`` with its first seed alone, without images: the project folder."""
    root = new_project("unseen")
    sweep = ("-m", "model=fc,conv", "params=tiny", "seed=0", "experiment=smoke", "objective.beta=0.5", BASIC)
    done = command(*sweep, "tracking.images=false", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


def test_the_store_has_the_images_and_training_does_not_notice(swept: tuple[Path, str], unseen: Path) -> None:
    root, _ = swept
    client = MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")
    runs = client.search_runs(["1"], "tags.`vae_sweep.role` = 'run'")
    assert len(runs) == 4
    data = vs.load_run(runs[0].info.run_id, tracking_uri=f"sqlite:///{root}/mlflow.db").dataset()
    first = some_of(data.val.images, N_ORIGINALS, seed=0)[0].transpose(1, 2, 0)
    for run in runs:
        folder = root / "mlruns" / run.info.run_id / "artifacts" / "images"
        stored = RunRecord(client, run.info.run_id).images()  # type: ignore[arg-type]
        epochs = {1, 2, int(run.data.metrics["best_epoch"])}
        assert stored == {(key, epoch) for key in COLUMNS for epoch in epochs}
        assert len(list(folder.glob("*.webp"))) == len(list(folder.glob("*.png"))) == len(stored)
        assert run.data.tags["mlflow.loggedImages"] == "True"
        for file in folder.glob("*.webp"):
            with Image.open(file) as image, Image.open(str(file).replace("+compressed.webp", ".png")) as whole:
                assert max(image.size) == 256  # as MLflow's own
                assert max(whole.size) == 8 * 24
                if file.name.startswith("reconstructions"):
                    assert np.array_equal(np.asarray(whole)[:48:2, :48:2], first)  # every pixel is shown as four
    assert [(f"{name}-s0", *row) for name, *row in rows(unseen)] == [row for row in rows(root) if row[0][-3:] == "-s0"]
    assert not list(unseen.glob("mlruns/*/artifacts/images"))
    assert STORED_IMAGE.startswith("images/")
