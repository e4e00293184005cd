"""Command-line arguments: returned as Hydra reads them, or refused with the command that works in bash."""

from __future__ import annotations

import argparse
import difflib
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from hydra._internal.utils import get_args_parser  # private: the only list of Hydra's own options
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from vae_sweep.base.errors import UserError
from vae_sweep.config.keys import GROUPS, TEXT, WHOLE, choices_with, did_you_mean, keys, keys_called, similar_keys
from vae_sweep.config.schema import SCHEMAS
from vae_sweep.config.validation import CHOICES

_HELP = "; --help shows how a command is written"
_MULTIRUN = {"-m", "--multirun"}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\udc80-\udcff]")  # the last are bytes of names that are not UTF-8
_PLAIN = re.compile(r"[^'\"\\,()\[\]{}=$]+")  # no character with a meaning for Hydra
_RANGE = re.compile(r"(\d+)(?:\.\.\.?|-|:)(\d+)")  # 0..4 and the like, of other tools


def check_arguments(typed: list[str]) -> list[str]:
    """Return the arguments for Hydra: options first, ``+model=fc`` as ``model=fc``, texts like ``2024_01`` quoted.

    Raises:
        UserError: for what Hydra's parsers cannot read, with the command that was meant.
    """
    _refuse_dashes(typed)
    parser = get_args_parser()
    parser.exit_on_error = parser.allow_abbrev = False  # `--experiment` would stand for Hydra's --experimental-rerun
    try:
        known, unknown = parser.parse_known_intermixed_args(typed)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}{_HELP}") from error
    if unknown:
        names = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0], names, 1) or [f"{key}=..." for key in similar_keys(unknown[0])]
        raise UserError(f"{unknown[0]}: no such option{did_you_mean(close, _HELP)}")
    options = list(typed)
    for word in known.overrides:  # Hydra takes options in front of the first key=value only
        options.remove(word)
    words = _joined(known.overrides, options)
    own = known.config_name or known.config_path  # another defaults list, which may lack these groups
    read = [_read(word, words, options, bool(own)) for word in words]
    return [*options, *(_for_cells(read, bool(known.config_dir)) if _MULTIRUN & set(options) else read)]


def suggest_sweep(word: str) -> str:
    """Return what to write for ``word``, which holds several values in a command without ``-m``."""
    start, _, text = word.partition("=")
    kind = keys().get(start.lstrip("+"), "")
    message = f"several values are a sweep, which needs -m: {command(['-m', *sys.argv[1:]])}"
    if kind.startswith("list"):
        return f"{message}; one list has brackets: {bash_quoted(f'{start}=[{text}]')}"
    if (kind == "float" or start == "objective.variance") and re.fullmatch(r"-?\d+,\d+", text):
        return f"{message}; a decimal number has a point: {start}={text.replace(',', '.')}"
    if kind in TEXT:
        return f"{message}; one text with a comma needs quotes: {bash_quoted(f'{start}={hydra_quoted(text)}')}"
    return message


def command(words: Iterable[str]) -> str:
    """Return the command line of this program with ``words``, as bash reads it."""
    name = Path(sys.argv[0]).name
    program = "python -m vae_sweep" if name == "__main__.py" else name
    return " ".join([program, *map(bash_quoted, words)])


def bash_quoted(word: str) -> str:
    """Return ``word`` in the quotes that bash needs, on one line."""
    if word.isprintable():
        return shlex.quote(word).replace("""'"'"'""", r"'\''")
    escaped = word.replace("\\", r"\\").replace("'", r"\'")
    return "$'" + _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]) % 0xDC00:02x}", escaped) + "'"


def hydra_quoted(text: str) -> str:
    """Return ``text`` in the quotes that make Hydra take it as it stands."""
    literal = re.sub(r"\$\{(?![^{}]*\})", r"\\${", text)  # begins like an interpolation, but is none
    return QuotedString(literal, Quote.double).with_quotes()


def _refuse_dashes(typed: list[str]) -> None:
    """Refuse `--model=fc`, `--model fc` and `-model=fc`."""
    rest, meant = list(typed), []
    while rest:
        word = rest.pop(0)
        name, separator, value = word.lstrip("-").partition("=")
        name = name.replace("-", "_")
        if word.startswith("--no") and keys().get(name.removeprefix("no_")) == "bool":
            meant.append(f"{name.removeprefix('no_')}=false")
            continue
        found = keys_called(name) if word.startswith("--") or (word[:1] == "-" and len(name) > 2) else []
        if len(found) > 1 and name not in keys():
            raise UserError(f"{word}: settings are written key=value, without dashes{did_you_mean(found)}")
        if found and not separator:
            has_value = rest and "=" not in rest[0] and rest[0][:1] != "-"
            value = rest.pop(0) if has_value else "true" if keys().get(found[0]) == "bool" else "..."
        meant.append(f"{found[0]}={value}" if found else word)
    if meant != typed:
        raise UserError(f"settings are written key=value, without dashes; write: {command(meant)}")


