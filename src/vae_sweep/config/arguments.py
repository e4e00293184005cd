"""What is typed behind a command: read as Hydra reads it, or refused with the form that works in bash."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from vae_sweep.base.errors import UserError
from vae_sweep.config import schema as configuration
from vae_sweep.config.validation import CHOICES

GROUPS = (*CHOICES, "images", "experiment")  # of conf/config.yaml's defaults list
_TEXT, _WHOLE = ("str", "str | None"), ("int", "int | None")
_ELSEWHERE = {  # what other tools call them
    "epochs": "training.max_epochs",
    "learning_rate": "params.lr",
    "accelerator": "training.device",
    "gpus": "training.device",
    "workers": "hydra.launcher.n_jobs",
}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\udc80-\udcff]")  # the last are bytes of names that are no UTF-8
_PLAIN = re.compile(r"[^'\"\\,()\[\]{}=$]+")  # nothing in it can be meant for Hydra
_RANGE = re.compile(r"(\d+)(?:\.\.\.?|-|:)(\d+)")  # 0..4 and the like, of other tools


def check_arguments(typed: list[str]) -> list[str]:
    """Return the arguments for Hydra: options first, ``+model=fc`` as ``model=fc``, texts like ``2024_01`` as texts.

    Raises:
        UserError: for what Hydra's parsers do not read, with the command that was meant.
    """
    _refuse_dashes(typed)
    parser = get_args_parser()
    parser.exit_on_error = parser.allow_abbrev = False  # `--experiment` would stand for Hydra's --experimental-rerun
    try:
        known, strange = parser.parse_known_intermixed_args(typed)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; --help shows how a command is written") from error
    if strange:
        names = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(strange[0], names, 1) or [f"{key}=..." for key in likely(strange[0])]
        raise UserError(f"{strange[0]}: no such option{_or(close)}")
    options = list(typed)
    for word in known.overrides:  # Hydra takes options in front of the first key=value only
        options.remove(word)
    words = _joined(known.overrides, options)
    own = known.config_name or known.config_path  # another defaults list, which may lack these groups
    return [*options, *(_read(word, words, options, bool(own)) for word in words)]


@cache
def keys() -> dict[str, str]:
    """Return every key of the shipped configurations and its type as the schema writes it; choices have ``choice``."""
    found = dict.fromkeys(GROUPS, "choice")
    for top in fields(configuration.Config):
        kinds = configuration.SCHEMAS.get(top.name, {}).values() or [top.default_factory]
        parts = {f"{top.name}.{f.name}": str(f.type) for kind in kinds if is_dataclass(kind) for f in fields(kind)}
        found |= parts or {top.name: str(top.type)}
    return found


def likely(name: str) -> list[str]:
    """Return the keys that ``name``, which is none, may stand for."""
    leaf = name.lstrip("+~-").partition("=")[0].rpartition(".")[2].replace("-", "_")
    if leaf in _ELSEWHERE:
        return [_ELSEWHERE[leaf]]
    leaves = [key.rpartition(".")[2] for key in keys()]
    close = difflib.get_close_matches(leaf, dict.fromkeys(leaves), 2)
    return [key for like in close for key, end in zip(keys(), leaves, strict=True) if end == like][:3]


def choices_with(key: str) -> list[str]:
    """Return the choices that have ``key``, such as ``model=fc`` for ``model.hidden_dims``."""
    group, _, leaf = key.partition(".")
    kinds = configuration.SCHEMAS.get(group, {})
    return [f"{group}={name}" for name, kind in kinds.items() if leaf in {f.name for f in fields(kind)}]


def sweep_was_meant(word: str) -> str:
    """Return what to write for ``word``, which holds several values in a command without ``-m``."""
    start, _, text = word.partition("=")
    kind, others = keys().get(start.lstrip("+"), ""), sys.argv[1:]
    said = f"several values are a sweep, which needs -m: {command(['-m', *others])}"
    if kind == "float" and re.fullmatch(r"-?\d+,\d+", text):
        return f"{said}; a decimal number has a point: {start}={text.replace(',', '.')}"
    if kind in _TEXT:
        return f"{said}; one text with a comma needs quotes: {shell(f'{start}={_in_quotes(text)}')}"
    return said


def command(words: Iterable[str]) -> str:
    """Return the command line of this program with ``words``, as bash reads it."""
    program = Path(sys.argv[0]).name
    return " ".join([*(["python", "-m", "vae_sweep"] if program == "__main__.py" else [program]), *map(shell, words)])


def shell(word: str) -> str:
    """Return ``word`` in the quotes that bash needs, on one line."""
    if word.isprintable():
        return shlex.quote(word).replace("""'"'"'""", r"'\''")
    escaped = word.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]) % 0xDC00:02x}", escaped) + "'"


