"""Options of the small commands: read by their types, refused in one line, shown by --help."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vae_sweep import compare, generate, relocate
from vae_sweep.base.errors import UserError
from vae_sweep.config.options import option, read_options, usage


@dataclass
class Options:
    """Make something."""

    run: str = option("id of a run")
    n: int = option("images", 64)
    array: bool = option("true: the array, too", False)
    out: str | None = option("a file", None)


def test_values_have_the_types_of_the_schema() -> None:
    assert read_options(Options, ["run=x", "n=3", "array=TRUE", "out=a=b.png"]) == Options("x", 3, True, "a=b.png")
    assert read_options(Options, ["out=null", "n=null", "run=x"]) == Options("x")


@pytest.mark.parametrize("run", ["01234567", "12e45678", "0b1", "true", "a,b"])
def test_a_text_is_taken_as_it_is(run: str) -> None:
    """Some run ids look like numbers."""
    assert read_options(generate.Options, [f"run={run}"]).run == run
    assert read_options(compare.Options, [f"sweep={run}"]).sweep == run


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("run=x m=1", r"^m=1: not an option; write key=value with a key of: run, n, array, out$"),
        ("runn=x", r"^runn=x: not an option; .*; did you mean run\?$"),
        ("--run abc", r"^--run: not an option; .*; write run=abc$"),
        ("--run=abc", r"^--run=abc: not an option; .*; write run=abc$"),
        ("--n", r"^--n: not an option; .*; write n=\.\.\.$"),
        ("run=a, b", r"^b: not an option; .*; write run=a,b, without the space$"),
        ("run=x n=many", r"^n=many: must be a whole number$"),
        ("run=x array=some", r"^array=some: must be true or false$"),
        ("n=3", r"^run= is missing; give the id of a run$"),
        ("run= n=3", r"^run= is missing; give the id of a run$"),
    ],
)
def test_a_wrong_word_is_refused_with_what_was_meant(typed: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_options(Options, typed.split())


def test_help_lists_every_option_with_its_default() -> None:
    lines = usage("generate", Options).splitlines()
    assert lines[0] == "usage: python -m vae_sweep.generate run=... [key=value ...]"
    assert lines[2] == "Make something."
    shown = [line.split(maxsplit=1) for line in lines[4:]]
    assert shown == [
        ["run=...", "id of a run"],
        ["n=64", "images"],
        ["array=false", "true: the array, too"],
        ["out=null", "a file"],
    ]


def test_a_positional_option_needs_no_key() -> None:
    assert read_options(relocate.Options, []).folder == "."
    assert read_options(relocate.Options, ["a folder"]) == read_options(relocate.Options, ["folder=a folder"])
    assert usage("relocate", relocate.Options).startswith("usage: python -m vae_sweep.relocate [folder]\n")
    with pytest.raises(UserError, match=r"^two: not an option|^one: not an option"):
        read_options(relocate.Options, ["one", "two"])


@pytest.mark.parametrize(
    "value",
    [
        "n=0",
        "n=2049",
        "seed=-1",
        f"seed={2**63}",
        "what=movie",
        "out=x.jpg",
        "out=x.gif",
        "columns=0",
        "temperature=-1.0",
    ],
)
def test_generate_refuses_what_types_cannot_express(value: str) -> None:
    with pytest.raises(UserError, match=rf"^{value.replace('.', '[.]').removesuffix('[.]0')}: must "):
        generate.check(read_options(generate.Options, ["run=x", value]))
