"""The command on data as people have them: what a folder was taken for, rehearsals, images that do not differ."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from running import BASIC, statuses
from vae_sweep import datasets
from vae_sweep.config import schema
from vae_sweep.datasets.base import Split
from vae_sweep.metrics import linear
from vae_sweep.metrics.measure import Settings, linear_vae, measure, measure_linear
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.objective import ELBO

CONF = Path(__file__).parents[1] / "conf"
REHEARSAL = ("experiment=smoke", "params=tiny", "params.batch_size=4", BASIC, "training.device=cpu")


def write(folder: Path, n: int, seed: int | None = None) -> None:
    """`n` pictures of noise, or black ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        noise = np.zeros((8, 8, 3)) if seed is None else np.random.default_rng([seed, i]).integers(0, 256, (8, 8, 3))
        Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i:02d}.png")


def artifact(root: Path, name: str) -> list[Path]:
    return sorted((root / "mlruns").glob(f"*/artifacts/{name}"))


def test_what_a_folder_of_images_was_taken_for_is_recorded_and_reported(command: Any, project: Path) -> None:
    for split, n in (("Train", 20), ("valid", 6), ("TEST", 8)):
        write(project / "pictures" / "archive" / split / "a", n, seed=n)
    write(project / "pictures" / "archive" / "Train" / "a" / "@eaDir", 3)
    (project / "pictures" / "archive" / "x.heic").write_bytes(b"")
    (project / "pictures" / "archive" / "Train" / "a" / "cut.png").write_bytes(b"")
    with open(os.fsencode(project / "pictures" / "archive" / "Train" / "a") + b"/odd\xff.png", "wb") as file:
        file.write(b"")
    done = command("-m", *REHEARSAL, "dataset=folder", "dataset.path=pictures", "model=linear", cwd=project)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert set(statuses(project).values()) == {"FINISHED"}
    (path,) = artifact(project, "data.json")
    known = json.loads(path.read_text(encoding="utf-8"))
    assert known["images"] == {"train": 20, "val": 6, "test": 8}
    assert known["facts"]["splits"] == {"train": "archive/Train", "val": "archive/valid", "test": "archive/TEST"}
    assert known["facts"]["left_out"]["files ending in .heic"] == 1
    assert known["facts"]["left_out"]["system files (@eaDir)"] == 3
    assert known["lines"][1].startswith(
        "splits: 20 train (archive/Train), 6 val (archive/valid), 8 test (archive/TEST)"
    )
    assert known["lines"][2] == "classes: 1 (a)"
    for line in known["lines"]:
        assert line in shown
    (report,) = artifact(project, "report.html")
    page = report.read_text(encoding="utf-8")
    assert "<summary>Data</summary>" in page
    assert "6 val (archive/valid)" in page
    assert "trying again" not in shown


def test_one_training_image_is_enough_and_undefined_metrics_say_why(command: Any, project: Path) -> None:
    for split, n in (("train", 1), ("val", 1), ("test", 1)):
        write(project / "pictures" / split, n, seed=n)
    settings = ("params.batch_size=1", "dataset.image_size=8", "metrics.gmm_components=2", "metrics.ssim_images=9")
    done = command(*REHEARSAL, *settings, "dataset=folder", "dataset.path=pictures", "model=fc", cwd=project)
    shown = done.stdout + done.stderr
    assert done.returncode == 0, shown
    assert "Traceback" not in shown
    assert "could not record" not in shown
    assert "the training images do not differ, so there is nothing to learn from them" in shown
    assert "objective.beta" not in shown  # no latent is used, and no setting would help
    with closing(sqlite3.connect(project / "mlflow.db")) as connection:
        metrics = {key for (key,) in connection.execute("SELECT key FROM latest_metrics")}
        tags = dict(connection.execute("SELECT key, value FROM tags"))
    assert {"test/loss", "test/psnr", "test/active_units", "test/iwae_10", "reference/test_loss"} <= metrics
    assert not {key for key in metrics if "mixture" in key or "ssim" in key}
    undefined = tags["vae_sweep.metrics.undefined"].splitlines()
    assert [line.partition(":")[0] for line in undefined] == ["SSIM", "gain of a mixture prior"]
    for line in undefined:
        assert f"not defined on these images: {line}" in shown
    assert "vae_sweep.metrics" in tags  # complete: nothing is measured again


