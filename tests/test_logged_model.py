"""What users of MLflow 3 expect of a run: its model, with example, metrics and dataset; loaded and served."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run

import vae_sweep as vs
from running import BASIC, clean_environment
from vae_sweep.base.errors import UserError
from vae_sweep.tracking.models import Described, log_model
from vae_sweep.tracking.store import Store

FILES = {"MLmodel", "checkpoint.pt", "input_example.json", "serving_input_example.json", "requirements.txt"}


def client_of(root: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{root}/mlflow.db")


def runs_of(root: Path) -> list[Run]:
    client = client_of(root)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, "tags.`vae_sweep.role` = 'run'"))


def models_of(root: Path, run: Run) -> list[LoggedModel]:
    return list(client_of(root).search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"))


def folder_of(root: Path, model: LoggedModel) -> Path:
    return root / "mlruns" / "models" / model.model_id / "artifacts"


def test_every_run_has_one_model_with_its_metrics_and_dataset(swept: tuple[Path, str]) -> None:
    root, _ = swept
    runs = runs_of(root)
    assert len(runs) == 4
    for run in runs:
        (model,) = models_of(root, run)
        assert (model.name, model.status, model.model_type) == (run.info.run_name, "READY", "VAE")
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
        assert run.data.tags["vae_sweep.model"] == model.model_id
        assert model.params == run.data.params
        final = {key: value for key, value in run.data.metrics.items() if key.startswith(("test/", "best/"))}
        assert {"test/loss", "test/psnr", "best/val_loss"} <= final.keys()
        assert {metric.key: metric.value for metric in model.metrics} == final
        (data,) = run.inputs.dataset_inputs
        on = {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
        assert on == {(data.dataset.name, data.dataset.digest)}
        for key in final:  # linked, not written to the run a second time
            assert len(client_of(root).get_metric_history(run.info.run_id, key)) == 1


def test_weights_are_stored_once_and_nothing_is_pickled(swept: tuple[Path, str]) -> None:
    root, _ = swept
    for run in runs_of(root):
        folder = folder_of(root, models_of(root, run)[0])
        assert {path.name for path in folder.iterdir()} == FILES
        ours = root / "mlruns" / run.info.run_id / "artifacts" / "checkpoint.pt"
        assert os.path.samefile(folder / "checkpoint.pt", ours)


def test_mlflow_loads_what_vae_sweep_loads(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    root, _ = swept
    monkeypatch.chdir(root)
    generator = torch.Generator().manual_seed(0)
    for run in runs_of(root):
        folder = str(folder_of(root, models_of(root, run)[0]))
        loaded, model = mlflow.pyfunc.load_model(folder), vs.load_model(run.info.run_id)
        z = torch.randn(3, model.latent_dim, generator=generator)
        x = torch.rand(3, *model.image_shape, generator=generator)
        with torch.no_grad():
            assert np.array_equal(loaded.predict(z.numpy()), model.decode(z).numpy())
            assert np.array_equal(loaded.predict(x.numpy()), model.encode(x).mean.numpy())
            again = loaded.predict(x.numpy(), params={"what": "reconstruct"})
            assert np.array_equal(again, model.reconstruct(x).numpy())
        example = loaded.metadata.load_input_example(folder)
        assert example.shape == (1, model.latent_dim)
        assert loaded.predict(example).shape == (1, *model.image_shape)


def test_a_wrong_input_is_told_what_is_allowed(swept: tuple[Path, str]) -> None:
    root, _ = swept
    loaded = mlflow.pyfunc.load_model(str(folder_of(root, models_of(root, runs_of(root)[0])[0])))
    with pytest.raises(UserError, match=r"\(2, 3\).*decode \(n, 8\).*encode \(n, 3, 24, 24\)"):
        loaded.predict(np.zeros((2, 3), np.float32))
    with pytest.raises(UserError, match=r"what=encode.*\(2, 8\)"):
        loaded.predict(np.zeros((2, 8), np.float32), params={"what": "encode"})
    with pytest.raises(UserError, match=r"what=draw.*decode, encode, reconstruct"):
        loaded.predict(np.zeros((2, 8), np.float32), params={"what": "draw"})


def test_what_a_killed_process_began_is_completed_and_nothing_is_logged_twice(
    swept: tuple[Path, str], tmp_path: Path
) -> None:
    root = shutil.copytree(swept[0], tmp_path / "copy")
    store = Store.existing(None, root, "no runs")  # the folder has moved: the links of the copy are copies
    run = runs_of(root)[0]
    (before,) = models_of(root, run)
    client_of(root).finalize_logged_model(before.model_id, "PENDING")
    (folder_of(root, before) / "MLmodel").unlink()
    described = Described("again", "vae_sweep.serving", np.zeros((1, 8), np.float32), ["torch"])
    assert [log_model(store, run.info.run_id, described) for _ in range(2)] == [before.model_id] * 2
    (after,) = models_of(root, run)
    assert (after.status, len(after.metrics)) == ("READY", len(before.metrics))
    assert {path.name for path in folder_of(root, after).iterdir()} == FILES
    assert [output.model_id for output in runs_of(root)[0].outputs.model_outputs] == [before.model_id]


def test_a_run_of_an_earlier_version_gets_its_model_when_the_command_is_repeated(
    swept: tuple[Path, str], tmp_path: Path, command: Callable
) -> None:
    root = shutil.copytree(swept[0], tmp_path / "copy")
    run = runs_of(root)[0]
    (model,) = models_of(root, run)
    client_of(root).delete_logged_model(model.model_id)
    client_of(root).delete_tag(run.info.run_id, "vae_sweep.model")
    done = command(
        *("-m", "model=fc,conv", "params=tiny", "seed=0,1", "experiment=smoke", "objective.beta=0.5", BASIC), cwd=root
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (again,) = models_of(root, run)
    assert (again.status, len(again.metrics)) == ("READY", len(model.metrics))
    assert [len(models_of(root, run)) for run in runs_of(root)] == [1] * 4


@pytest.fixture
def served(swept: tuple[Path, str]) -> Iterator[tuple[str, Run]]:
    """Address of ``mlflow models serve`` with one run's model, and the run."""
    root, _ = swept
    run = runs_of(root)[0]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it looks for uvicorn, as in an active environment
    uri = f"models:/{models_of(root, run)[0].model_id}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local", "-p", port, "-w", "1"],
        cwd=root,
        env=clean_environment() | {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db", "PATH": path},
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
            break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.3)
    yield f"http://127.0.0.1:{port}/invocations", run
    os.killpg(process.pid, 9)
    process.wait()


