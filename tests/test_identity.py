"""What is the same run, and what is not: one table, from which identity, tables and pairs follow."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import vae_sweep
from vae_sweep.base.errors import UserError
from vae_sweep.base.sources import own_sources
from vae_sweep.cli import config_dir
from vae_sweep.comparison import identity
from vae_sweep.comparison.identity import Decides, decides
from vae_sweep.config import schema
from vae_sweep.config.settings import settings_of
from vae_sweep.config.validation import validate
from vae_sweep.report.collect import BASELINES
from vae_sweep.sweeps import environment

BASE = {"seed": 0, "params": {"lr": 0.1}, "paths": {"root": "/a", "data": "/a/data"}, "resume": True}


def key(changes: dict | None = None, digest: str = "d", sources: dict[str, str] | None = None) -> str:
    cfg = OmegaConf.merge(BASE, changes or {})
    assert OmegaConf.is_dict(cfg)
    return identity.run_key(settings_of(cfg), identity.parts(digest, sources or {}))


def composed(*overrides: str) -> dict:
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("config", ["paths.root=/a", *overrides])
    return identity.flatten(OmegaConf.to_container(cfg, resolve=False))


def test_every_key_of_the_configuration_is_classified() -> None:
    keys = {k for data in ("cifar10", "celeba", "folder", "shapes") for k in composed(f"dataset={data}")}
    found: dict[Decides, set[str]] = {kind: {k for k in keys if decides(k) is kind} for kind in Decides}
    assert found[Decides.PLACE] == {
        *("dataset.path", "dataset.root", "dataset.download", "fail_fast", "metrics.inception_weights"),
        *("model.baseline", "progress", "register"),
        *("paths.data", "paths.root", "resume", "sweep.name"),
        *("tracking.experiment", "tracking.images", "tracking.retry_seconds", "tracking.uri"),
    }
    assert found[Decides.SHOWN] == {"evaluation.n_samples", "evaluation.n_interpolations"}
    assert found[Decides.MEASURED] == {k for k in keys if k.startswith("metrics.")} - {"metrics.inception_weights"}
    assert {"seed", "model.name", "params.lr", "evaluation.noise_draws"} < found[Decides.TRAINED]
    assert all(key in keys for key in identity.TABLE if "." in key)  # no entry for a key that does not exist


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": {"root": "/b", "data": "/b/data"}},
        {"resume": False},
        {"metrics": {"features": "none"}},
        {"evaluation": {"n_samples": 32}},
        {"dataset": {"path": "elsewhere"}},
        {"model": {"baseline": "fc"}},
        *({section: {name: value}} for section, name, value in
          [(*k.split("."), v) for k, v in identity.LATER.items() if "." in k]),
    ],
    ids=str,
)  # fmt: skip
def test_a_change_that_trains_the_same_numbers_is_the_same_run(changes: dict) -> None:
    assert key(changes) == key()


def test_a_change_that_trains_other_numbers_is_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        key({"seed": 1}),
        key({"params": {"lr": 0.2}}),
        key({"training": {"a_new_key": 1}}),  # what the table does not know decides
        key(digest="other images"),
        key(sources={"my_vae": "x = 1"}),
        key(sources={"my_vae": "x = 2"}),
    ]
    monkeypatch.setattr(identity, "TRAINING_VERSION", identity.TRAINING_VERSION + 1)
    assert len({key(), *others}) == len(others) + 1


def test_a_file_below_the_project_counts_by_its_relative_path() -> None:
    by_name = {"model": {"weights": "${paths.data}/w.pt"}}
    assert key(by_name) == key(by_name | {"paths": {"root": "/b", "data": "/b/data"}})


def test_a_sweep_is_the_set_of_its_runs_or_its_name() -> None:
    assert identity.sweep_key(["a", "b"], None) == identity.sweep_key(["b", "a"], None)
    assert identity.sweep_key(["a"], None) != identity.sweep_key(["a", "b"], None)
    assert identity.sweep_key(["a"], "mine") == identity.sweep_key(["b"], "mine") != identity.sweep_key(["a"], None)


def test_what_changed_between_two_runs_is_named() -> None:
    before, now = identity.parts("d", {"my_vae": "1"}), identity.parts("e", {"my_vae": "2"})
    assert identity.changed(before, now) == "my_vae.py and the images"
    assert identity.changed(before, before) == ""
    splits = identity.parts("d", {"my_vae": "1"}, "a"), identity.parts("d", {"my_vae": "1"}, "b")
    assert identity.changed(*splits) == identity.SPLITS
    assert identity.changed(before, splits[0]) == ""  # of data that an earlier version prepared nothing is known


def test_what_a_run_is_made_of_is_stored_whole_however_many_modules_it_has() -> None:
    few, many = ({f"my_package.module_{i:03d}": str(i) for i in range(n)} for n in (2, 300))
    for sources in (few, many):
        made_of = identity.parts("d" * 64, sources, "a")
        text = identity.in_short(made_of, 8000)
        assert len(text) <= 8000
        assert {identity.IMAGES, identity.SPLITS, identity.TRAINING_CODE} < set(identity.made_of_text(text))
    assert identity.made_of_text(identity.in_short(identity.parts("d", few), 8000)) == identity.parts("d", few)
    edited = identity.in_short(identity.parts("d" * 64, many | {"my_package.module_007": "8"}, "a"), 8000)
    assert identity.changed(identity.made_of_text(edited), identity.made_of_text(text)) == "300 modules.py"
    assert identity.made_of_text(text[:100]) == {}  # cut, as by earlier versions


def test_the_hash_of_the_training_code_sees_an_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(vae_sweep.__file__).parent
    for room in ("models", "training"):
        shutil.copytree(package / room, tmp_path / room)
    found = identity.training_code.__wrapped__()
    monkeypatch.setattr(identity, "__file__", str(tmp_path / "comparison" / "identity.py"))
    assert identity.training_code.__wrapped__() == found
    with (tmp_path / "training" / "loop.py").open("a", encoding="utf-8") as file:
        file.write("x = 1\n")
    assert identity.training_code.__wrapped__() != found


@pytest.mark.parametrize("name", schema.SCHEMAS["model"])
def test_a_shipped_model_names_its_baseline_in_its_yaml(name: str) -> None:
    """In its schema, too; and runs that were recorded before it did are compared as they were then."""
    node = composed(f"model={name}", "dataset=shapes")
    text = (config_dir() / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"\nbaseline: {node['model.baseline']} " in text
    assert node["model.baseline"] == schema.SCHEMAS["model"][name]().baseline
    assert BASELINES.get(name, node["model.baseline"]) == node["model.baseline"]  # later models' runs say it themselves


@pytest.mark.parametrize(("baseline", "allowed"), [("mine", True), ("null", True), ("'a b'", False), ("'../x'", False)])
def test_a_baseline_is_the_name_of_a_model(baseline: str, allowed: bool) -> None:
    schema.register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("config", ["paths.root=/a", f"model.baseline={baseline}"])
    with (
        nullcontext()
        if allowed
        else pytest.raises(UserError, match=r"^model\.baseline=.*: must be the name of a model")
    ):
        validate(cfg)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def write(folder: Path, modules: dict[str, str]) -> None:
    for name, text in modules.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def test_a_users_sources_are_the_module_and_its_local_imports(folder: Path) -> None:
    write(
        folder,
        {
            "own_vae": "import json, torch\nimport own_layers\nfrom own_package.deep import thing  # why\n",
            "own_layers": "x = 1\n",
            "own_unused": "y = 1\n",
            "own_package/deep": "from . import near\n",
            "own_package/near": "import own_vae\n",  # a circle ends
            "own_package/__init__": "",
        },
    )
    found = own_sources({"_target_": "own_vae.Mine"}, {"_target_": "vae_sweep.datasets.shapes.Shapes"})
    assert set(found) == {"own_vae", "own_layers", "own_package", "own_package.deep", "own_package.near"}
    write(folder, {"own_layers": "# a comment\nx    = 1\n"})
    assert own_sources({"_target_": "own_vae.Mine"}) == found
    write(folder, {"own_layers": "x = 2\n"})
    assert own_sources({"_target_": "own_vae.Mine"}) != found


def test_the_sources_of_an_installed_package_are_its_own_modules() -> None:
    assert {"filelock"} < set(own_sources({"_target_": "filelock.FileLock"}))
    assert all(name.startswith("filelock") for name in own_sources({"_target_": "filelock.FileLock"}))
    assert own_sources({"_target_": "vae_sweep.models.fc.FCVAE"}) == {}


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_what_an_installed_package_imports_is_not_its_source(name: str, folder: Path, monkeypatch) -> None:
    """Also one that a user installed for himself, or the system: beside it are PyTorch and others."""
    (folder / name).mkdir()
    monkeypatch.syspath_prepend(folder / name)
    write(folder / name, {"theirs/__init__": "from theirs import deep\n", "theirs/deep": "import big\n", "big": ""})
    assert set(own_sources({"_target_": "theirs.Model"})) == {"theirs", "theirs.deep"}


def test_the_commit_of_somebody_elses_repository_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout is known by its commit; an environment inside of another repository is not."""
    package = tmp_path / ".venv" / "vae_sweep"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (tmp_path / "theirs.txt").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "theirs.txt"], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(vae_sweep, "__file__", str(package / "__init__.py"))
    assert "mlflow.source.git.commit" not in environment.environment.__wrapped__()
    for command in (["add", "-f", ".venv"], ["commit", "-qm", "now it is ours"]):
        subprocess.run([*git, *command], check=True)
    assert len(environment.environment.__wrapped__()["mlflow.source.git.commit"]) == 40
