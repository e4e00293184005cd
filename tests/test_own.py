"""A user's own models through the command: their errors can be found, their keys are known, their pages are kept."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import vae_sweep as vs
from running import BASIC, clean_environment

MODULE = """
from vae_sweep.models.fc import FCVAE


class MyVAE(FCVAE):
    def __init__(self, image_shape, latent_dim, depth):
        super().__init__(image_shape, latent_dim, [8 * depth])


class Broken(FCVAE):
    def decode(self, z):
        return {}["no such key"]
"""
FEW = ("--config-dir", "mine", "experiment=smoke", "params=tiny", "dataset=shapes", "training.device=cpu", BASIC)


@pytest.fixture
def own(new_project) -> Path:
    """A project with the models a and b of one class, and one that fails."""
    root = new_project("own")
    (root / "mine" / "model").mkdir(parents=True)
    (root / "my_vae.py").write_text(MODULE)
    for name in ("a", "b"):
        text = f"_target_: my_vae.MyVAE\nname: {name}\ndepth: {1 + (name == 'b')}\n"
        (root / "mine" / "model" / f"{name}.yaml").write_text(text)
    (root / "mine" / "model" / "broken.yaml").write_text("_target_: my_vae.Broken\nname: broken\nhidden_dims: [8]\n")
    return root


def test_the_line_of_an_error_in_ones_own_class_can_be_seen(command, own: Path) -> None:
    short = command("model=broken", *FEW, cwd=own)
    assert "HYDRA_FULL_ERROR=1 shows where" in short.stderr
    assert "Traceback" not in short.stderr
    for multirun in ((), ("-m",)):
        whole = command(*multirun, "model=broken", *FEW, cwd=own, HYDRA_FULL_ERROR="1")
        assert whole.returncode == 1
        assert 'my_vae.py", line 12, in decode' in whole.stderr
        assert "HYDRA_FULL_ERROR=1 shows where" in whole.stderr.splitlines()[-1]


def test_a_key_of_swept_own_models_and_their_page(command, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("-m", "model=a,b", "model.depth=3", *FEW, cwd=own)
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.chdir(own)
    sweep = vs.load_sweep()
    assert {run.configuration["model"]["depth"] for run in sweep.runs.values()} == {3}
    done = command("-m", "model=a,b", "model.depht=3", *FEW, cwd=own)
    assert done.returncode == 1
    assert "model.depht" in done.stderr.splitlines()[-1]

    def page() -> str:
        with sweep.store.artifact(sweep.id, "explore.html") as path:
            assert path is not None
            return path.read_text(encoding="utf-8")

    whole = page()
    assert "a, tiny, seed 0" in whole
    compared = command("sweep=last", cwd=own, module="vae_sweep.compare")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "if you trust it, give model=<dotted path of the class>" in compared.stderr
    assert page() == whole  # nothing is lost
    compared = command("sweep=last", "model=my_vae.MyVAE", "out=again", cwd=own, module="vae_sweep.compare")
    assert "leaves out" not in compared.stderr
    assert "a, tiny, seed 0" in (own / "again" / "explore.html").read_text(encoding="utf-8")
    name = next(iter(sweep.runs))
    words = ["generate", f"run={name}", "model=my_vae.MyVAE", "out=x.png"]
    if entry_points(group="console_scripts", name="vae-sweep"):  # it does not put this folder onto the path
        program = Path(sys.executable).with_name("vae-sweep")
        subprocess.run([program, *words], cwd=own, env=clean_environment(), check=True, capture_output=True)
        assert (own / "x.png").exists()