def answer(address: str, inputs: np.ndarray, **params: str) -> Any:
    content = json.dumps({"inputs": inputs.tolist(), **({"params": params} if params else {})}).encode()
    request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return np.array(json.load(response)["predictions"], np.float32)


@pytest.mark.slow
def test_mlflow_serves_the_model(
    served: tuple[str, Run], swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, run = served
    monkeypatch.chdir(swept[0])
    model = vs.load_model(run.info.run_id)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, model.latent_dim, generator=generator)
    x = torch.rand(2, *model.image_shape, generator=generator)
    with torch.no_grad():
        assert np.array_equal(answer(address, z.numpy()), model.decode(z).numpy())
        assert np.array_equal(answer(address, x.numpy()), model.encode(x).mean.numpy())
        assert np.array_equal(answer(address, x.numpy(), what="reconstruct"), model.reconstruct(x).numpy())
    with pytest.raises(urllib.error.HTTPError) as refused:
        answer(address, np.zeros((2, 3)))
    assert refused.value.code >= 400
    refused.value.close()


def test_register_makes_every_run_a_version_once(swept: tuple[Path, str], tmp_path: Path, command: Callable) -> None:
    root = shutil.copytree(swept[0], tmp_path / "copy")
    sweep = ("-m", "model=fc,conv", "params=tiny", "seed=0,1", "experiment=smoke", "objective.beta=0.5", BASIC)
    for _ in range(2):
        done = command(*sweep, "register=shapes-vae", cwd=root)
        assert done.returncode == 0, done.stdout + done.stderr
    versions = client_of(root).search_model_versions("name = 'shapes-vae'")
    runs = {run.info.run_id: run for run in runs_of(root)}
    assert sorted(version.run_id for version in versions) == sorted(runs)
    assert sorted(int(version.version) for version in versions) == [1, 2, 3, 4]
    for version in versions:
        (model,) = models_of(root, runs[version.run_id])
        assert version.source == f"models:/{model.model_id}"
        assert client_of(root).get_model_version_by_alias("shapes-vae", model.name).version == version.version
        assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "shapes-vae", "version": version.version}]


def test_a_name_that_cannot_be_registered_is_refused_before_the_first_run(project: Path, command: Callable) -> None:
    done = command("-m", "model=fc", "params=tiny", "experiment=smoke", "register=a/b", BASIC, cwd=project)
    assert done.returncode == 1
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "register" in line]
    assert "register=a/b: must be a name" in line
    assert "letters" in line
    assert runs_of(project) == []


OWN = """
from math import prod
from torch import nn
from vae_sweep.models import VAE, Posterior

class Own(VAE):
    def __init__(self, image_shape, latent_dim):
        super().__init__(image_shape, latent_dim)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(prod(image_shape), 2 * latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, prod(image_shape)), nn.Sigmoid())

    def encode(self, x):
        return Posterior(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z):
        return self.decoder(z).unflatten(1, self.image_shape)
"""
LOAD = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, numpy
print(mlflow.pyfunc.load_model(sys.argv[1]).predict(numpy.zeros((2, 8))).shape)
"""


def test_a_model_of_ones_own_comes_with_its_code(project: Path, tmp_path: Path, command: Callable) -> None:
    (project / "own_vae.py").write_text(OWN, encoding="utf-8")
    (project / "own" / "model").mkdir(parents=True)
    (project / "own" / "model" / "own.yaml").write_text("_target_: own_vae.Own\nname: own\n", encoding="utf-8")
    done = command(*("--config-dir", "own", "-m", "model=own", "params=tiny", "experiment=smoke", BASIC), cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = runs_of(project)
    folder = folder_of(project, models_of(project, run)[0])
    assert {path.name for path in folder.iterdir()} == {*FILES, "code"}
    (tmp_path / "load.py").write_text(LOAD, encoding="utf-8")
    loaded = command(str(folder), cwd=tmp_path, module="load")  # in another folder, where the user's module is not
    assert loaded.stdout.splitlines()[-1:] == ["(2, 3, 24, 24)"], loaded.stderr
