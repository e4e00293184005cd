"""Completion in bash: Hydra's answers, for ``python -m vae_sweep`` and the commands of vae_sweep too."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO

from vae_sweep.config.help import COMMANDS

WORDS = (*COMMANDS, "sweep")  # that may stand first
# Hydra's own script completes `python file.py`, not `python -m`, and changes COMP_WORDBREAKS for all other programs.
INSTALL = r"""
_vae_sweep() {
    local line=${COMP_LINE:0:COMP_POINT} program=("${COMP_WORDS[0]}") word prefix
    word=${line##* }
    if [[ ${COMP_WORDS[0]##*/} == python* ]]; then
        [[ $line =~ " -m vae_sweep " ]] || return
        program+=(-m vae_sweep)
    fi
    COMPREPLY=($(compgen -W "$(COMP_LINE=$line "${program[@]}" -sc query=bash 2> /dev/null)" -- "$word"))
    if [[ $COMP_WORDBREAKS == *=* ]]; then
        prefix=${word%"${word##*=}"}
        COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    fi
}
complete -o nospace -o bashdefault -o default -F _vae_sweep vae-sweep python python3
"""


def is_asked(typed: Sequence[str]) -> bool:
    """Return whether this is about completion in bash."""
    about = {"install=bash", "uninstall=bash", "query=bash"}
    return bool({"-sc", "--shell-completion"} & {*typed} and about & {*typed})


def answer(typed: Sequence[str], hydra: Callable[[], object]) -> None:
    """Print the script to install, or the words that may end COMP_LINE; ``hydra`` lets Hydra answer ``sys.argv``."""
    if "query=bash" not in typed:
        print(INSTALL if "install=bash" in typed else "complete -r vae-sweep python python3")
        return
    line = re.sub(r"^\s*\S+(\s+-m\s+vae_sweep(?=\s|$))?\s*", "", os.environ.get("COMP_LINE", ""))
    before, word = re.fullmatch(r"(.*?)(\S*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    first = next(iter(before.split()), "")
    if first in COMMANDS:
        return
    key, equals, value = word.partition("=")
    last = value.rpartition(",")[2]  # of several values, the last is completed
    places = re.findall(r"(?:--config-dir|-cd)[ =]+(\S+)", before)
    sys.argv[1:] = [*(["--config-dir", places[-1]] if places else []), "-sc", "query=bash"]
    given = " ".join(part for part in before.split() if "=" in part and not part.startswith("-") and "," not in part)
    os.environ["COMP_LINE"] = f"vae-sweep {given} {key}{equals}{last}"
    with redirect_stdout(StringIO()) as said:
        hydra()
    found = [choice for choice in said.getvalue().split() if not choice.startswith("schema")]
    if equals:
        found = [f"{key}={value.removesuffix(last)}{choice.partition('=')[2]}" for choice in found]
    print(" ".join([*found, *(WORDS if not before.split() and not equals else ())]))
