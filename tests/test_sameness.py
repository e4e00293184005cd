"""The real command: each row of a table is the run of exactly its settings, each artifact its own run's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from running import BASIC
from vae_sweep import datasets
from vae_sweep.training import checkpoint
from vae_sweep.training.evaluation import evaluate

TINY = ("-m", BASIC, "params=tiny", "experiment=smoke", "training.max_epochs=1")
PIXELS = 3 * 24 * 24
TINY += ("dataset.n_train=100", "dataset.n_test=30")
OWN_MODEL = """
from torch import nn
from my_layers import layer
from vae_sweep.models import VAE, Posterior

class MyVAE(VAE):
    def __init__(self, image_shape, latent_dim):
        super().__init__(image_shape, latent_dim)
        self.encoder = nn.Sequential(nn.Flatten(), layer(1728, 2 * latent_dim))
        self.decoder = nn.Sequential(layer(latent_dim, 1728), nn.Sigmoid(), nn.Unflatten(1, image_shape))

    def encode(self, x):
        return Posterior(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z):
        return self.decoder(z)
"""
LAYER = "from torch import nn\n\ndef layer(m, n):\n    return nn.Linear(m, n)\n"


class Store:
    """What a project's store holds."""

    def __init__(self, root: Path) -> None:
        self.client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
        experiment = self.client.get_experiment_by_name("vae_sweep-smoke")
        assert experiment is not None
        found = self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
        self.sweeps = [run for run in found if run.data.tags["vae_sweep.role"] == "sweep"]
        self.runs = [run for run in found if run.data.tags["vae_sweep.role"] == "run"]

    def table(self, sweep: Run) -> list[dict[str, Any]]:
        path = self.client.download_artifacts(sweep.info.run_id, "comparison.json")
        return [row for row in json.loads(Path(path).read_text()) if row["status"] != "REFERENCE"]

    def path(self, run: Run, name: str) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, name))


@pytest.fixture
def sweep(command: Callable, project: Path) -> Callable[..., str]:
    """Run a tiny sweep to its end; return what it said."""

    def run(*arguments: str, status: int = 0) -> str:
        own = ("--config-dir", "my_conf") if (project / "my_conf").exists() else ()
        done = command(*own, *TINY, *arguments, cwd=project)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_set_that_was_edited_and_edited_back_is_trained_once_per_content(sweep: Callable, project: Path) -> None:
    """In a file, as in sweeps kept in YAML: the words of the command are the same each time."""
    (project / "my_conf" / "params").mkdir(parents=True)
    file = project / "my_conf" / "params" / "mine.yaml"
    said = []
    for latents in (4, 6, 4):
        file.write_text(f"name: mine\nbatch_size: 32\nlr: 0.01\nlatent_dim: {latents}\n")
        said.append(sweep("model=linear", "params=mine"))
        said.append(sweep("model=linear", "params=mine", "sweep.name=named"))
    store = Store(project)
    assert len(store.runs) == 2  # each is trained once
    assert [len(store.table(found)) for found in store.sweeps] == [1, 2, 1]  # 4; named: 4 and 6; 6
    for found in store.sweeps:
        for row in store.table(found):
            assert row["n_parameters"] == PIXELS * row["latent_dim"] * 2 + PIXELS + 2 * row["latent_dim"]
            (run,) = [run for run in store.runs if run.info.run_id == row["run_id"]]
            assert int(run.data.params["params.latent_dim"]) == row["latent_dim"]
            assert run.data.metrics["test/loss"] == row["test_loss"]