def _joined(words: list[str], options: list[str]) -> list[str]:
    """Return the words; refuse them where a space stands beside a comma or an equals sign, or in a value."""
    meant: list[str] = []
    reasons: list[str] = []
    for word in words:
        last = meant[-1] if meant else ""
        torn = last.endswith((",", "[", "(", "{")) or word.startswith((",", "=", "]", ")", "}"))
        if last and (torn or (last.endswith("=") and "=" not in word)):
            reasons.append(f"{last} {word}: no spaces around `,` and `=`")
            meant[-1] = last + word
        elif "=" in word or word.startswith("~"):
            meant.append(word)
        elif word.partition(":")[0] in keys() and ":" in word:
            reasons.append(f"{word}: settings are written key=value")
            meant.append(word.replace(":", "=", 1))
        elif last in keys():
            reasons.append(f"{last} {word}: settings are written key=value")
            meant[-1] = f"{last}={word}"
        elif "=" in last and keys().get(last.partition("=")[0]) in TEXT:
            reasons.append(f"{last} {word}: a value with spaces needs quotes")
            meant[-1] = f"{last} {word}"
        else:
            meant.append(word)
    for word in meant:
        if "=" not in word and not word.startswith("~"):
            option = difflib.get_close_matches(f"--{word}", ["--help"], 1, 0.8)
            close = [f"{word}=..."] if word in keys() else option
            raise UserError(f"{word}: settings are written key=value{did_you_mean(close, _HELP)}")
    if reasons:
        corrected = [*options, *map(_corrected, meant)]
        raise UserError(f"{reasons[0]}; write: {_with_multirun(corrected)}")
    return meant


def _read(word: str, words: list[str], options: list[str], own: bool) -> str:
    """Return one override as Hydra gets it.

    Raises:
        UserError: where Hydra's grammar does not read it, or reads it as something else than was meant.
    """
    start, _, text = word.partition("=")
    key, override = start.lstrip("+~"), _parsed(word)
    kind = keys().get(key, "")
    if not key or (override is None and _parsed(f"{start}=x") is None):
        raise UserError(f"{word}: {start or 'nothing'} is not a key{_HELP}")
    value = override.value() if override else None
    parts = text.split(",") if _MULTIRUN & set(options) else [text]
    if override is None and kind in ("", *TEXT) and all(_PLAIN.fullmatch(part) for part in parts):
        return f"{start}={','.join(hydra_quoted(part) for part in parts)}"  # Hydra's letters are those of ASCII
    ends = _RANGE.fullmatch(text) if kind in WHOLE and isinstance(value, str) else None
    if override is None or ends or _is_list_of_choices(key, text):
        meant = f"{start}=range({ends[1]},{int(ends[2]) + 1})" if ends else _corrected(word)
        if _parsed(meant) is None:
            raise UserError(f"{word}: not a value that Hydra can read; --help lists the choices")
        why = "not read as one value; several are a sweep, with commas between them"
        if kind in ("", *TEXT):
            why = "some of these characters have a meaning for Hydra, unless they stand in quotes"
        others = [meant if w == word else _corrected(w) for w in words]
        raise UserError(f"{word}: {why}; write: {_with_multirun([*options, *others])}")
    if isinstance(value, str) and "${" not in value:
        _refuse_text(word, key)
    if start.startswith("+") and (key in GROUPS or key.startswith("hydra/")) and not own:
        return f"{key}={text}"  # with the plus Hydra would add what the defaults list has already
    if kind in TEXT and isinstance(value, int | float) and str(value) != text:
        return f"{start}={hydra_quoted(text)}"
    return word


def _for_cells(words: list[str], own_files: bool) -> list[str]:
    """Give a key that only some choices of a swept group have to the cells alone, as a sweep over one value.

    Hydra composes the sweep itself with the group's default, which may not have the key. ``own_files``: the user has
    choices that nobody knows here.
    """
    swept = {key for key, override in ((w.partition("=")[0], _parsed(w)) for w in words) if _is_sweep(override)}
    read = []
    for word in words:
        key, _, text = word.partition("=")
        group = key.partition(".")[0]
        n = len(choices_with(key))
        some = n < len(SCHEMAS.get(group, ())) and (n > 0 or own_files)
        alone = f"{key}=choice({text})"
        fits = group in swept and some and not _is_sweep(_parsed(word)) and _is_sweep(_parsed(alone))
        read.append(alone if fits else word)
    return read


def _is_sweep(override: Override | None) -> bool:
    return override is not None and override.is_sweep_override()


def _refuse_text(word: str, key: str) -> None:
    """Refuse a text as the value of a config group of Hydra's, or of a section."""
    if key in ("hydra.launcher", "hydra.sweeper", "hydra.job_logging"):
        text = word.partition("=")[2]
        raise UserError(f"{word}: a choice is written with a slash: {key.replace('.', '/')}={text}")
    within = [f"{other}=..." for other in keys() if other.startswith(f"{key}.")]
    if within and key not in GROUPS:
        raise UserError(f"{word}: {key} is a section; set a key of it: {', '.join(within)}")


def _with_multirun(words: list[str]) -> str:
    """Return the command line, with `-m` where a value sweeps."""
    parsed = [_parsed(word) for word in words if "=" in word]
    sweeps = any(override.is_sweep_override() for override in parsed if override)
    return command(["-m", *words] if sweeps and not _MULTIRUN & set(words) else words)


def _is_list_of_choices(key: str, text: str) -> bool:
    """Whether it is like `model=[fc,conv]`; only overlays (experiment) may be several."""
    return key in CHOICES and text.startswith("[")


def _parsed(word: str) -> Override | None:
    """Return the override as Hydra's grammar reads it, or None where it does not."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _corrected(word: str) -> str:
    """Return the override as it must be meant: a text in Hydra's quotes, or names and numbers with commas."""
    start, _, text = word.partition("=")
    key = start.lstrip("+~")
    kind = keys().get(key, "")
    if _parsed(word) is not None and not _is_list_of_choices(key, text):
        return word
    if kind in ("", *TEXT):
        return f"{start}={hydra_quoted(text.lstrip('='))}"
    values = ",".join(re.findall(r"[\w.+/-]+", text))
    return f"{start}=[{values}]" if kind.startswith("list") else f"{start}={values}"
