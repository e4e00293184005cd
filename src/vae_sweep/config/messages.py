"""One clear line for what a user can mend: the value, what is allowed, what to do."""

from __future__ import annotations

import dataclasses
import difflib
import errno
import logging
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vae_sweep.base.errors import RunFailed, UserError
from vae_sweep.base.process import set_up
from vae_sweep.config import arguments
from vae_sweep.config import schema as configuration

_FIXABLE = {
    errno.EACCES: "give yourself the permission, or use another folder",
    errno.EPERM: "give yourself the permission, or use another folder",
    errno.EROFS: "use a folder on a disk that may be written",
    errno.ENOSPC: "free some space, then start again",
    errno.ENOTDIR: "a file stands where a folder must be; move it away",
    errno.ENOENT: "the folder that it belongs in is not there and cannot be made; use another",
    errno.ENAMETOOLONG: "the name is too long for a file; use a shorter one",
    errno.EEXIST: "a file stands where a folder must be; move it away",
}

_EXTRAS = {  # launchers that are not installed
    **dict.fromkeys(("ray", "ray_aws", "ray_local", "ray_cluster"), "ray"),
    **dict.fromkeys(("slurm", "submitit_slurm", "submitit_local"), "slurm"),
}
_LOST_WORKER = {  # errors of the launchers, by name since most of them are not installed
    "TerminatedWorkerError": "hydra.launcher.n_jobs=1",
    "BrokenProcessPool": "hydra.launcher.n_jobs=1",
    "WorkerCrashedError": "+hydra.launcher.ray.remote.num_cpus=2",
    "OutOfMemoryError": "+hydra.launcher.ray.remote.num_cpus=2",
    "UncompletedJobError": "hydra.launcher.mem_gb=16",
}
_LAUNCHER_FAILED = {  # errors of a launcher before or instead of its jobs
    ("ray", "ConnectionError"): "no Ray cluster answers at hydra.launcher.ray.init.address; start one with `ray start "
    "--head`, or use hydra/launcher=ray_local",
    ("joblib", "TimeoutError"): "no run ended within hydra.launcher.timeout seconds; give more, or null",
}


def user_message(error: BaseException) -> str | None:
    """Return the message for an error that a user can mend, or None for one that only a traceback explains."""
    if isinstance(error, (UserError, RunFailed)):
        return f"vae_sweep: {_flat(str(error))}"
    if isinstance(error, OSError) and error.errno in _FIXABLE and error.filename is not None:
        return f"vae_sweep: {error.filename}: {error.strerror}; {_FIXABLE[error.errno]}"
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        name = error.object if len(error.object) <= 200 else f"{error.object[:200]}..."
        return f"vae_sweep: {_flat(name)}: the locale ({error.encoding}) does not have these letters; set PYTHONUTF8=1"
    failed = _LAUNCHER_FAILED.get((_raised_by(error), type(error).__name__))
    if failed:
        return f"vae_sweep: {failed}"
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return f"vae_sweep: {_composition(error)}"
    if _raised_by(error) in ("hydra", "omegaconf", "antlr4"):  # they check some of what is typed with plain asserts
        reason = f"{type(error).__name__}: {_flat(str(error))}"
        return f"vae_sweep: Hydra cannot compose this command ({reason}); --help lists the choices"
    if type(error).__name__ in _LOST_WORKER:
        return (
            "vae_sweep: a worker process was killed from outside, usually because memory ran out; the same command "
            f"continues what it did, fewer runs at once need less memory ({_LOST_WORKER[type(error).__name__]})"
        )
    return None


def run_command(usage: str, work: Callable[[list[str]], None]) -> None:
    """Run a small command on the arguments that it was started with; help and errors are the same for all."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    typed = sys.argv[1:]
    try:
        set_up()
        if not typed or {"-h", "--help"} & set(typed):
            print(usage)
            sys.exit(0 if typed else 2)
        work(typed)
    except Exception as error:
        message = user_message(error)
        if message is None:
            raise
        sys.exit(message)


def _raised_by(error: BaseException) -> str:
    """The package whose code raised ``error``."""
    name = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _composition(error: BaseException) -> str:
    """Hydra's several lines as one, with the keys or choices that exist."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
    text = str(error)
    choices = re.search(r"Could not find '([^']*)'\s*Available options in '([^']*)':\n(.*)", text, re.DOTALL)
    if choices:
        group = choices[2]
        names = re.findall(r"^\t(\S+)$", choices[3].partition("Config search path")[0], re.MULTILINE)
        name = choices[1].removeprefix(f"{group}/")
        if group == "hydra/launcher" and name in _EXTRAS:
            return _not_installed(name)
        return f"{group}={name}: no such choice; available: {', '.join(names)}{_choice(group, name, names)}"
    lost = re.search(r"Could not load 'hydra/launcher/(\w+)'", text)
    if lost and lost[1] in _EXTRAS:
        return _not_installed(lost[1])
    sweep = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'", text)
    if sweep:
        return f"{sweep[1]}: {arguments.sweep_was_meant(sweep[1])}"
    missing = re.match(r"Cannot find primary config '(.*?)'", text)
    if missing:
        return (
            f"--config-name {missing[1]}: no {missing[1]}.yaml among the configurations; name the folder of your own "
            "with --config-dir; overlays are chosen by experiment=<name>"
        )
    added = re.match(r"Could not append to config. An item is already at '(.*?)'", text)
    if added:
        return f"+{added[1]}: the key exists already; write {added[1]}=<value>, without the plus"
    detail = cause if cause is not None else error if isinstance(error, OmegaConfBaseException) else None
    if detail is not None and detail.full_key:
        key = str(detail.full_key)
        known = _known_keys(detail.object_type)
        leaf = key.rpartition(".")[2]
        if known and leaf not in known and isinstance(detail, (ConfigAttributeError, ConfigKeyError)):
            others = arguments.choices_with(key)
            hint = f"; {' and '.join(others)} have it" if others else _close(leaf, known) or _or(arguments.likely(key))
            return f"{key}: no such key; known keys: {', '.join(known)}{hint}"
        return f"{key}: {_flat(str(detail.msg or detail))}"
    return _flat(f"{text} ({cause})" if cause is not None else text)


def _known_keys(kind: object) -> list[str]:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind)]
    return [f.name for f in dataclasses.fields(configuration.Config)] if kind is dict else []


def _not_installed(launcher: str) -> str:
    """Our launchers stand on those of an extra: the one that was typed is named, where it was."""
    typed = next((word for word in sys.argv if word.startswith("hydra/launcher=")), f"hydra/launcher={launcher}")
    return f"{typed}: not installed; pip install 'vae-sweep[{_EXTRAS[launcher]}]' brings it"


def _choice(group: str, name: str, names: list[str]) -> str:
    """What a choice that does not exist may stand for: the name of a file, a class, a name in capitals."""
    plain = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    meant = _close(plain.lower(), names)
    if not meant and group == "dataset" and "/" in name:
        return f"; a folder of pictures is given as dataset=folder {arguments.shell(f'dataset.path={name}')}"
    if not meant and group in arguments.GROUPS and re.search(r"[./\\]", name):
        return f"; one of your own is the name of a YAML file in <folder>/{group}/, with --config-dir <folder>"
    return meant


def _close(name: str, names: list[str]) -> str:
    return _or(difflib.get_close_matches(name, names, 1))


def _or(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _flat(text: str) -> str:
    """One line, without OmegaConf's technical trailer; spaces in it stay, since names may hold several."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\n\s*(full_key|object_type|reference_type)[:=][^\n]*", "", text)).strip()
