"""Every bad input ends with one clear line and a non-zero exit, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

SMOKE = "experiment=smoke"
BAD = {
    "model": (["model=fcc"], "model=fcc: no such choice; available: conv, fc, linear; did you mean fc?"),
    "params": (["params=p9"], "params=p9: no such choice; available: p1, p2, p3, tiny"),
    "dataset": (["dataset=cifar"], "dataset=cifar: no such choice; available: celeba, cifar10, folder, shapes"),
    "group": (["modle=fc"], "modle: no such key; known keys: seed, model, dataset"),
    "key": (
        ["params.lrr=1"],
        "params.lrr: no such key; known keys: name, batch_size, lr, latent_dim; did you mean lr?",
    ),
    "added key": (["+params.foo=1", SMOKE], "+params.foo: no such key; a `+` cannot add one here"),
    "type": (["params.lr=abc"], "params.lr: Value 'abc' of type 'str' could not be converted to Float"),
    "range": (["params.latent_dim=0", SMOKE], "params.latent_dim=0: must be a whole number >= 1"),
    "reduction": (["objective.reduction=avg", SMOKE], "objective.reduction=avg: must be sum or mean"),
    "seed": (["seed=-1", SMOKE], "seed=-1: must be a whole number from 0"),
    "width": (["model=fc", "model.hidden_dims=[64,0]", SMOKE], "model.hidden_dims=[64, 0]: must be a list of widths"),
    "depth": (["model.channels=[8,8,8,8,8,8]", SMOKE], "multiples of 64; the images are 32x32"),
    "device": (["training.device=gpu", SMOKE], "training.device=gpu: must be auto, cpu, cuda, cuda:N or mps"),
    "batch size": (["params.batch_size=361", SMOKE], "params.batch_size=361: larger than the 360 training images"),
    "swept model": (["-m", "model=fc,convv", SMOKE], "model=convv: no such choice"),
    "swept type": (["-m", "params.lr=1e-3,abc", SMOKE], "params.lr: Value 'abc'"),
    "swept range": (["-m", "params.latent_dim=8,0", SMOKE], "params.latent_dim=0: must be a whole number >= 1"),
    "swept twice": (["-m", "params=p1,p1", SMOKE], "the sweep holds conv-p1 twice"),
    "swept data": (["-m", "dataset=shapes,celeba"], "dataset=shapes works now"),
    "target": (["model._target_=os.system", SMOKE], "must be a subclass of vae_sweep.models.vae.VAE"),
    "no path": (["dataset=folder"], "dataset.path has no value; add dataset.path=... to the command"),
    "no folder": (["dataset=folder", "dataset.path=nowhere"], "there is no folder"),
    "empty folder": (["dataset=folder", "dataset.path=empty"], "empty"),
    "no pictures": (["dataset=folder", "dataset.path=texts"], "texts"),
    "corrupt picture": (["dataset=folder", "dataset.path=corrupt", "dataset.strict=true"], "7.png"),
    "truncated archive": (["dataset=cifar10"], "cifar-10-python.tar.gz is damaged or incomplete: md5 expected"),
    "no partition": (["dataset=celeba", "dataset.root=faces"], "list_eval_partition"),
    "file store": (["tracking.uri=file:./mlruns", SMOKE], "tracking.uri=file:./mlruns: MLflow no longer keeps runs in"),
    "no server": (["tracking.uri=http://127.0.0.1:9", SMOKE], "no MLflow server answers there"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str, command, tmp_path: Path) -> None:
    arguments, expected = BAD[case]
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no picture")
    (tmp_path / "corrupt").mkdir()
    for i in range(30):
        Image.new("RGB", (8, 8), (8 * i, 0, 0)).save(tmp_path / "corrupt" / f"{i}.png")
    (tmp_path / "corrupt" / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b\x08 and then nothing")
    (tmp_path / "faces" / "img_align_celeba").mkdir(parents=True)
    (tmp_path / "faces" / "img_align_celeba" / "000001.jpg").write_bytes(b"")
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("vae_sweep: ")
    assert expected in last
    assert "Traceback" not in done.stdout + done.stderr
    assert "epoch 1" not in done.stdout


def test_all_bad_values_are_named_at_once(command, tmp_path: Path) -> None:
    done = command("params.lr=-1", "params.latent_dim=0", "training.patience=0", SMOKE, cwd=tmp_path)
    assert done.returncode == 1
    for key in ("params.lr=-1", "params.latent_dim=0", "training.patience=0"):
        assert key in done.stderr


def test_unwritable_output(command, tmp_path: Path) -> None:
    """A file where the folder should be: the one kind of unwritable that also stops root."""
    (tmp_path / "outputs").write_text("in the way")
    done = command(SMOKE, cwd=tmp_path)
    assert done.returncode == 1
    assert f"paths.root={tmp_path}: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "usage: python -m vae_sweep.generate"),
        (["what=samples"], "run= is missing"),
        (["run=0123456789abcdef0123456789abcdef"], "no runs are stored here"),
        (["run=nowhere.pt"], "nowhere.pt: no such file"),
        (["run=no_checkpoint.pt"], "not a checkpoint that can be read"),
        (["run=other.pt"], "not a checkpoint of vae_sweep"),
        (["run=x", "what=movie"], "what=movie: no such picture; available: samples, interpolation, reconstructions"),
        (["run=x", "n=many"], "n: Value 'many'"),
        (["run=x", "m=1"], "m=1: not an option"),
    ],
)
def test_bad_input_to_generate(arguments: list[str], expected: str, command, tmp_path: Path) -> None:
    import torch

    (tmp_path / "no_checkpoint.pt").write_text("these are not weights")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    done = command(*arguments, cwd=tmp_path, module="vae_sweep.generate")
    assert done.returncode != 0
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_generate_names_an_unknown_run(command, tmp_path: Path) -> None:
    assert command("params=tiny", "model=linear", SMOKE, cwd=tmp_path).returncode == 0
    done = command("run=0123456789abcdef", cwd=tmp_path, module="vae_sweep.generate")
    assert done.returncode == 1
    assert done.stderr.startswith("vae_sweep: run=0123456789abcdef: no such run in sqlite:///")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "does the architecture of a VAE matter"),
        (["--cfg", "job"], "latent_dim: 128"),
        (["--info", "defaults"], "model/conv"),
        (["-sc", "install=bash"], "complete"),
    ],
)
def test_hydras_own_commands(arguments: list[str], expected: str, command, tmp_path: Path) -> None:
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert list(tmp_path.iterdir()) == []  # looking leaves nothing behind
