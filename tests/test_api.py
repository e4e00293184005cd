"""The public functions: what they return is what the store holds, and what fails says so in one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient

import vae_sweep as vs
from running import clean_environment
from vae_sweep import api
from vae_sweep.api import name_of
from vae_sweep.config import schema
from vae_sweep.datasets.shapes import Shapes
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.objective import Objective


@pytest.fixture
def here(swept: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sweep, as the current one."""
    monkeypatch.chdir(swept[0])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return swept[0]


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, vae_sweep; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-S", "-c", code], env=path_of_the_package(), capture_output=True, text=True)
    assert set(done.stdout.split()) - {"__main__"} == {"vae_sweep"}, done.stderr


def path_of_the_package() -> dict[str, str]:
    return clean_environment() | {"PYTHONPATH": str(Path(vs.__file__).parents[1])}


def test_the_names_are_those_that_are_documented() -> None:
    names = ["Run", "Sweep", "UserError", "load_dataset", "load_model", "load_run", "load_sweep"]
    assert vs.__all__ == api.__all__ == names
    assert set(names) <= set(dir(vs))
    assert all(getattr(vs, name).__doc__ for name in names)
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = vs.load_everything
    assert resources.files("vae_sweep").joinpath("py.typed").is_file()


def test_what_is_made_of_two_runs_with_one_name_has_two_file_names(here: Path) -> None:
    runs = list(vs.load_sweep().runs.values())
    names = [api.file_name(api.open_checkpoint(given, here)[1], "samples") for given in (runs[0].name, runs[1].id)]
    assert names == [f"{run.name}-{run.id[:8]}-samples" for run in runs[:2]]


def test_the_images_of_a_run_are_those_that_it_was_trained_on(here: Path) -> None:
    run = vs.load_sweep().runs["fc-tiny-s0"]
    assert json.loads(run.tags["vae_sweep.made_of"])["the images"] == run.dataset().digest
    changed = replace(run, tags=run.tags | {"vae_sweep.made_of": json.dumps({"the images": "0" * 64})})
    with pytest.raises(vs.UserError, match="the images of shapes have changed since it was trained"):
        changed.dataset()


def test_a_sweep_is_what_its_report_says(here: Path) -> None:
    sweep = vs.load_sweep()
    (stored,) = here.glob(f"mlruns/{sweep.id}/artifacts")
    assert (sweep.id, sweep.status) == (vs.load_sweep(sweep.id[:8]).id, "FINISHED")
    table = sweep.table.astype(object).where(lambda t: t.notna() & (t != ""), np.nan)  # as a CSV has them
    written = pd.read_csv(stored / "comparison.csv", dtype={"variance": str})  # it may be a word
    pd.testing.assert_frame_equal(table, written, check_dtype=False, check_like=True)
    reported = json.loads((stored / "statistics.json").read_text(encoding="utf-8"))["contrasts"]
    assert len(reported) == len(sweep.contrasts) > 10
    for contrast, (_, row) in zip(reported, sweep.contrasts.iterrows(), strict=True):
        assert row.metric == contrast["metric"]["key"]
        for key in ("a", "b", "n", "mean", "p", "verdict"):
            assert row[key] == contrast[key], key
    first = sweep.contrasts.iloc[0]
    losses = sweep.table.set_index("name").test_loss
    assert (first.metric, first.a, first.b) == ("test/loss", "fc", "conv")
    differences = [losses[f"fc-tiny-s{seed}"] - losses[f"conv-tiny-s{seed}"] for seed in (0, 1)]
    assert first["mean"] == pytest.approx(np.mean(differences))
    assert first.low < first["mean"] < first.high
    assert first.sentence.split(";")[0] in sweep.report
    assert list(sweep.runs) == ["fc-tiny-s0", "fc-tiny-s1", "conv-tiny-s0", "conv-tiny-s1"]
    assert losses[list(sweep.runs)].nunique() == 4  # zero is a seed, too


def test_a_run_is_what_the_store_holds(here: Path) -> None:
    run = vs.load_sweep().runs["conv-tiny-s1"]
    stored = MlflowClient(tracking_uri=f"sqlite:///{here / 'mlflow.db'}").get_run(run.id).data
    assert vs.load_run(run.id[:10]) == vs.load_run("conv-tiny-s1") == run
    assert vs.load_run("last").id in {other.id for other in vs.load_sweep().runs.values()}
    assert run.metrics == stored.metrics
    assert run.configuration["seed"] == 1
    assert run.configuration["model"]["channels"] == [32, 64, 128]
    assert list(run.history.index) == [1, 2]
    assert run.history["val/loss"].min() == run.metrics["best/val_loss"]
    assert run.history.images_seen.tolist() == [360, 720]
    assert {"curves", "samples", "reconstructions", "interpolations"} <= set(run.figures)
    assert run.figures["samples"].width > 100