def options_of(typed: list[str], known: list[str]) -> Iterator[tuple[str, str]]:
    """Yield key and value of every ``key=value`` of a small command.

    Raises:
        UserError: for anything else.
    """
    for before, word, following in zip(["", *typed], typed, [*typed[1:], ""], strict=False):
        key, separator, value = word.partition("=")
        if separator and key in known:
            yield key, value
            continue
        bare = key.lstrip("-")
        meant = f"; write {bare}={value or following or '...'}" if bare in known else ""
        meant = f"; write {before}{word}, without the space" if before.endswith(",") else meant
        raise UserError(f"{word}: not an option; write key=value with a key of: {', '.join(known)}{meant}")


def _refuse_dashes(typed: list[str]) -> None:
    """`--model=fc`, `--model fc` and `-model=fc`: settings have no dashes."""
    rest, meant = list(typed), []
    while rest:
        word = rest.pop(0)
        name, separator, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        denied = name.removeprefix("no_") if word.startswith("--no") else ""
        if keys().get(denied) == "bool":
            meant.append(f"{denied}=false")
            continue
        named = _named(name) if word.startswith("--") or (word[:1] == "-" and len(name) > 2) else []
        if len(named) > 1 and name not in keys():
            raise UserError(f"{word}: settings are written key=value, without dashes{_or(named)}")
        if named and not separator:
            takes_next = rest and "=" not in rest[0] and rest[0][:1] != "-"
            value = rest.pop(0) if takes_next else "true" if keys().get(named[0]) == "bool" else "..."
        meant.append(f"{named[0]}={value}" if named else word)
    if meant != typed:
        raise UserError(f"settings are written key=value, without dashes; write: {command(meant)}")


def _named(name: str) -> list[str]:
    """The keys that are called so, in full or by their last part."""
    if name in _ELSEWHERE:
        return [_ELSEWHERE[name]]
    return [key for key in keys() if name in (key, key.rpartition(".")[2]) and not key.endswith("._target_")]


def _joined(words: list[str], options: list[str]) -> list[str]:
    """The words; refused where a space stands around a comma or an equals sign, or in a value."""
    meant: list[str] = []
    why = ""
    for word in words:
        last = meant[-1] if meant else ""
        torn = last.endswith((",", "[", "(", "{")) or word.startswith((",", "=", "]", ")", "}"))
        if last and (torn or (last.endswith("=") and "=" not in word)):
            meant[-1], why = last + word, why or f"{last} {word}: no spaces around `,` and `=`"
        elif "=" in word or word.startswith("~"):
            meant.append(word)
        elif word.partition(":")[0] in keys() and ":" in word:
            meant.append(word.replace(":", "=", 1))
            why = why or f"{word}: settings are written key=value"
        elif last in keys():
            meant[-1], why = f"{last}={word}", why or f"{last} {word}: settings are written key=value"
        elif "=" in last and keys().get(last.partition("=")[0]) in _TEXT:
            meant[-1], why = f"{last} {word}", why or f"{last} {word}: a value with spaces needs quotes"
        else:
            meant.append(word)
    lone = [word for word in meant if "=" not in word and not word.startswith("~")]
    if lone:
        meant = (
            [f"{lone[0]}=..."] if lone[0] in keys() else difflib.get_close_matches(f"--{lone[0]}", ["--help"], 1, 0.8)
        )
        raise UserError(f"{lone[0]}: settings are written key=value{_or(meant)}")
    if why:
        raise UserError(f"{why}; write: {_sweeping([*options, *(_quoted(word) for word in meant)])}")
    return meant