def test_a_cell_that_another_sweep_has_finished_is_shared(sweep: Callable, project: Path) -> None:
    """Then the run is renamed, and asked for with other figures: still the same run."""
    sweep("model=linear", "seed=0")
    said = sweep("model=linear", "seed=0,1")
    store = Store(project)
    first, second = store.sweeps
    assert [run.data.params["seed"] for run in store.runs] == ["0", "1"]
    assert store.runs[0].data.tags[f"vae_sweep.in_sweep.{second.info.run_id}"] == "reused"
    rows = {row["seed"]: row for row in store.table(second)}
    assert rows[0]["run_id"] == store.runs[0].info.run_id
    assert rows[0]["trained_in"] == f"sweep {first.info.run_id[:8]}"
    assert rows[1]["trained_in"] is None
    assert f"sweep {first.info.run_id[:8]}" in said[said.index("Comparison") :]
    assert "2 seeds per cell" in said
    view = store.client.get_experiment("1").tags[f"mlflow.sharedViewState.{second.info.run_id}"]
    shown = store.client.search_runs(["1"], json.loads(view)["searchFilter"])
    assert {run.info.run_id for run in shown} == {run.info.run_id for run in store.runs}

    for run in store.runs:
        store.client.update_run(run.info.run_id, name="renamed")
    said = sweep("model=linear", "seed=0,1", "evaluation.n_samples=5", "evaluation.n_interpolations=2")
    assert "epoch 1" not in said
    again = Store(project)
    assert [run.info.run_id for run in again.runs] == [run.info.run_id for run in store.runs]
    assert [(row["name"], row["status"]) for row in again.table(again.sweeps[-1])] == [("renamed", "FINISHED")] * 2
    assert {found.info.status for found in again.sweeps} == {"FINISHED"}
    for before, now in zip(store.runs, again.runs, strict=True):
        assert np.load(again.path(now, "samples.npy")).shape[0] == 5
        assert np.load(again.path(now, "interpolations.npy")).shape[0] == 2
        assert now.data.tags["config.evaluation.n_samples"] == "5"
        assert now.data.metrics == before.data.metrics

    sweep("model=linear", "seed=0", "resume=false")
    assert len(Store(project).runs) == 3


def test_a_name_that_is_too_long_for_the_store_is_shortened_there(sweep: Callable, project: Path) -> None:
    name = "a" * 100
    for group, text in (("model", "_target_: vae_sweep.models.linear.LinearVAE\n"), ("params", "defaults: [tiny]\n")):
        (project / "my_conf" / group).mkdir(parents=True)
        (project / "my_conf" / group / "long.yaml").write_text(f"{text}name: {name}\n")
    beta = f"{'0' * 60}.5", f"{'0' * 60}.25"
    said = sweep("model=long", "params=long", f"objective.beta={','.join(beta)}")
    store = Store(project)
    assert "PENDING" not in said
    assert [row["status"] for row in store.table(store.sweeps[0])] == ["FINISHED"] * 2
    assert len(store.runs[0].info.run_name) == 250
    assert len({row["name"] for row in store.table(store.sweeps[0])}) == 2  # in full


def test_a_model_that_is_edited_is_trained_anew(sweep: Callable, project: Path) -> None:
    (project / "my_conf" / "model").mkdir(parents=True)
    (project / "my_conf" / "model" / "mine.yaml").write_text("_target_: my_vae.MyVAE\nname: mine\n")
    (project / "my_vae.py").write_text(OWN_MODEL)
    (project / "my_layers.py").write_text(LAYER)
    sweep("model=mine")
    (project / "my_layers.py").write_text(f"# a remark\n{LAYER}")
    assert "is already finished" in sweep("model=mine")
    (project / "my_layers.py").write_text(LAYER.replace("n)\n", "n, bias=False)\n"))
    shutil.rmtree(project / "__pycache__", ignore_errors=True)  # two edits within a second
    assert "my_layers.py changed since run" in sweep("model=mine")
    store = Store(project)
    before, now = store.runs
    assert before.data.params["n_parameters"] != now.data.params["n_parameters"]
    assert [row["run_id"] for row in store.table(store.sweeps[-1])] == [now.info.run_id]
    assert "bias=False" in store.path(now, "source/my_layers.py").read_text()
    assert "class MyVAE" in store.path(now, "source/my_vae.py").read_text()