def test_a_model_gives_the_recorded_loss(here: Path) -> None:
    run = vs.load_sweep().runs["fc-tiny-s0"]
    data = run.dataset()
    model = run.model()
    assert not model.training
    assert model.sample(3).shape == (3, 3, 24, 24)
    measured = evaluate(model, torch.from_numpy(data.test.images), Objective(0.5))
    assert measured.loss == pytest.approx(run.metrics["test/loss"], rel=1e-6)
    chosen_by = evaluate(model, torch.from_numpy(data.val.images), Objective(0.5))  # and not by the test images
    assert chosen_by.loss == pytest.approx(run.metrics["best/val_loss"], rel=1e-6)
    (file,) = here.glob("outputs/*/*fc-tiny-s0/checkpoint.pt")
    for where in (run.id, run.id[:12], file, str(file.parent), str(file.relative_to(here))):
        same = vs.load_model(where).state_dict()
        assert all(torch.equal(same[key], value) for key, value in model.state_dict().items())


def test_a_data_set_is_the_one_that_a_sweep_uses(here: Path) -> None:
    run = vs.load_sweep().runs["fc-tiny-s0"]
    data = vs.load_dataset("shapes", n_train=400, n_test=100)
    stored = MlflowClient(tracking_uri=f"sqlite:///{here / 'mlflow.db'}").get_run(run.id).data
    assert data.digest == stored.params["dataset.digest"]
    assert data.cache_dir.parent == here / "data" / "cache"
    small = vs.load_dataset("shapes", n_train=20, n_test=7, image_size=8, max_images=5)
    drawn = Shapes(n_train=20, n_test=7, image_size=8).build().splits["test"].images
    assert small.test.images.shape == (5, 3, 8, 8)
    assert all(any((image == other).all() for other in drawn) for image in small.test.images)
    assert (small.train.images.dtype, small.train.labels.dtype) == (np.uint8, np.int64)


def test_a_user_of_hydra_keeps_the_configuration_that_is_being_composed(here: Path) -> None:
    schema.register()
    with initialize_config_dir(str(schema.config_dir()), version_base="1.3"):
        vs.load_dataset("shapes", n_train=20, n_test=7, image_size=8)
        assert compose("config", ["seed=3"]).seed == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vs.load_run("0" * 32), r"^run=0+: no such run in sqlite:.*`mlflow ui` lists its runs$"),
        (lambda: vs.load_run("0" * 9, tracking_uri="sqlite:///none.db"), r"^run=0+: no runs are stored here \(sqlite:"),
        (lambda: vs.load_model("nowhere.pt"), r"nowhere\.pt: no such file; give a run id, or the path"),
        (
            lambda: vs.load_model("best"),
            r"^run=best: no run of the last sweep has this name; .*conv-tiny-s0, .* run id",
        ),
        (lambda: vs.load_model("no/where"), r"^run=no/where: no such file; give a run id, a name in the last sweep"),
        (lambda: vs.load_model(vs.load_sweep().id), r"has no checkpoint; give the id of a finished run"),
        (lambda: vs.load_model("best", model="os.system"), r"^run=best: no run of"),
        (lambda: vs.load_sweep().runs["fc-tiny-s0"].model("os.system"), r"^model='os.system': must be a subclass of"),
        (
            lambda: vs.load_sweep(vs.load_sweep().runs["fc-tiny-s0"].id),
            r"is one run, not a sweep; it belongs to sweep=",
        ),
        (
            lambda: vs.load_dataset("shape"),
            r"^dataset=shape: no such choice; available: celeba, .*; did you mean shapes",
        ),
        (
            lambda: vs.load_dataset("a (b"),
            r"^dataset=a \(b: no such choice; available: celeba, cifar10, folder, shapes",
        ),
        (lambda: vs.load_dataset("shapes", n_trian=3), r"^dataset\.n_trian: no such key; .*; did you mean n_train\?$"),
        (lambda: vs.load_dataset("shapes", n_train="x"), r"^dataset\.n_train: Value 'x' .* converted to Integer$"),
        (lambda: vs.load_dataset("shapes", n_train=0), r"^dataset\.n_train=0 is not allowed: .* whole number of 1"),
        (lambda: vs.load_dataset("folder"), r"^dataset\.path has no value"),
        (lambda: vs.load_dataset("folder", path="nowhere"), r"^dataset\.path=.*nowhere: there is no folder"),
    ],
)
def test_what_cannot_be_loaded_is_named_in_one_line(call, message: str, here: Path) -> None:
    with pytest.raises(vs.UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_store_without_a_sweep_says_so(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(vs.UserError, match=r"^sweep=last: no runs are stored here"):
        vs.load_sweep()
    shutil.copy(empty_database, tmp_path)
    MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("another")
    with pytest.raises(vs.UserError, match=r"^sweep=last: sqlite:.* holds no sweep; start one with"):
        vs.load_sweep()


def test_a_checkpoint_is_named_by_what_it_holds() -> None:
    content = {"facts": {"name": "fc-p1", "best_epoch": 9.0, "test": {"loss": 84.279}}}
    content["config"] = {"dataset": {"name": "shapes"}, "seed": 3}
    assert name_of(content) == "fc-p1 on shapes, seed 3: epoch 9, test loss 84.28"
    for facts in ({"test": [1]}, {"best_epoch": "9", "test": {"loss": 1.0}}, {"best_epoch": 9}):
        assert name_of(content | {"facts": {"name": "fc-p1", **facts}}) == "fc-p1 on shapes, seed 3"