def _read(word: str, words: list[str], options: list[str], own: bool) -> str:
    """One override as Hydra gets it.

    Raises:
        UserError: where Hydra's grammar does not read it, or reads what cannot be meant.
    """
    start, _, text = word.partition("=")
    key, override = start.lstrip("+~"), _parsed(word)
    kind = keys().get(key, "")
    if not key or (override is None and _parsed(f"{start}=x") is None):
        raise UserError(f"{word}: {start or 'nothing'} is no key; --help shows how a command is written")
    value = override.value() if override else None
    plain = text.split(",") if {"-m", "--multirun"} & set(options) else [text]
    if override is None and kind in ("", *_TEXT) and all(_PLAIN.fullmatch(part) for part in plain):
        return f"{start}={','.join(_in_quotes(part) for part in plain)}"  # Hydra's letters are those of ASCII
    ends = _RANGE.fullmatch(text) if kind in _WHOLE and isinstance(value, str) else None
    if override is None or ends or _is_list_of_choices(key, text):
        meant = f"{start}=range({ends[1]},{int(ends[2]) + 1})" if ends else _quoted(word)
        if _parsed(meant) is None:
            raise UserError(f"{word}: no value that Hydra reads; --help lists the choices")
        others = [meant if w == word else _quoted(w) for w in words]
        raise UserError(f"{word}: {_why(kind)}; write: {_sweeping([*options, *others])}")
    if isinstance(value, str) and "${" not in value:
        if key in ("hydra.launcher", "hydra.sweeper", "hydra.job_logging"):
            raise UserError(f"{word}: a choice is written with a slash: {key.replace('.', '/')}={text}")
        within = [f"{other}=..." for other in keys() if other.startswith(f"{key}.")]
        if within and kind != "choice":
            raise UserError(f"{word}: {key} is a section; set a key of it: {', '.join(within)}")
    if start.startswith("+") and (key in GROUPS or key.startswith("hydra/")) and not own:
        return f"{key}={text}"  # with the plus Hydra would add what is in the defaults list already
    if kind in _TEXT and isinstance(value, int | float) and str(value) != text:
        return f"{start}={_in_quotes(text)}"
    return word


def _why(kind: str) -> str:
    if kind in ("", *_TEXT):
        return "some of these characters have a meaning for Hydra, unless they stand in quotes"
    return "not read as one value; several are a sweep, with commas between them"


def _sweeping(words: list[str]) -> str:
    """The command with `-m` where a value sweeps."""
    parsed = [_parsed(word) for word in words if "=" in word]
    sweeps = any(override.is_sweep_override() for override in parsed if override)
    return command(["-m", *words] if sweeps and not {"-m", "--multirun"} & set(words) else words)


def _is_list_of_choices(key: str, text: str) -> bool:
    """`model=[fc,conv]`; overlays may be several."""
    return key in CHOICES and text.startswith("[")


def _parsed(word: str) -> Override | None:
    """What Hydra's grammar reads, or None where it does not."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _quoted(word: str) -> str:
    """The override with its value as it must be meant: one text in Hydra's quotes, or names or numbers and commas."""
    start, _, text = word.partition("=")
    key = start.lstrip("+~")
    kind = keys().get(key, "")
    if _parsed(word) is not None and not _is_list_of_choices(key, text):
        return word
    if kind in ("", *_TEXT):
        return f"{start}={_in_quotes(text.lstrip('='))}"
    values = ",".join(re.findall(r"[\w.+/-]+", text))
    return f"{start}=[{values}]" if kind.startswith("list") else f"{start}={values}"


def _in_quotes(text: str) -> str:
    literal = re.sub(r"\$\{(?![^{}]*\})", r"\\${", text)  # what begins like an interpolation and is none
    return QuotedString(literal, Quote.double).with_quotes()


def _or(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else "; --help shows how a command is written"
