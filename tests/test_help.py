"""What --help and --version say: every setting with its meaning, from the comments of the schema and the YAML files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import vae_sweep
from running import BASIC, statuses
from vae_sweep.config.help import COMMANDS
from vae_sweep.config.keys import GROUPS, keys
from vae_sweep.config.schema import SCHEMAS


def test_help_explains_every_setting(command: Callable, tmp_path: Path) -> None:
    done = command("--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "schema" not in done.stdout
    said = dict(re.findall(r"^  ([\w.]+)=\S*\s+(\S.*)$", done.stdout, re.MULTILINE))
    assert {key for key in keys() if not key.endswith("._target_")} - {*GROUPS} == said.keys()
    sections = [part.partition(": settings")[0] for part in done.stdout.split("\n\n") if ": settings" in part]
    assert sections[:6] == ["model", "params", "dataset", "training", "objective", "metrics"]
    for group, choices in SCHEMAS.items():
        part = done.stdout.partition(f"\n{group}= one of\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines() if line[2] != " "] == sorted(choices)
    assert re.search(r"^  few  +At most ", done.stdout, re.MULTILINE)
    assert re.search(r"^  slurm  +Slurm, one job per run", done.stdout, re.MULTILINE)
    for name in COMMANDS:
        assert re.search(rf"^  python -m vae_sweep.{name}  +[A-Z]", done.stdout, re.MULTILINE)


def test_help_shows_the_values_of_its_command_and_choices_of_ones_own(command: Callable, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "params").mkdir(parents=True)
    mine = "# Tried on Monday. It failed.\nname: mine\nbatch_size: 77\nlr: 0.1\nlatent_dim: 3\n"
    (tmp_path / "my_conf" / "params" / "mine.yaml").write_text(mine, encoding="utf-8")
    typed = ("sweep", "--config-dir", "my_conf", "params=mine", "model=fc", "objective.beta=2", "--help")
    done = command(*typed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in (
        "  mine                          Tried on Monday\n",
        "  objective.beta=2.0 ",
        "  params.batch_size=77 ",
    ):
        assert line in done.stdout
    assert "model.hidden_dims=[512,256] " in done.stdout
    assert "(model=fc, fc_skip)" in done.stdout


@pytest.mark.parametrize("typed", [("--version",), ("sweep", "--version")])
def test_version_names_what_numbers_depend_on(typed: tuple[str, ...], command: Callable, tmp_path: Path) -> None:
    others = f"PyTorch {version('torch')}, MLflow {version('mlflow')}, Hydra {version('hydra-core')}"
    done = command(*typed, cwd=tmp_path)
    assert done.stdout == f"vae_sweep {vae_sweep.__version__} ({others})\n"


def test_help_imports_nothing_that_takes_its_time(tmp_path: Path) -> None:
    code = "import sys; from vae_sweep.cli import main; sys.argv = ['vae_sweep', '--help']\n"
    code += "try:\n    main()\nfinally:\n    assert not {'numpy', 'torch', 'mlflow', 'pandas'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert "params= one of" in done.stdout


def test_hydras_own_help_stays(command: Callable, tmp_path: Path) -> None:
    assert "Hydra (" in command("--hydra-help", cwd=tmp_path).stdout
    printed = command("--cfg", "job", "params=p2", cwd=tmp_path).stdout
    assert OmegaConf.create(printed).params.batch_size == 128


def test_an_experiment_of_ones_own_is_chosen_by_its_name(command: Callable, project: Path) -> None:
    folder = project / "my_conf" / "experiment"
    folder.mkdir(parents=True)
    settings = "training:\n  max_epochs: 1\n"
    defaults = "defaults:\n  - smoke\n  - override /model: linear\n  - override /params: tiny\n"
    own = f"# @package _global_\n{defaults}{settings}"
    (folder / "my.yaml").write_text(own, encoding="utf-8")
    (folder / "bare.yaml").write_text(settings, encoding="utf-8")
    chosen = ("--config-dir", "my_conf", "experiment=my")
    config = OmegaConf.create(command(*chosen, "params.lr=0.5", "--cfg", "job", cwd=project).stdout)
    found = (config.model.name, config.params.name, config.params.lr, config.training.max_epochs, config.dataset.name)
    assert found == ("linear", "tiny", 0.5, 1, "shapes")
    done = command("-m", "--config-dir", "my_conf", "+experiment=my", "++seed=0,1", BASIC, cwd=project)
    assert done.returncode == 0, done.stderr
    assert "linear +" in done.stdout
    assert {"linear-tiny-s0", "linear-tiny-s1"} < set(statuses(project))  # plus signs change nothing
    refused = command("--config-dir", "my_conf", "experiment=bare", cwd=project)
    assert refused.returncode == 1
    assert re.fullmatch(r"vae_sweep: experiment/bare\.yaml: .*`# @package _global_`.*\n", refused.stderr)


def test_a_sweeper_that_is_not_offered_is_answered_with_what_works(command: Callable, tmp_path: Path) -> None:
    refused = command("-m", "hydra/sweeper=optuna", "model=fc,conv", cwd=tmp_path)
    assert refused.returncode == 1
    assert re.fullmatch(r"vae_sweep: hydra/sweeper=optuna: .*Optuna 2.* params\.lr=1e-3,5e-4\n", refused.stderr)
