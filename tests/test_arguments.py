"""What is typed: habits of other tools are understood, or answered with a command that bash and Hydra read."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from bad_files import good_png, pictures
from bad_inputs import HABITS, TABLE
from running import BASIC, clean_environment, statuses
from vae_sweep.base.errors import UserError
from vae_sweep.cli import config_dir
from vae_sweep.config.arguments import check_arguments
from vae_sweep.config.keys import GROUPS
from vae_sweep.config.messages import user_message

MINE = "it's (mine), 2024=new"


@pytest.mark.parametrize("case", HABITS)
def test_a_habit_from_another_tool_ends_in_one_clear_line(case: str, command, tmp_path: Path) -> None:
    TABLE[case].run(command, tmp_path)


def suggestion(typed: list[str]) -> list[str]:
    """The words of the command that a refusal of ``typed`` shows, as bash reads them."""
    with pytest.raises(UserError) as refusal:
        check_arguments(typed)
    shown = user_message(refusal.value)
    assert shown is not None
    assert "\n" not in shown
    line = re.sub(r"^[^ ]*python -m vae_sweep|^[^ ]+", r"printf %s\\\\0", shown.rpartition("; write: ")[2], count=1)
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("ab.=,:;-+~!/\\'\"()[]{}$ 0é\n") | st.sampled_from("model seed"), max_size=8),
        max_size=4,
    )
)
@example(["seed=range(a)"])
@example(["seed=range(1,2,0)"])
@example(["+="])
@example([f"seed={'[' * 400}"])
@example(["training.threads=½"])
def test_whatever_is_typed_is_read_or_refused_in_one_line(typed: list[str]) -> None:
    try:
        check_arguments([word for word in typed if not word.startswith("--v")])  # --version prints it
    except Exception as error:
        shown = user_message(error)
        assert shown is not None
        assert "\n" not in shown


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12))
@example(MINE)
@example('a b\'s "c"')
@example("~/Übung (1)")
@example("back\\")
@example("'\\")
@example("tab\tand\nline")
@example("$HOME `x` !y {z")
@example("${x")
@example("a{b,c}#d%e&f;g|h<i>")
def test_a_refused_text_is_shown_in_quotes_that_bash_and_hydra_read(text: str) -> None:
    typed = f"dataset.path={text}"
    try:
        check_arguments([typed])
    except UserError:
        assume(not text.startswith("=") and not re.search(r"\$\{[^{}]*\}", text))
        (word,) = suggestion([typed])
        assert check_arguments([word]) == [word]
        value = OverridesParser.create().parse_override(word).value()
        assert OmegaConf.create({"path": value}).path == text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--model=fc --params p1", "model=fc params=p1"),
        ("-model fc", "model=fc"),
        ("--lr 0.1 -m", "params.lr=0.1 -m"),
        ("--resume", "resume=true"),
        ("--sweep.name x", "sweep.name=x"),
        ("--no-resume model=fc", "resume=false model=fc"),
        ("--experiment smoke", "experiment=smoke"),
        ("--multirun model=fc, conv params=p1 ,p2", "--multirun model=fc,conv params=p1,p2"),
        ("model=fc, conv", "-m model=fc,conv"),
        ("model = fc", "model=fc"),
        ("model= fc seed=1", "model=fc seed=1"),
        ("model fc", "model=fc"),
        ("model:fc", "model=fc"),
        ("model==fc", "model=fc"),
        ("model=fc;conv", "-m model=fc,conv"),
        ("model=[fc,conv]", "-m model=fc,conv"),
        ("model.hidden_dims=[64, 32]", "model.hidden_dims=[64,32]"),
        ("model.hidden_dims=(64,32)", "model.hidden_dims=[64,32]"),
        ("params.lr=1e-3;1e-4", "-m params.lr=1e-3,1e-4"),
        ("seed=0..4", "-m seed=range(0,5)"),
        ("-m seed=0-4", "-m seed=range(0,5)"),
    ],
)
def test_a_habit_is_shown_as_the_command_that_was_meant(typed: str, meant: str) -> None:
    assert suggestion(typed.split(" ")) == meant.split(" ")
    assert check_arguments(meant.split(" ")) == sorted(meant.split(" "), key=lambda word: not word.startswith("-"))


def test_a_value_with_spaces_that_the_shell_has_torn_is_put_together() -> None:
    assert suggestion(["dataset.path=my", "pictures"]) == ["dataset.path=my pictures"]


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("+model=fc ++params=p1 +experiment=smoke", "model=fc params=p1 experiment=smoke"),
        ("+hydra/launcher=basic", "hydra/launcher=basic"),
        ("-cn mine +model=fc", "-cn mine +model=fc"),  # another defaults list, which may have no model
        ("+params.foo=1 ~seed ++seed=1", "+params.foo=1 ~seed ++seed=1"),
        ("model=fc -m params=p1,p2 --config-dir conf seed=0", "-m --config-dir conf model=fc params=p1,p2 seed=0"),
        ("dataset.path=2024_01 sweep.name=1e3", 'dataset.path="2024_01" sweep.name="1e3"'),
        ("dataset.path=~/Übung +model.mine=Ü", 'dataset.path="~/Übung" +model.mine="Ü"'),
        ("-m dataset.name=Ä,b seed=0", '-m dataset.name="Ä","b" seed=0'),
        ("dataset.path=2024 tracking.uri=null params.lr=1e-3", "dataset.path=2024 tracking.uri=null params.lr=1e-3"),
        ("--cfg job model=fc", "--cfg job model=fc"),
        ("experiment=[smoke,celeba30] seed=0,1", "experiment=[smoke,celeba30] seed=0,1"),
        (  # the default model has no such key; a cell has
            "-m model=fc,fc_skip model.hidden_dims=[64,32] params.lr=1",
            "-m model=fc,fc_skip model.hidden_dims=choice([64,32]) params.lr=1",
        ),
        ("-m model=fc params=p1,p2 model.hidden_dims=[64]", "-m model=fc params=p1,p2 model.hidden_dims=[64]"),
        ("-m model=fc,conv model.name=x", "-m model=fc,conv model.name=x"),  # all have it
        ("-m dataset=folder,shapes dataset.path='a,b'", "-m dataset=folder,shapes dataset.path=choice('a,b')"),
    ],
)
def test_harmless_habits_are_understood(typed: str, read: str) -> None:
    assert check_arguments(typed.split()) == read.split()


def test_the_groups_are_those_of_the_defaults_list() -> None:
    defaults = OmegaConf.load(config_dir() / "config.yaml").defaults
    named = [key for entry in defaults if not isinstance(entry, str) for key in entry]
    assert [key for key in named if not key.startswith(("override ", "optional "))] == list(GROUPS)


def test_the_suggested_command_works_in_bash(command, project: Path) -> None:
    """The refused command, then the one that it shows, through bash."""
    pictures(good_png(), 40)(project)
    (project / "pictures").rename(project / MINE)
    small = ["model=linear", "params=tiny", "params.batch_size=8", "training.max_epochs=1", BASIC]
    small += ["metrics.features=none", "metrics.gmm_components=0", "evaluation.n_samples=2"]
    small += ["metrics.iwae_samples=0", "metrics.ssim_images=0"]
    done = command("-m", "dataset=folder", f"dataset.path={MINE}", *small, cwd=project)
    assert done.returncode == 1
    shown = done.stderr.rpartition("; write: ")[2]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    again = subprocess.run(
        ["bash", "-c", shown], cwd=project, env=clean_environment() | {"PATH": path}, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(statuses(project).values()) == {"FINISHED"}
