"""The real command in a subprocess, then what the MLflow store holds."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from running import BASIC, TIMINGS
from vae_sweep import datasets
from vae_sweep.tracking.relocate import relocate
from vae_sweep.training import checkpoint
from vae_sweep.training.evaluation import evaluate

GRID = [f"{model}-{params}" for model in ("fc", "conv") for params in ("p1", "p2", "p3")]
PICTURES = ("curves", "interpolations", "kl_spectrum", "reconstructions", "samples")


@dataclass
class Project:
    root: Path
    output: str
    client: MlflowClient
    parent: Run
    children: dict[str, Run]

    def artifact(self, run: Run, path: str) -> Path:
        return Path(self.client.download_artifacts(run.info.run_id, path))


def read(root: Path, experiment: str = "vae_sweep-smoke") -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    return client, list(client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]))


def sweep(root: Path, output: str) -> Project:
    """The newest sweep in the store of ``root``."""
    client, runs = read(root)
    parent = [run for run in runs if run.data.tags["vae_sweep.role"] == "sweep"][-1]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return Project(root, output, client, parent, {run.info.run_name: run for run in children})


@pytest.fixture(scope="session")
def smoke(real_command, made_once) -> Project:
    """The sweep of the README as a rehearsal, in processes of its own: to look at, not to write into."""

    def fill(folder: Path) -> None:
        root = folder / "a project, it's mine"  # a path that needs quoting
        root.mkdir()
        done = real_command("-m", "model=fc,conv", "params=p1,p2,p3", "experiment=smoke", cwd=root)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "output.txt").write_text(done.stdout, encoding="utf-8")

    folder = made_once("smoke", fill)
    return sweep(folder / "a project, it's mine", (folder / "output.txt").read_text(encoding="utf-8"))


@pytest.fixture
def copied(smoke: Project, tmp_path: Path) -> Path:
    """The project folder of that sweep, to write into."""
    root = Path(shutil.copytree(smoke.root, tmp_path / "copied project"))
    relocate(root / "mlflow.db")
    return root


def test_a_sweep_is_one_parent_run_with_a_child_run_per_cell(smoke: Project) -> None:
    assert sorted(smoke.children) == sorted(GRID)
    assert smoke.parent.info.status == "FINISHED"
    assert {run.info.status for run in smoke.children.values()} == {"FINISHED"}
    assert smoke.parent.info.run_name == "shapes: model=fc,conv params=p1,p2,p3"


def test_child_runs_have_the_same_parameters_and_differ_in_model_and_set(smoke: Project) -> None:
    """The same parameter names in every child; what differs is the model and the parameter set."""
    params = [run.data.params for run in smoke.children.values()]
    shared = set.intersection(*(set(p) for p in params))
    assert {"params.lr", "params.batch_size", "params.latent_dim", "seed", "objective.beta", "n_parameters"} <= shared
    differing = {key for key in shared if len({p[key] for p in params}) > 1}
    assert differing == {
        *("model.name", "model._target_", "n_parameters"),
        *(f"params.{key}" for key in ("name", "batch_size", "lr", "latent_dim")),
    }
    assert smoke.children["fc-p2"].data.params["params.lr"] == "0.0005"
    assert smoke.children["conv-p1"].data.params["n_parameters"] == "774851"


def test_every_epoch_records_its_losses_and_images_seen(smoke: Project) -> None:
    for run in smoke.children.values():
        for split in ("train", "val"):
            history = {
                term: smoke.client.get_metric_history(run.info.run_id, f"{split}/{term}")
                for term in ("loss", "recon", "kl")
            }
            assert {term: [m.step for m in h] for term, h in history.items()} == {key: [1, 2] for key in history}
            for i in range(2):
                total = history["recon"][i].value + history["kl"][i].value
                assert history["loss"][i].value == pytest.approx(total, rel=1e-5)
        seen = smoke.client.get_metric_history(run.info.run_id, "images_seen")
        assert [m.value for m in seen] == [360, 720]  # 400 shapes, a tenth held out


def test_a_finished_run_records_its_losses_and_times(smoke: Project) -> None:
    for run in smoke.children.values():
        m = run.data.metrics
        assert m["epochs"] == 2
        assert m["best/val_loss"] == min(
            point.value for point in smoke.client.get_metric_history(run.info.run_id, "val/loss")
        )
        assert m["test/loss"] == pytest.approx(m["test/recon"] + m["test/kl"], rel=1e-5)
        assert m["distance_to_linear"] == pytest.approx(m["test/loss"] - m["reference/test_loss"], rel=1e-9)
        assert m["implied_variance"] == 0.5
        assert m["images_per_s"] == pytest.approx(720 / m["train_time_s"], rel=1e-6)
        assert m["wall_time_s"] > m["train_time_s"] > 0
        assert 0 < m["cpu_time_s"] < 2 * m["wall_time_s"]
        assert 100 < m["peak_memory_mb"] < 10_000
        assert run.data.tags["mlflow.runColor"] == {"fc": "#0072B2", "conv": "#D55E00"}[run.data.params["model.name"]]
        listed = dict(part.split() for part in run.data.tags["vae_sweep.time_s"].split(", "))
        parts = {"start", "training", "validation", "tracking", "state", "losses", "checkpoint", "figures", "metrics"}
        parts |= {"images", "model"}
        assert set(listed) == parts
        assert sum(map(float, listed.values())) == pytest.approx(m["wall_time_s"], abs=0.5 + 0.05 * len(parts))


def test_every_run_is_measured_beside_the_linear_vae(smoke: Project) -> None:
    names = {"active_units", "aggregate_kl", "bits_per_dim", "iwae_10", "neg_elbo", "probe_accuracy", "psnr"}
    names |= {"optimal_sigma"}
    lines = {}
    for cell, run in smoke.children.items():
        m = run.data.metrics
        linear = json.loads(smoke.artifact(run, "reference.json").read_text())["metrics"]
        assert {f"test/{name}" for name in names} <= set(m)
        assert names <= set(linear)
        assert m["test/neg_elbo"] == pytest.approx(m["test/loss"], rel=1e-6)
        assert linear["neg_elbo"] == pytest.approx(m["reference/test_loss"], rel=0.05)  # one draw per image
        assert m["reference/active"] == 31  # eigenvalues of the training images above the decoder's variance, 1/2
        assert linear["active_units"] == 31  # latents that vary on test images
        assert linear["iwae_10_gain"] == pytest.approx(0, abs=1e-3)
        # its losses and terms; active latents; bits/dim
        assert len([key for key in m if key.startswith("reference/")]) == 11
        assert m["reference/bits_per_dim_gaussian"] == linear["bits_per_dim_gaussian"]
        spectrum = np.load(smoke.artifact(run, "kl_spectrum.npy"))
        assert spectrum.sum() == pytest.approx(m["test/kl"], rel=1e-4)
        assert run.data.tags["vae_sweep.features.why"].startswith("skipped")
        lines[cell] = linear | {key: value for key, value in m.items() if key.startswith("reference/")}
    assert lines["fc-p1"] == lines["conv-p2"] != lines["conv-p3"]  # p1 and p2 have as many latents


def test_compare_writes_the_report_that_the_sweep_wrote_at_its_end(smoke: Project, copied: Path, command) -> None:
    """Written at its end, and again by the command of its own, from the store alone."""
    page = smoke.artifact(smoke.parent, "report.html").read_text()
    found = json.loads(smoke.artifact(smoke.parent, "statistics.json").read_text())
    (contrast,) = [c for c in found["contrasts"] if c["metric"]["primary"]]
    expected = [
        smoke.children[f"fc-{params}"].data.metrics["test/loss"]
        - smoke.children[f"conv-{params}"].data.metrics["test/loss"]
        for params in ("p1", "p2", "p3")
    ]
    assert [d["mean"] for d in contrast["sets"]] == pytest.approx(expected)
    assert contrast["mean"] == pytest.approx(np.mean(expected))
    assert contrast["verdict"] == "inconclusive"
    assert "so neither model can be called better at this number of seeds" in page
    said = " ".join(smoke.output.split())  # its lines end where the terminal does
    brief = f"On shapes, conv against fc is inconclusive in test loss: fc - conv = {contrast['mean']:+.2f} nats/image, "
    assert f"{brief}3 pairs, p = {contrast['p']:.2g}. 3 pairs cannot give a p below 0.25. " in said
    assert f"{smoke.parent.info.artifact_uri}/report.html" in smoke.output
    assert smoke.artifact(smoke.parent, "comparison.tex").read_text().count("\\begin{tabular}") == 1
    short = smoke.parent.info.run_id[:8]
    done = command(f"sweep={short}", "out=outputs/compared/here", cwd=copied, module="vae_sweep.compare")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == contrast["sentence"]
    again = copied / "outputs" / "compared" / "here"
    assert json.loads((again / "statistics.json").read_text()) == found
    assert (again / "report.html").read_text() == page


def test_the_dataset_is_an_input_of_every_run_with_its_digest(smoke: Project) -> None:
    digests = set()
    for run in smoke.children.values():
        (dataset_input,) = run.inputs.dataset_inputs
        assert dataset_input.dataset.name == "shapes"
        assert json.loads(dataset_input.dataset.profile)["train"] == 360
        digests.add(dataset_input.dataset.digest)
        assert run.data.params["dataset.digest"].startswith(dataset_input.dataset.digest)
    assert len(digests) == 1


def test_tags_say_what_ran_where(smoke: Project) -> None:
    tags = smoke.children["fc-p1"].data.tags
    assert tags["vae_sweep.device"] in ("cpu", "cuda", "mps")
    assert tags["version.torch"] == torch.__version__
    assert {"version.mlflow", "version.vae_sweep", "vae_sweep.host", "version.python"} <= set(tags)
    inside = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if inside.returncode == 0:
        assert tags["mlflow.source.git.commit"] == inside.stdout.strip()


def test_a_run_has_its_figures_configuration_and_samples(smoke: Project) -> None:
    for run in smoke.children.values():
        figures = {f.path for f in smoke.client.list_artifacts(run.info.run_id, "figures")}
        assert figures == {f"figures/{name}.png" for name in PICTURES}
        config = yaml.safe_load(smoke.artifact(run, "config.yaml").read_text())
        assert config["params"]["name"] == run.data.params["params.name"]
        samples = np.load(smoke.artifact(run, "samples.npy"))
        assert (samples.shape, samples.dtype) == ((64, 3, 24, 24), np.uint8)
        pairs = np.load(smoke.artifact(run, "reconstructions.npy"))
        assert (pairs.shape, pairs.dtype) == ((16, 2, 3, 24, 24), np.uint8)
    linear = [np.load(smoke.artifact(smoke.children[name], "reference_samples.npy")) for name in ("fc-p1", "conv-p1")]
    assert (linear[0].shape, linear[0].dtype) == ((16, 3, 24, 24), np.uint8)
    assert (linear[0] == linear[1]).all()  # the same model, whatever the run's own is
    assert linear[0].std(axis=0).mean() > 5  # of 255: its samples differ
    run = smoke.children["conv-p3"]
    pairs, ours = (np.load(smoke.artifact(run, f"{name}reconstructions.npy")) for name in ("", "reference_"))
    errors = ((pairs[:, 0] / 255.0 - ours / 255.0) ** 2).sum((1, 2, 3))
    assert errors.mean() < run.data.metrics["reference/test_recon"] * 1.5  # its own images, and no noise on the latents


def test_a_checkpoint_holds_the_weights_that_were_evaluated(smoke: Project) -> None:
    run = smoke.children["conv-p3"]
    model, content = checkpoint.load(smoke.artifact(run, "checkpoint.pt"))
    dataset = datasets.load(datasets.create(content["config"]["dataset"]), smoke.root / "data" / "cache")
    found = evaluate(model, torch.from_numpy(dataset.test.images))
    assert found.loss == pytest.approx(run.data.metrics["test/loss"], rel=1e-6)
    assert content["facts"]["name"] == "conv-p3"


def test_the_parent_run_holds_the_comparison(smoke: Project) -> None:
    paths = {f.path for f in smoke.client.list_artifacts(smoke.parent.info.run_id)}
    assert {"comparison.csv", "comparison.json", "comparison.md", "comparison_table.json", "figures"} <= paths
    pictures = {f.path for f in smoke.client.list_artifacts(smoke.parent.info.run_id, "figures")}
    assert pictures == {"figures/validation_loss.png", "figures/samples.png"}
    rows = list(csv.DictReader(io.StringIO(smoke.artifact(smoke.parent, "comparison.csv").read_text())))
    cells = {row["name"]: row for row in rows if row["status"] == "FINISHED"}
    assert sorted(cells) == sorted(GRID)
    for name, row in cells.items():
        run = smoke.children[name]
        assert float(row["test_loss"]) == pytest.approx(run.data.metrics["test/loss"])
        assert float(row["distance_to_linear"]) == pytest.approx(run.data.metrics["distance_to_linear"])
        assert row["run_id"] == run.info.run_id
    (line,) = [row for row in rows if row["status"] == "REFERENCE"]
    assert float(line["test_loss"]) == pytest.approx(smoke.children["fc-p1"].data.metrics["reference/test_loss"])
    table = json.loads(smoke.artifact(smoke.parent, "comparison_table.json").read_text())
    assert len(table["data"]) == 7
    description = smoke.parent.data.tags["mlflow.note.content"]
    assert description.startswith("**Not converged: 6 of 6 runs")
    assert "explore.html" in description.partition("### Comparison")[0]
    assert all(run.info.run_id[:8] in description for run in smoke.children.values())
    assert smoke.parent.data.metrics["cells_finished"] == 6


def test_the_table_and_the_way_to_the_ui_are_printed(smoke: Project) -> None:
    for run in smoke.children.values():
        assert run.info.run_id[:8] in smoke.output
        assert f"{run.data.metrics['test/loss']:.2f}" in smoke.output
    assert "nats/image" in smoke.output
    assert smoke.output.splitlines()[-1].endswith(" -m vae_sweep ui")


def test_a_bare_mlflow_ui_finds_the_store(smoke: Project) -> None:
    """MLflow's own default is mlflow.db in the current folder; the write-ahead log lets parallel runs write."""
    connection = sqlite3.connect(smoke.root / "mlflow.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    for run in smoke.children.values():
        assert run.info.artifact_uri is not None
        assert "/mlruns/" in run.info.artifact_uri


def test_everything_stays_in_the_projects_folders(smoke: Project) -> None:
    names = {path.name for path in smoke.root.iterdir()}
    assert {name for name in names if not name.startswith("mlflow.db")} == {"data", "mlruns", "outputs"}
    logs = list(smoke.root.glob("outputs/*/*/vae_sweep.log"))
    assert len(logs) == 6
    assert all("finished: test loss" in log.read_text() for log in logs)


def test_a_run_alone_gives_the_same_numbers(smoke: Project, project: Path, command) -> None:
    """Another process, another launcher, nothing beside it: the same bits."""
    done = command("model=conv", "params=p1", "experiment=smoke", cwd=project)
    assert done.returncode == 0, done.stderr
    (alone,) = read(project)[1]
    ending = done.stdout[done.stdout.index(f"Run {alone.info.run_id}: FINISHED.") :]
    assert f"{alone.info.artifact_uri}/figures\n" in ending
    assert " -m vae_sweep ui\n" in ending
    assert ending.endswith(f" -m vae_sweep.generate run={alone.info.run_id}\n")
    together = smoke.children["conv-p1"]
    assert alone.info.status == "FINISHED"
    assert {k: v for k, v in alone.data.metrics.items() if k not in TIMINGS} == {
        k: v for k, v in together.data.metrics.items() if k not in TIMINGS
    }


def test_generate_from_a_run_and_from_its_checkpoint(smoke: Project, copied: Path, command) -> None:
    run = smoke.children["conv-p1"]
    checkpoint_path = next(copied.glob("outputs/*/*conv-p1*/checkpoint.pt"))
    arrays = []
    for source in (run.info.run_id, str(checkpoint_path)):
        done = command(f"run={source}", "n=9", "seed=0", "array=true", cwd=copied, module="vae_sweep.generate")
        assert done.returncode == 0, done.stderr
        png, array = map(Path, done.stdout.splitlines())
        assert png.read_bytes().startswith(b"\x89PNG")
        arrays.append(np.load(array))
    assert arrays[0].shape == (9, 3, 24, 24)
    assert (arrays[0] == arrays[1]).all()
    for what, shape in {"interpolation": (3, 10, 3, 24, 24), "reconstructions": (3, 2, 3, 24, 24)}.items():
        done = command(
            *(f"run={run.info.run_id}", f"what={what}", "n=3", f"out=pictures/{what}.png", "array=true"),
            cwd=copied,
            module="vae_sweep.generate",
        )
        assert done.returncode == 0, done.stderr
        assert np.load(copied / "pictures" / f"{what}.npy").shape == shape


def test_metrics_that_are_asked_for_later_are_measured_without_training(command, project: Path) -> None:
    """Feature distances asked for later: the same runs, no epoch more, and a report that has them."""
    grid = ("-m", "model=fc,conv", "params=tiny", "experiment=smoke", BASIC)
    grid += ("dataset.permute_pixels=true", "dataset.n_train=100")
    assert command(*grid, cwd=project).returncode == 0
    before = sweep(project, "").children
    asked = ("metrics.features=efficientnet_lite0", "metrics.feature_images=60", "metrics.gmm_components=2")
    done = command(*grid, *asked, "metrics.ssim_images=50", cwd=project)
    assert done.returncode == 0, done.stderr
    found = sweep(project, done.stdout)
    assert {name: run.info.run_id for name, run in before.items()} == {
        name: run.info.run_id for name, run in found.children.items()
    }
    assert "epoch 1" not in done.stdout + done.stderr
    for name, run in found.children.items():
        m, old = run.data.metrics, before[name].data.metrics
        assert {key: m[key] for key in old} == old
        for kind in ("fd", "kd", "precision", "recall", "density", "coverage"):
            assert f"test/{kind}_efficientnet_lite0_96px_60_reconstructions" in m
        assert {"test/ssim", "test/mixture_gain", "test/kd_efficientnet_lite0_96px_60_mixture"} <= set(m)
        key = "fd_efficientnet_lite0_96px_60"
        assert 0 < m[f"test/{key}_floor"] < m[f"test/{key}"]
        linear = json.loads(found.artifact(run, "reference.json").read_text())["metrics"]
        assert linear[key] > linear[f"{key}_floor"] == m[f"test/{key}_floor"]
        assert run.data.tags["vae_sweep.features.sha256"].startswith("57934424")
        assert len(found.client.get_metric_history(run.info.run_id, "test/psnr")) == 1
    contrasts = json.loads(found.artifact(found.parent, "statistics.json").read_text())["contrasts"]
    said = [contrast["sentence"] for contrast in contrasts if contrast["metric"]["primary"]]
    assert [("test loss" in line, "KD of prior samples (60)" in line) for line in said] == [
        (True, False),
        (False, True),
    ]
    begin = "Not converged: 2 of 2 runs (2 reached max_epochs). On shapes (pixels permuted), "
    assert all(line.startswith(begin) for line in said)
    assert [contrast["family"] for contrast in contrasts if contrast["metric"]["primary"]] == [2, 2]
    for name, content in (("comparison.csv", "test/kd_efficientnet_lite0_96px_60"), ("report.html", "KD of prior")):
        assert content in found.artifact(found.parent, name).read_text()


def test_an_averaged_error_collapses_every_latent(collapsed: tuple[Path, str]) -> None:
    """The seed's story: the loss implies a variance above every eigenvalue, so no latent pays for itself."""
    root, output = collapsed
    assert "posterior collapse predicted" in output
    for run in sweep(root, output).children.values():
        assert run.data.metrics["implied_variance"] == 3 * 24 * 24 / 2
        assert "posterior collapse predicted" in run.data.tags["vae_sweep.warning"]
        assert run.data.metrics["reference/active"] == 0
        assert run.data.metrics["test/active_units"] == 0
        assert run.data.metrics["test/kl"] < 0.01


def test_a_failed_cell_is_named_and_the_others_finish(command, project: Path) -> None:
    done = command("-m", "params=tiny", "model=fc", "params.lr=1e9,1e-3", "experiment=smoke", BASIC, cwd=project)
    assert done.returncode == 1
    found = sweep(project, done.stdout)
    statuses = {name: run.info.status for name, run in found.children.items()}
    assert statuses == {"fc-tiny-lr=1000000000.0": "FAILED", "fc-tiny-lr=0.001": "FINISHED"}
    assert found.parent.info.status == "FAILED"
    failed = found.children["fc-tiny-lr=1000000000.0"]
    assert re.match(r"the training loss became \S+ in epoch 1 at step \d+", failed.data.tags["vae_sweep.error"])
    assert "Traceback" in found.artifact(failed, "error.txt").read_text()
    assert failed.data.tags["vae_sweep.error"][:40] in found.parent.data.tags["mlflow.note.content"]
    assert done.stderr.rstrip().splitlines()[-1].startswith("vae_sweep: fc-tiny-lr=1000000000.0: the training loss")
    assert "Traceback" not in done.stderr


def test_a_named_sweep_finishes_without_the_cell_that_is_asked_for_no_more(command, project: Path) -> None:
    """Its failed run stays in the table; and a parent that a killed process left RUNNING is closed by the next one."""
    named = ("-m", "model=fc", "params=tiny", "experiment=smoke", "sweep.name=mine", BASIC)
    failed = command(*named, "params.lr=1e9", cwd=project)
    assert failed.returncode == 1
    done = command(*named, "params.lr=1e-3", cwd=project)
    assert done.returncode == 0, done.stderr
    found = sweep(project, done.stdout)
    assert found.parent.info.status == "FINISHED"
    assert sorted(run.info.status for run in read(project)[1][1:]) == ["FAILED", "FINISHED"]  # one has the other's name
    found.client.update_run(found.parent.info.run_id, status="RUNNING")  # as after kill -9
    again = command(*named, "params.lr=1e-3", "resume=false", cwd=project)
    assert again.returncode == 0, again.stderr
    assert found.client.get_run(found.parent.info.run_id).info.status == "KILLED"
    assert sweep(project, again.stdout).parent.info.status == "FINISHED"


OWN_MODEL = """
from torch import nn
from vae_sweep.models import VAE, Posterior

class MyVAE(VAE):
    def __init__(self, image_shape, latent_dim, width):
        super().__init__(image_shape, latent_dim)
        c, h, w = image_shape
        layers = nn.Linear(c * h * w, width), nn.Tanh(), nn.Linear(width, 2 * latent_dim)
        self.encoder = nn.Sequential(nn.Flatten(), *layers)
        self.decoder = nn.Sequential(nn.Linear(latent_dim, c * h * w), nn.Sigmoid(), nn.Unflatten(1, image_shape))

    def encode(self, x):
        return Posterior(*self.encoder(x).chunk(2, dim=1))

    def decode(self, z):
        return self.decoder(z)
"""


def test_a_users_own_architecture_and_parameter_set(command, project: Path) -> None:
    """One file and one YAML, as the README says; nothing in the package knows them."""
    (project / "my_vae.py").write_text(OWN_MODEL)
    for group, name, text in (
        ("model", "mine", "_target_: my_vae.MyVAE\nname: mine\nwidth: 24\n"),
        ("params", "p9", "name: p9\nbatch_size: 50\nlr: 0.002\nlatent_dim: 6\n"),
    ):
        (project / "my_conf" / group).mkdir(parents=True)
        (project / "my_conf" / group / f"{name}.yaml").write_text(text)
    grid = ["--config-dir", "my_conf", "-m", "model=linear,mine", "params=p9", "experiment=smoke", BASIC]
    done = command(*grid, cwd=project)
    assert done.returncode == 0, done.stdout + done.stderr
    children = sweep(project, done.stdout).children
    assert set(children) == {"linear-p9", "mine-p9"}
    assert children["mine-p9"].data.params["model.width"] == "24"
    assert children["mine-p9"].data.params["n_parameters"] == str(1729 * 24 + 25 * 12 + 7 * 1728)
    typo = command(*grid, "model.widht=3", cwd=project)
    assert typo.returncode == 1
    assert "widht" in typo.stderr


def test_runs_that_differ_in_another_swept_key_have_rows_of_their_own(command, project: Path) -> None:
    done = command("-m", "model=linear", "params=tiny", "objective.beta=0.5,2", "experiment=smoke", BASIC, cwd=project)
    assert done.returncode == 0, done.stderr
    found = sweep(project, done.stdout)
    assert set(found.children) == {"linear-tiny-beta=0.5", "linear-tiny-beta=2"}
    rows = json.loads(found.artifact(found.parent, "comparison.json").read_text())
    assert [row["variant"] for row in rows if row["status"] == "FINISHED"] == ["beta=0.5", "beta=2"]
    assert len([row for row in rows if row["status"] == "REFERENCE"]) == 2  # one for each beta


@pytest.mark.slow
def test_the_wheel_carries_the_configuration(real_command, tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)], check=True)
    elsewhere.mkdir()
    done = real_command("--cfg", "job", "model=fc", "params=p3", cwd=elsewhere, PYTHONPATH=str(installed))
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["params"]["latent_dim"] == 256
    where = real_command("--info", "searchpath", cwd=elsewhere, PYTHONPATH=str(installed))
    assert str(installed / "vae_sweep" / "conf") in where.stdout
