"""Terminals, locales, users and launchers as they are elsewhere: a command works there too, or says what it lacks."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import bad_files as bad
import vae_sweep
from running import BASIC, clean_environment, statuses

SMALL = (
    *("experiment=smoke", "params=tiny", "model=linear", "training.max_epochs=1", "dataset.n_train=100"),
    *("evaluation.n_samples=2", "evaluation.n_interpolations=1", BASIC),
)
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def metrics(root: Path) -> set[str]:
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return {key for (key,) in connection.execute("SELECT DISTINCT key FROM latest_metrics")}


def test_a_sweep_works_in_an_ascii_locale(real_command, project: Path) -> None:
    warn = {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONWARNINGS": "default::EncodingWarning"}
    done = real_command("-m", *SMALL, cwd=project, **ASCII, **warn)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"test/psnr", "test/iwae"} <= {key.partition("_")[0] for key in metrics(project)}
    package = str(Path(vae_sweep.__file__).parent)
    assert not [line for line in done.stderr.splitlines() if package in line], done.stderr


@pytest.mark.slow
def test_an_ascii_terminal_shows_escapes_and_files_hold_the_letters(real_command, project: Path) -> None:
    small = (*SMALL, 'dataset.name="Übung"', 'model.name="模型"')
    done = real_command("-m", *small, cwd=project, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(project)["模型-tiny"] == "FINISHED"
    assert r"\xdcbung" in done.stdout
    (log,) = (project / "outputs").rglob("vae_sweep.log")
    assert "模型-tiny: " in log.read_text(encoding="utf-8")
    assert "Übung" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(("module", "typed"), [("vae_sweep", "dataset.name=Übung"), ("vae_sweep.generate", "run=Ü.pt")])
def test_a_name_that_the_locale_cannot_hold_is_refused(module: str, typed: str, real_command, tmp_path: Path) -> None:
    done = real_command(typed, cwd=tmp_path, module=module, **ASCII)
    assert done.returncode == 1
    shown = typed.replace("Ü", r"\xdc")
    assert re.fullmatch(rf"vae_sweep: {re.escape(shown)}: .*\(ascii\).* set PYTHONUTF8=1\n", done.stderr)


def test_every_text_file_and_pipe_is_opened_with_an_encoding() -> None:
    silent = []
    for file in Path(vae_sweep.__file__).parent.rglob("*.py"):
        for call in (
            node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
        ):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            said = {keyword.arg: keyword.value for keyword in call.keywords}
            function = name == "fdopen" or isinstance(call.func, ast.Name)  # its mode stands second
            given = [*call.args[function:], said.get("mode")]
            mode = "".join(str(arg.value) for arg in given if isinstance(arg, ast.Constant))
            opens = name in ("open", "fdopen") and (function or not call.args or set("rwa") & set(mode))
            text = name in ("read_text", "write_text") or opens
            positional = name == "read_text" and call.args
            if "text" in said or (text and "b" not in mode and "encoding" not in said and not positional):
                silent.append(f"{file.name}:{call.lineno}")
    assert silent == []


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv"
)
def test_a_user_without_a_name_or_home_can_sweep(project: Path, tmp_path: Path) -> None:
    """As in a container: no entry in passwd, no HOME. The capability lets this user reach the interpreter."""
    for path in (project / "mlflow.db", project, tmp_path, *tmp_path.parents[:2]):
        path.chmod(0o777)
    reach = "+dac_override,+dac_read_search"
    done = subprocess.run(
        [
            *("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups"),
            *(f"--inh-caps={reach}", f"--ambient-caps={reach}", sys.executable, "-m", "vae_sweep", "-m"),
            *SMALL,
        ],
        cwd=project,
        env={k: v for k, v in clean_environment().items() if k not in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME")},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(statuses(project).values()) == {"FINISHED"}


def test_importing_does_not_change_matplotlibs_backend() -> None:
    code = (
        "import io, os, sys, numpy, matplotlib\n"
        "from vae_sweep import cli, compare, generate\n"
        "from vae_sweep.report import page, run_figures, sweep_figures\n"
        "from vae_sweep.sweeps import run\n"
        "run_figures.samples(numpy.zeros((2, 3, 8, 8), 'uint8'), 'title').savefig(io.BytesIO())\n"
        "print(os.environ['MPLBACKEND'], dict.__getitem__(matplotlib.rcParams, 'backend'))\n"
    )
    environment = clean_environment() | {"MPLBACKEND": "module://nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.stdout == "module://nowhere module://nowhere\n", done.stderr


def test_training_does_not_import_pytorchs_compiler() -> None:
    """It takes a second and 150 MB of every process."""
    code = (
        "import sys, torch\n"
        "from omegaconf import OmegaConf\n"
        "from vae_sweep.sweeps.preparation import check_model\n"
        "from vae_sweep.models import create\n"
        "from vae_sweep.training.loop import TrainSettings, fit\n"
        "conv = {'_target_': 'vae_sweep.models.conv.ConvVAE', 'name': 'conv', 'channels': [8]}\n"
        "cfg = OmegaConf.create({'model': conv, 'params': {'latent_dim': 4, 'batch_size': 8}})\n"
        "assert check_model(cfg, (3, 16, 16)) > 0\n"
        "model, images = create(conv, (3, 16, 16), 4), torch.zeros(20, 3, 16, 16, dtype=torch.uint8)\n"
        "settings = TrainSettings(8, 1e-3, 0, 1, 1, 0.5, schedule='one_cycle', clip_grad_norm=1.0)\n"
        "print(len(list(fit(model, images, images, settings))), 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert done.stdout == "1 False\n", done.stderr


def test_a_command_draws_whatever_matplotlib_backend_is_set(real_command, tmp_path: Path) -> None:
    bad.saved()(tmp_path)
    done = real_command("run=checkpoint.pt", "n=2", cwd=tmp_path, module="vae_sweep.generate", MPLBACKEND="nonsense")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("launcher", "extra"),
    [("ray_local", "ray"), ("ray_cluster", "ray"), ("ray", "ray"), ("slurm", "slurm"), ("submitit_local", "slurm")],
)
def test_a_launcher_that_is_not_installed_says_what_to_install(
    launcher: str, extra: str, real_command, tmp_path: Path
) -> None:
    """Of Hydra's plugins only the one that is always installed is left to be found."""
    import hydra_plugins.hydra_joblib_launcher as joblib_launcher

    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "hydra_joblib_launcher").symlink_to(Path(joblib_launcher.__file__).parent)
    hide = f"import hydra_plugins\nhydra_plugins.__path__ = [{str(tmp_path / 'plugins')!r}]\n"
    (tmp_path / "sitecustomize.py").write_text(hide, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = real_command("-m", "experiment=smoke", f"hydra/launcher={launcher}", cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 1
    said = rf"vae_sweep: hydra/launcher={launcher}: .*pip install 'vae-sweep\[{extra}\]'.*\n"
    assert re.fullmatch(said, done.stderr)


def test_a_current_folder_that_was_deleted_is_refused(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f'cd {gone} && rmdir {gone} && exec {sys.executable} -c "from vae_sweep.cli import main; main()"'
    done = subprocess.run(
        ["bash", "-c", line], env=clean_environment(), capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("vae_sweep: the current folder no longer exists")
    assert done.stderr.count("\n") == 1