def test_files_edited_during_a_sweep_do_not_change_its_runs(start: Callable, project: Path) -> None:
    """Files are edited while the first of three cells trains."""
    for group, name, text in (
        ("model", "mine", "_target_: my_vae.MyVAE\nname: mine\n"),
        ("params", "edited", "name: edited\nbatch_size: 50\nlr: 0.01\nlatent_dim: 3\n"),
    ):
        (project / "my_conf" / group).mkdir(parents=True)
        (project / "my_conf" / group / f"{name}.yaml").write_text(text)
    (project / "my_vae.py").write_text(OWN_MODEL)
    (project / "my_layers.py").write_text(LAYER)
    process = start(
        *("--config-dir", "my_conf", *TINY, "params=edited", "model=linear,fc,mine"),
        cwd=project,
        until="linear-edited epoch 1:",
    )
    file = project / "my_conf" / "params" / "edited.yaml"
    file.write_text(file.read_text().replace("0.01", "0.5").replace("latent_dim: 3", "latent_dim: 5"))
    (project / "my_layers.py").write_text(LAYER.replace("n)\n", "n, bias=False)\n"))
    assert process.stdout is not None
    said = process.stdout.read()
    assert process.wait(timeout=120) == 1
    store = Store(project)
    runs = {run.data.params["model.name"]: run for run in store.runs if run.data.params}
    rows = {row["model"]: row for row in store.table(store.sweeps[0])}
    assert (runs["fc"].info.status, runs["fc"].data.params["params.lr"]) == ("FINISHED", "0.01")
    assert {(row["lr"], row["latent_dim"]) for row in rows.values()} == {(0.01, 3)}
    assert rows["mine"]["status"] == "FAILED"
    assert "my_layers.py changed since the sweep started; start the same command again" in rows["mine"]["reason"]
    assert "Traceback" not in said


@pytest.mark.slow
def test_runs_that_share_a_folder_keep_their_own_checkpoints(sweep: Callable, project: Path) -> None:
    """One subfolder for all seeds, one folder for two sweeps: habits that Hydra's own pages suggest."""
    shared = "hydra.sweep.subdir=${model.name}", "hydra.sweep.dir=outputs/fixed"
    sweep("model=fc", "seed=0,1,2,3", *shared)
    sweep("model=fc", "seed=0,4", "resume=false", *shared)
    store = Store(project)
    assert len(store.runs) == 6
    for run in store.runs:
        model, content = checkpoint.load(store.path(run, "checkpoint.pt"))
        data = datasets.load(datasets.create(content["config"]["dataset"]), project / "data" / "cache")
        assert evaluate(model, torch.from_numpy(data.test.images)).loss == run.data.metrics["test/loss"]
        own, _ = checkpoint.load(Path(run.data.tags["vae_sweep.outputs"]) / "checkpoint.pt")
        assert all(torch.equal(own.state_dict()[key], value) for key, value in model.state_dict().items())
    assert len({run.data.tags["vae_sweep.outputs"] for run in store.runs}) == 6


def test_a_checkpoint_that_the_store_lost_is_noticed(project: Path) -> None:
    from vae_sweep.base.errors import UserError
    from vae_sweep.models.linear import LinearVAE

    model, other = LinearVAE((3, 4, 4), 2), LinearVAE((3, 4, 4), 2)
    path = project / "checkpoint.pt"
    checkpoint.save(path, model, {}, {})
    checkpoint.check_holds(path, model)
    (project / "empty.pt").touch()
    (project / "half.pt").write_bytes(path.read_bytes()[:1000])
    for wrong, weights in ((path, other), (None, model), (project / "empty.pt", model), (project / "half.pt", model)):
        with pytest.raises(UserError, match="does not have the checkpoint"):
            checkpoint.check_holds(wrong, weights)


def test_a_refresh_reads_the_run_that_changed(sweep: Callable, project: Path) -> None:
    """What the last one left is used: another run's change is seen at the end, when all are read."""
    from vae_sweep.report.publish import refresh
    from vae_sweep.tracking.store import Store as Tracking

    sweep("model=linear", "seed=0,1")
    store = Store(project)
    parent = store.sweeps[0].info.run_id
    tracking = Tracking(f"sqlite:///{project / 'mlflow.db'}", store.sweeps[0].info.experiment_id)
    for run in store.runs:
        store.client.log_metric(run.info.run_id, "test/loss", 5.0)
    changed = store.runs[0].info.run_id
    rows = refresh(tracking, parent, (), project, figures=False, changed=changed)
    assert {row.run_id: row.test_loss == 5.0 for row in rows} == {
        run.info.run_id: run.info.run_id == changed for run in store.runs
    }
    assert [row.test_loss for row in refresh(tracking, parent, (), project, figures=False)] == [5.0, 5.0]
