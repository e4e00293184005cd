"""A checkpoint may be anybody's: no module that only it names is imported; its class is given by who trusts it."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from running import BASIC
from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.linear import LinearVAE
from vae_sweep.models.vae import VAE
from vae_sweep.training import checkpoint

OWN_MODEL = """\
    from pathlib import Path
    from vae_sweep.models.linear import LinearVAE
    Path("imported").touch()
    class MyVAE(LinearVAE):
        pass
"""
OWN_DATA = """\
    from pathlib import Path
    from vae_sweep.datasets.shapes import Shapes
    Path("imported").touch()
    class MyShapes(Shapes):
        pass
"""


@pytest.fixture
def folder(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules can be imported, and leave a file when they are."""
    (project / "my_vae.py").write_text(dedent(OWN_MODEL))
    (project / "my_data.py").write_text(dedent(OWN_DATA))
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    for name in ("my_vae", "my_data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return project


def written(folder: Path, target: str, data: str = "vae_sweep.datasets.shapes.Shapes") -> Path:
    """A checkpoint of a tiny linear VAE that names these classes."""
    sizes = {"n_train": 20, "n_test": 10, "image_size": 8, "val_fraction": 0.2}
    config: dict[str, Any] = {
        "model": {"_target_": target, "name": "mine"},
        "dataset": {"_target_": data, "name": "shapes", **sizes},
        "paths": {"root": str(folder), "data": str(folder / "data")},
    }
    checkpoint.save(folder / "checkpoint.pt", LinearVAE((3, 8, 8), 2), config, {"name": "mine-tiny"})
    return folder / "checkpoint.pt"


def test_the_module_of_a_foreign_class_is_not_imported(folder: Path) -> None:
    path = written(folder, "my_vae.MyVAE")
    with pytest.raises(
        UserError, match=r"'my_vae\.MyVAE': not a class of vae_sweep, so its module is not imported; if"
    ):
        checkpoint.load(path)
    assert not (folder / "imported").exists()
    model, content = checkpoint.load(path, plugins.find("my_vae.MyVAE", VAE, "model"))
    assert type(model).__name__ == "MyVAE"
    assert torch.equal(model.state_dict()["logvar"], content["weights"]["logvar"])


@pytest.mark.parametrize("target", ["vae_sweep.models", "vae_sweep.cli.main", "vae_sweep.__main__.main", "", "my_vae"])
def test_only_our_own_model_classes_are_loaded_unasked(folder: Path, target: str) -> None:
    path = written(folder, target)
    with pytest.raises(UserError, match=r"model\._target_=.*not a class of vae_sweep"):
        checkpoint.load(path)


def test_a_class_that_does_not_fit_the_weights_is_refused(folder: Path) -> None:
    path = written(folder, "my_vae.MyVAE")
    with pytest.raises(UserError, match="does not fit its configuration"):
        checkpoint.load(path, FCVAE)


def test_generate_needs_the_class_of_a_foreign_checkpoint(command, folder: Path) -> None:
    written(folder, "my_vae.MyVAE", "my_data.MyShapes")
    given = ["run=checkpoint.pt", "n=2", "what=reconstructions"]
    for more, missing in (([], "model"), (["model=my_vae.MyVAE"], "dataset")):
        (folder / "imported").unlink(missing_ok=True)
        done = command(*given, *more, cwd=folder, module="vae_sweep.generate")
        assert done.returncode == 1
        assert f"if you trust it, give {missing}=<dotted path of the class>" in done.stderr
        assert (folder / "imported").exists() == bool(more)  # that of the class that was given
    both = ["model=my_vae.MyVAE", "dataset=my_data.MyShapes"]
    done = command(*given, *both, cwd=folder, module="vae_sweep.generate")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


def test_a_sweep_measures_finished_runs_of_a_users_own_class(command, folder: Path) -> None:
    """What is configured is trusted: the same command with other metrics reads the checkpoint of a user's model."""
    (folder / "conf" / "model").mkdir(parents=True)
    (folder / "conf" / "model" / "mine.yaml").write_text("_target_: my_vae.MyVAE\nname: mine\n")
    asked = [
        "--config-dir",
        "conf",
        "-m",
        "model=mine",
        "params=tiny",
        "experiment=smoke",
        "training.max_epochs=1",
        BASIC,
    ]
    assert command(*asked, cwd=folder).returncode == 0
    again = command(*asked, "metrics.iwae_samples=3", cwd=folder)
    assert again.returncode == 0
    assert "could not record" not in again.stdout
    assert "mine-tiny measured in" in again.stdout
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("vae_sweep-smoke")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`vae_sweep.role` = 'run'")
    assert len(runs) == 1
    tags = runs[0].data.tags
    assert tags["vae_sweep.device.name"]
    assert tags["vae_sweep.numerics"] == "training in float32, evaluation in float32; cuDNN deterministic"
