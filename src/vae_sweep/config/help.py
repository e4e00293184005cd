"""The text of ``--help`` and ``--version``: what the comments of the schema and of the YAML files say, in order."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import MISSING, DictConfig, OmegaConf

import vae_sweep
from vae_sweep.config import schema
from vae_sweep.config.keys import GROUPS

COMMANDS = ("compare", "doctor", "export", "generate", "relocate", "ui")  # each a module with a main()
WIDTH = 100  # columns
INDENT = 32  # columns of the words on the left
VERSIONS = {"PyTorch": "torch", "MLflow": "mlflow", "Hydra": "hydra-core"}
# As in conf/config.yaml, what is set most often first; all other sections follow.
SECTIONS = ("model", "params", "dataset", "training", "objective", "metrics", "evaluation", "sweep", "tracking")
OPTIONS = {
    "-m, or the word sweep": "several values, as in seed=0,1,2, span a sweep: every combination is a run",
    "--config-dir DIR": "a folder with YAML files of your own, such as DIR/model/mine.yaml",
    "--cfg job": "print the configuration of a run, and run nothing",
    "--version": "print the versions of vae_sweep, PyTorch, MLflow and Hydra",
    "--hydra-help": "options of Hydra, which composes the configuration",
}


def version_text() -> str:
    """Return our version, and those of what numbers and files depend on."""
    others = [f"{name} {version(package)}" for name, package in VERSIONS.items()]
    return f"vae_sweep {vae_sweep.__version__} ({', '.join(others)})"


def help_text(config: DictConfig) -> str:
    """Return the text of ``--help``, with the values of ``config`` as the defaults; at most :data:`WIDTH` columns."""
    # Hydra lists all groups for a help text that has a place for them, which takes a second: this one has none.
    setattr(GlobalHydra.instance().hydra, "format_config_groups", lambda *_: "")  # noqa: B010
    parts = ["\n".join(_line(name, said) for name, said in OPTIONS.items())]
    for group in (*GROUPS, "hydra/launcher"):
        parts.append("\n".join([f"{group}= one of", *_choices(group)]))
    plain: Any = OmegaConf.to_container(config)
    sections = [*SECTIONS, *(key for key, value in plain.items() if isinstance(value, dict) and key != "hydra")]
    for section in dict.fromkeys(sections):
        parts.append("\n".join([f"{section}: settings", *_settings(plain, section)]))
    parts.append("\n".join(["the command itself: settings", *_settings(plain, "")]))
    parts.append("\n".join(["other commands, each with its own --help", *_commands()]))
    return "\n\n".join(parts)


def _line(left: str, right: str) -> str:
    """The two in columns; a long left one stands on a line of its own."""
    right = fill(right, WIDTH, initial_indent=" " * INDENT, subsequent_indent=" " * INDENT, break_on_hyphens=False)
    if not right:
        return f"  {left}"
    return f"  {left:<{INDENT - 2}}{right[INDENT:]}" if len(left) < INDENT - 2 else f"  {left}\n{right}"


def _settings(plain: dict[str, Any], section: str) -> Iterator[str]:
    """A line for each key of a section, or of the top level: its value, its meaning, and which choices have it."""
    group = schema.SCHEMAS.get(section, {})
    top = {f.name: f.default_factory for f in fields(schema.Config)}
    kinds: list[Any] = list(group.values()) or [top.get(section)] if section else [schema.Config]
    known = {f.name: f for kind in filter(None, kinds) for f in fields(kind)}
    said: dict[str, str] = {}
    for kind in reversed(list(filter(None, kinds))):
        said |= {key: s.replace("`", "") for key, s in comments(kind).items() if not s.startswith("as of ")}
    values = {key: f.default_factory() if callable(f.default_factory) else f.default for key, f in known.items()}
    values |= plain[section] if section else plain
    for file in Path(schema.config_dir(), section).glob("*.yaml") if group else []:  # the choices that are not made
        others: Any = OmegaConf.to_container(OmegaConf.load(file))
        unclear = [
            key for key, value in others.items() if key not in plain[section] and value != values.get(key, value)
        ]
        values |= dict.fromkeys(unclear, MISSING)
    for key, value in values.items():
        if key in ("_target_", "hydra") or (not section and isinstance(value, dict)):
            continue
        having = [name for name, kind in group.items() if key in {f.name for f in fields(kind)}]
        only = f" ({section}={', '.join(having)})" if 0 < len(having) < len(group) else ""
        yield _line(f"{section}{'.' if section else ''}{key}={_shown(value)}", said.get(key, "") + only)


def _shown(value: Any) -> str:
    """A value as the command line takes it; three dots where it depends on others, or must be given."""
    if isinstance(value, str):
        return "..." if "${" in value or value == "???" else value
    return json.dumps(value, separators=(",", ":"), default=str)


@cache
def comments(kind: type) -> dict[str, str]:
    """Return the comments behind the fields of a dataclass of the schema, by field."""
    return dict(re.findall(r"^    (\w+): [^#\n]*  # (.*)$", inspect.getsource(kind), re.MULTILINE))


def _choices(group: str) -> Iterator[str]:
    """A line for each choice of a group, with the first sentence of its YAML file; those of other packages in one."""
    loader, others = GlobalHydra.instance().config_loader(), []
    places = [Path(part.path.removeprefix("file://")) for part in loader.get_search_path().get_path() if part.path]
    for name in loader.get_group_options(group, ObjectType.CONFIG):
        file = next((file for place in places if (file := place / group / f"{name}.yaml").is_file()), None)
        said = re.search(r"^# (?!@)(.*)|^name: .*?# (.*)", file.read_text(encoding="utf-8"), re.M) if file else None
        if file:
            yield _line(name, re.split(r"(?<=[a-z0-9)])\. |\.$", said[1] or said[2])[0] if said else "")
        else:
            others.append(name)
    if others:
        yield _line("others", ", ".join(others))


def _commands() -> Iterator[str]:
    """The first lines of the commands' modules, which are not imported."""
    for name in COMMANDS:
        text = Path(vae_sweep.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        yield _line(f"python -m vae_sweep.{name}", (ast.get_docstring(ast.parse(text)) or "").partition(":")[0])
