"""The decoder's variance through the real command: what is recorded of each level, and how they compare."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Run
from omegaconf import DictConfig

from running import BASIC
from vae_sweep.cli import config_dir
from vae_sweep.comparison.identity import settings_key
from vae_sweep.config import schema
from vae_sweep.config.settings import settings_of
from vae_sweep.training import checkpoint
from vae_sweep.training.objective import gaussian_constant

LEVELS = ("0.5", "0.1", "learned", "optimal")
D = 3 * 24 * 24


def composed(*overrides: str) -> DictConfig:
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("config", list(overrides))
    cfg.paths.root = "/somewhere"
    return cfg


@pytest.fixture(scope="module")
def runs(command, made_once, empty_database: Path) -> tuple[Path, dict[str, Run], Run]:
    """One small fc at four variances, in one sweep: the project folder, the runs by variance, the sweep."""

    def fill(folder: Path) -> None:
        shutil.copy(empty_database, folder)
        sweep = ("-m", "model=fc", "params=tiny", f"objective.variance={','.join(LEVELS)}", "experiment=smoke", BASIC)
        done = command(*sweep, "objective.warmup=0.5", "training.clip_grad_norm=1e4", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "output.txt").write_text(done.stdout, encoding="utf-8")

    folder = made_once("variances", fill)
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    cells = {run.data.params["objective.variance"]: run for run in found if "objective.variance" in run.data.params}
    (parent,) = (run for run in found if run.data.tags["vae_sweep.role"] == "sweep")
    return folder, cells, parent


def test_every_loss_is_what_its_variance_says(runs) -> None:
    """Of the same squared error and KL, which are recorded whatever the loss is."""
    _, cells, _ = runs
    assert set(cells) == set(LEVELS)
    for level, run in cells.items():
        m = run.data.metrics
        assert m["test/loss"] == pytest.approx(m["test/recon"] + m["test/kl"], rel=1e-6)
        variance = {"0.5": 0.5, "0.1": 0.1, "optimal": m["test/squared_error"] / D}.get(level)
        if level == "learned":
            variance = m["test/learned_sigma"] ** 2
            assert 0.1 < variance < 0.5  # it began at 1/2
        constant = 0.0 if level in ("0.5", "0.1") else gaussian_constant(D, variance)
        assert m["test/recon"] == pytest.approx(m["test/squared_error"] / (2 * variance) + constant, rel=1e-5)
    m = cells["optimal"].data.metrics
    assert m["test/loss"] == pytest.approx(m["test/neg_elbo_optimal_sigma"], rel=1e-6)
    assert m["implied_variance"] == pytest.approx(cells["learned"].data.metrics["implied_variance"])
    assert cells["0.1"].data.metrics["implied_variance"] == 0.1


def test_the_closed_form_stands_beside_each_level(runs) -> None:
    _, cells, _ = runs
    for run in cells.values():
        m = run.data.metrics
        assert m["reference/train_loss"] <= m["best/train_loss"]
        assert m["distance_to_linear"] == pytest.approx(m["test/loss"] - m["reference/test_loss"])
        assert 0 < m["reference/bits_per_dim_gaussian"] < m["test/bits_per_dim_gaussian"] < 9
    bits = {level: run.data.metrics["reference/bits_per_dim_gaussian"] for level, run in cells.items()}
    assert bits["optimal"] == pytest.approx(bits["learned"], abs=1e-6)
    assert bits["optimal"] < bits["0.1"] < bits["0.5"]


def test_the_learned_variance_is_in_the_checkpoint(runs) -> None:
    folder, cells, _ = runs
    path = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}").download_artifacts(
        cells["learned"].info.run_id, "checkpoint.pt"
    )
    model, _ = checkpoint.load(Path(path))
    assert model.decoder_log_variance is not None
    sigma = math.exp(model.decoder_log_variance.item() / 2)
    assert sigma == pytest.approx(cells["learned"].data.metrics["test/learned_sigma"])


def test_levels_do_not_compare_but_in_bits_per_dim(runs) -> None:
    folder, cells, parent = runs
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    rows = json.loads(Path(client.download_artifacts(parent.info.run_id, "comparison.json")).read_text())
    trained = [row for row in rows if row["status"] == "FINISHED"]
    assert {row["variance"] for row in trained} == set(LEVELS)
    assert {row["variance"] for row in rows if row["status"] == "REFERENCE"} == set(LEVELS)
    table = Path(client.download_artifacts(parent.info.run_id, "comparison.md")).read_text()
    assert "| Variance |" in table
    assert "| Bits/dim |" in table
    for run in cells.values():
        assert f"| {run.data.metrics['test/bits_per_dim_gaussian']:.3f} |" in table
    report = Path(client.download_artifacts(parent.info.run_id, "report.html")).read_text()
    assert "beta 1, variance optimal" in report
    assert "At every variance" in report
    said = ", ".join(f"{cells[k].data.metrics['test/bits_per_dim_gaussian']:.3f} at {k}" for k in LEVELS)
    assert f"Bits per value on shapes: fc tiny: {said}" in report
    assert "bits/dim, discretised Gaussian" in report


def test_a_number_is_one_number_however_it_is_written(tmp_path: Path) -> None:
    keys = []
    for given in ([], ["objective.variance=0.5"], ["objective.variance=1"], ["objective.variance=1.0"]):
        cfg = composed("dataset=shapes", *given)
        keys.append(settings_key(settings_of(cfg)))
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert "objective.variance" not in settings_of(composed())  # the loss of earlier versions: their runs are the same
