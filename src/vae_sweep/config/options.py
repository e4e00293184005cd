"""The small commands (``compare``, ``generate``, ``relocate``): ``key=value`` options, described by a dataclass."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import field, fields
from textwrap import fill
from typing import Any, TypeVar

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_sweep.base.errors import UserError, show_traceback
from vae_sweep.base.process import set_up
from vae_sweep.config.keys import closest
from vae_sweep.config.messages import user_message

T = TypeVar("T")

_ALLOWED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}  # type of a field -> its values in words


def option(help: str, default: Any = MISSING, positional: bool = False) -> Any:
    """Return a dataclass field with its line of ``--help``, required where it has no ``default``.

    A positional one is also given without its key.
    """
    return field(default=default, metadata={"help": help, "positional": positional})


def run_command(name: str, schema: type[T], work: Callable[[T], None]) -> None:
    """Run ``python -m vae_sweep.<name>``: show help, or call ``work`` with the options that were typed.

    An error that the user can fix ends the process with one line.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    typed = sys.argv[1:]
    required = any(f.default == MISSING for f in fields(schema))  # type: ignore[arg-type]
    try:
        set_up()
        if {"-h", "--help"} & set(typed) or (required and not typed):
            print(usage(name, schema))
            sys.exit(0 if typed else 2)
        work(read_options(schema, typed))
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        show_traceback()
        sys.exit(message)


def read_options(schema: type[T], typed: list[str]) -> T:
    """Return an instance of the dataclass ``schema`` from ``key=value`` words; ``null`` is the default.

    Raises:
        UserError: for a key, a type or a word that the schema does not have, and for a missing option.
    """
    known = {f.name: f for f in fields(schema)}  # type: ignore[arg-type]
    positional = next((key for key, f in known.items() if f.metadata["positional"]), None)
    options = OmegaConf.structured(schema)
    for i, word in enumerate(typed):
        key, separator, value = word.partition("=")
        if not (separator and key in known):
            if positional is None or word.startswith("-") or len(typed) > 1:
                raise UserError(_refusal(list(known), typed, i))
            key, value = positional, word
        try:
            options[key] = known[key].default if value in ("", "null") else value
        except OmegaConfBaseException as error:
            allowed = _ALLOWED.get(str(known[key].type).removesuffix(" | None"))
            raise UserError(f"{word}: must be {allowed}" if allowed else f"{word}: {error.msg}") from error
    for key in sorted(OmegaConf.missing_keys(options)):
        raise UserError(f"{key}= is missing; give the {known[key].metadata['help']}")
    return OmegaConf.to_object(options)  # type: ignore[return-value]


def usage(name: str, schema: type) -> str:
    """Return the text of ``--help``; the docstring of ``schema`` says what the command does."""
    first, lines = [], []
    for f in fields(schema):
        default = {MISSING: "...", None: "null"}.get(f.default, str(f.default).lower())
        first += [f"{f.name}=..."] if f.default == MISSING else []
        first += [f"[{f.name}]"] if f.metadata["positional"] else []
        text = f"{f.name if f.metadata['positional'] else f'{f.name}={default}':<16}  {f.metadata['help']}"
        lines.append(fill(text, 118, initial_indent="  ", subsequent_indent=20 * " "))
    keys = "" if len(lines) == 1 else " [key=value ...]"
    return "\n".join(
        [f"usage: python -m vae_sweep.{name} {' '.join(first)}{keys}", "", schema.__doc__ or "", "", *lines, ""]
    )


def _refusal(known: list[str], typed: list[str], i: int) -> str:
    """Return the message for ``typed[i]``, which is no option, with what was meant where that is clear."""
    word, before = typed[i], typed[i - 1] if i else ""
    key, _, value = word.partition("=")
    bare = key.lstrip("-")
    meant = closest(bare, known)
    if before.endswith(","):
        meant = f"; write {before}{word}, without the space"
    elif bare in known:
        meant = f"; write {bare}={value or next(iter(typed[i + 1 :]), '...')}"
    return f"{word}: not an option; write key=value with a key of: {', '.join(known)}{meant}"