def dataset(tmp_path: Path, n: dict[str, int], colour: int | None) -> datasets.ImageDataset:
    """Images of one colour, or noise, in two classes."""
    splits = {
        key: Split(
            np.full((size, 3, 12, 12), colour, np.uint8)
            if colour is not None
            else np.random.default_rng(size).integers(0, 256, (size, 3, 12, 12), np.uint8),
            np.arange(size) % 2,
        )
        for key, size in n.items()
    }
    return datasets.ImageDataset("d", splits, (3, 12, 12), f"{n}{colour}", {}, tmp_path)


@pytest.mark.parametrize("colour", [0, 77, 255])
@pytest.mark.parametrize("n_train", [2, 500])  # fewer, and more, images than values
def test_metrics_that_images_of_one_colour_do_not_define_are_left_out(
    tmp_path: Path, colour: int, n_train: int
) -> None:
    data = dataset(tmp_path, {"train": n_train, "val": 2, "test": 60}, colour)
    spectrum = linear.spectrum(data.train.images)
    settings = Settings(4, 10, 2, 10, "none", 50, None)
    model = linear_vae(spectrum, 4, ELBO, data.image_shape)
    found = measure_linear(model, spectrum, ELBO, data, settings)
    assert found.undefined == ("probe on PCA scores: the training images do not differ",)
    assert not found.missing
    assert found.values["neg_elbo"] == pytest.approx(0, abs=1e-6)
    assert found.values["active_units"] == 0
    kl, recon = linear.linear_curve(spectrum, data.test.images, [0.5, 1.0])
    np.testing.assert_allclose([*kl, *recon], 0, atol=1e-6)


def test_distances_of_few_images_are_left_out_before_a_network_is_asked_for(tmp_path: Path) -> None:
    data = dataset(tmp_path, {"train": 60, "val": 5, "test": 49}, None)
    spectrum = linear.spectrum(data.train.images)
    model = linear_vae(spectrum, 4, ELBO, data.image_shape)
    test = evaluate(model, torch.from_numpy(data.test.images))
    found = measure(model, test, ELBO, data, Settings(0, 1, 0, 0, "efficientnet_lite0", 500, None), 0)
    assert found.undefined == ("distances between image sets: they need 50 images on each side, not 49",)
    assert not [key for key in found.values if key.startswith(("fd", "kd"))]


def composed(*overrides: str) -> Any:
    schema.register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*overrides, "paths.root=/x"], return_hydra_config=False)
    return cfg


@pytest.mark.parametrize("choice", ["shapes", "folder", "cifar10", "celeba"])
def test_a_rehearsal_is_small_on_any_data(choice: str) -> None:
    cfg = composed("experiment=smoke", f"dataset={choice}")
    small = (400, 100, None) if choice == "shapes" else (None, None, 400)
    assert (cfg.dataset.get("n_train"), cfg.dataset.get("n_test"), cfg.dataset.max_images) == small
    assert composed("experiment=smoke", f"dataset={choice}", "dataset.max_images=50").dataset.max_images == 50


@pytest.mark.parametrize("experiment", ["smoke", "[smoke]", "[smoke,celeba30]"])
def test_a_rehearsal_can_be_combined_with_other_experiments(experiment: str) -> None:
    cfg = composed(f"experiment={experiment}")
    assert (cfg.dataset.name, cfg.training.max_epochs) == ("celeba" if "celeba" in experiment else "shapes", 2)
    assert cfg.dataset.get("n_train", cfg.dataset.max_images) == 400


def test_a_rehearsal_is_small_on_a_users_own_data_source(command: Any, project: Path) -> None:
    (project / "conf" / "dataset").mkdir(parents=True)
    (project / "conf" / "dataset" / "mine.yaml").write_text("_target_: mine.Mine\nname: mine\n")
    (project / "mine.py").write_text(
        "import numpy as np\n"
        "from vae_sweep.datasets import Built, Source, Split\n"
        "class Mine(Source):\n"
        "    def fingerprint(self): return {}\n"
        "    def build(self):\n"
        "        part = lambda n: Split(np.zeros((n, 1, 8, 8), np.uint8), np.zeros(n, np.int64))\n"
        "        return Built({'train': part(1000), 'val': part(500), 'test': part(30)})\n"
    )
    done = command(
        *("--config-dir", "conf", *REHEARSAL, "params.batch_size=50", "dataset=mine", "model=linear"),
        cwd=project,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = artifact(project, "data.json")
    assert json.loads(path.read_text())["images"] == {"train": 400, "val": 400, "test": 30}
