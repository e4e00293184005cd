"""One clear line for an error that the user can fix: the value, what is allowed, what to do."""

from __future__ import annotations

import dataclasses
import errno
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra.errors import HydraException
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from vae_sweep.base.errors import RunFailed, UserError
from vae_sweep.config import schema
from vae_sweep.config.arguments import bash_quoted, suggest_sweep
from vae_sweep.config.keys import GROUPS, choices_with, closest, did_you_mean, similar_keys

_FIXABLE = {
    errno.EACCES: "change its permissions, or use another folder",
    errno.EPERM: "change its permissions, or use another folder",
    errno.EROFS: "use a folder on a disk that may be written",
    errno.ENOSPC: "free some space, then start again",
    errno.ENOTDIR: "this is a file, and a folder is needed; rename or move the file",
    errno.ENOENT: "the folder that it belongs in does not exist and cannot be made; use another",
    errno.ENAMETOOLONG: "the name is too long for a file; use a shorter one",
    errno.EEXIST: "this is a file, and a folder is needed; rename or move the file",
}
_EXTRAS = {  # launchers that an extra of the package installs
    **dict.fromkeys(("ray", "ray_aws", "ray_local", "ray_cluster"), "ray"),
    **dict.fromkeys(("slurm", "submitit_slurm", "submitit_local"), "slurm"),
}
_KILLED_WORKER = {  # errors of the launchers, by name since most of them are not installed -> what needs less memory
    "TerminatedWorkerError": "hydra.launcher.n_jobs=1",
    "BrokenProcessPool": "hydra.launcher.n_jobs=1",
    "WorkerCrashedError": "hydra.launcher.ray.remote.num_cpus=2",
    "OutOfMemoryError": "hydra.launcher.ray.remote.num_cpus=2",
    "UncompletedJobError": "hydra.launcher.mem_gb=16",
}
_LAUNCHER_FAILED = {  # errors of a launcher itself
    ("ray", "ConnectionError"): "no Ray cluster answers at hydra.launcher.ray.init.address; start one with `ray start "
    "--head`, or use hydra/launcher=ray_local",
    ("joblib", "TimeoutError"): "no run ended within hydra.launcher.timeout seconds; give more, or null",
}


def user_message(error: BaseException) -> str | None:
    """Return the line for an error that the user can fix, or None for one that only a traceback explains."""
    reason = explain(error)
    return None if reason is None else f"vae_sweep: {reason}"


def explain(error: BaseException) -> str | None:
    """Return what :func:`user_message` says, without the name of the program."""
    raised_by = _raised_by(error)
    if isinstance(error, (UserError, RunFailed)):
        return _flat(str(error))
    if isinstance(error, OSError) and error.errno in _FIXABLE and error.filename is not None:
        return f"{error.filename}: {error.strerror}; {_FIXABLE[error.errno]}"
    if isinstance(error, UnicodeEncodeError) and error.encoding != "utf-8":
        name = error.object if len(error.object) <= 200 else f"{error.object[:200]}..."
        return f"{_flat(name)}: the locale ({error.encoding}) cannot encode this name; set PYTHONUTF8=1"
    if (raised_by, type(error).__name__) in _LAUNCHER_FAILED:
        return _LAUNCHER_FAILED[raised_by, type(error).__name__]
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        return _composition(error)
    if isinstance(error, yaml.YAMLError):
        mark = getattr(error, "problem_mark", None)
        place = f"{mark.name} line {mark.line + 1}: " if mark else ""
        return f"{place}this is no YAML ({_flat(getattr(error, 'problem', None) or str(error))}); correct the file"
    if isinstance(error, UnicodeDecodeError) and _passed_through("hydra", error):
        return f"a YAML file of yours is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
    if raised_by in ("hydra", "omegaconf", "antlr4"):  # they check some of what is typed with plain asserts
        reason = f"{type(error).__name__}: {_flat(str(error))}"
        return f"Hydra cannot compose this command ({reason}); --help lists the choices"
    if type(error).__name__ in _KILLED_WORKER:
        return (
            "a worker process was killed, usually because memory ran out; the same command continues, "
            f"and fewer runs at once need less memory ({_KILLED_WORKER[type(error).__name__]})"
        )
    return None


def _raised_by(error: BaseException) -> str:
    """Return the package whose code raised ``error``."""
    name = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = frame.f_globals.get("__name__", "")
    return name.partition(".")[0]


def _passed_through(package: str, error: BaseException) -> bool:
    """Return whether code of ``package`` called the code that raised ``error``."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").partition(".")[0] == package for frame, _ in frames)


def _composition(error: BaseException) -> str:
    """Return Hydra's several lines as one, with the keys or choices that exist."""
    text = str(error)
    known = next(_known_failures(text), None)
    if known is not None:
        return known
    chain = [e for e in (error.__cause__, error) if isinstance(e, OmegaConfBaseException)]
    for detail in chain:  # under a debugger the cause is an error of OmegaConf's own that has no key yet
        if detail.full_key:
            return _wrong_key(detail)
    return _flat(f"{text} ({error.__cause__})" if error.__cause__ in chain else text)


def _known_failures(text: str) -> Iterator[str]:
    """What Hydra says in several lines, or in terms of its own."""
    choices = re.search(r"Could not find '([^']*)'\s*Available options in '([^']*)':\n(.*)", text, re.DOTALL)
    if choices:
        group = choices[2]
        names = re.findall(r"^\t(\S+)$", choices[3].partition("Config search path")[0], re.MULTILINE)
        yield _no_such_choice(group, choices[1].removeprefix(f"{group}/"), names)
    lost = re.search(r"Could not load 'hydra/launcher/(\w+)'", text)
    if lost and lost[1] in _EXTRAS:
        yield _not_installed(lost[1])
    sweep = re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*?)'", text)
    if sweep:
        yield f"{sweep[1]}: {suggest_sweep(sweep[1])}"
    missing = re.match(r"Cannot find primary config '(.*?)'", text)
    if missing:
        yield (
            f"--config-name {missing[1]}: no {missing[1]}.yaml among the configurations; name the folder of your own "
            "with --config-dir; overlays are chosen by experiment=<name>"
        )
    alone = re.match(
        r"In '((?:experiment|images)/\S+)': ConfigKeyError .*Key '(?:experiment|images)' not in", text, re.S
    )
    if alone:
        yield (
            f"{alone[1]}.yaml: its first line must be `# @package _global_`, since it sets keys of the whole "
            "configuration"
        )
    added = re.match(r"Could not append to config. An item is already at '(.*?)'", text)
    if added:
        yield f"+{added[1]}: the key exists already; write {added[1]}=<value>, without the plus"


def _wrong_key(error: OmegaConfBaseException) -> str:
    """A key that does not exist, or a value of the wrong type."""
    key = str(error.full_key)
    kind = schema.Config if error.object_type is dict else error.object_type  # the top level has lost its type
    known = [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    leaf = key.rpartition(".")[2]
    if not known or leaf in known or not isinstance(error, (ConfigAttributeError, ConfigKeyError)):
        return f"{key}: {_flat(str(error.msg or error))}"
    choices = choices_with(key)
    hint = f"; {' and '.join(choices)} have it" if choices else closest(leaf, known) or did_you_mean(similar_keys(key))
    return f"{key}: no such key; known keys: {', '.join(known)}{hint}"


def _no_such_choice(group: str, name: str, names: list[str]) -> str:
    """A choice that does not exist, and what it may stand for: a file, a class, a name in capitals."""
    if group == "hydra/launcher" and name in _EXTRAS:
        return _not_installed(name)
    if group == "hydra/sweeper" and name == "optuna":
        return (
            "hydra/sweeper=optuna: not offered, since hydra-optuna-sweeper works with Optuna 2 only; list the values, "
            "as in -m params.lr=1e-3,5e-4"
        )
    hint = closest((Path(name).stem if name.endswith((".yaml", ".yml")) else name).lower(), names)
    if not hint and group == "dataset" and "/" in name:
        hint = f"; a folder of images is given as dataset=folder {bash_quoted(f'dataset.path={name}')}"
    if not hint and group in GROUPS and re.search(r"[./\\]", name):
        hint = f"; one of your own is the name of a YAML file in <folder>/{group}/, with --config-dir <folder>"
    return f"{group}={name}: no such choice; available: {', '.join(names)}{hint}"


def _not_installed(launcher: str) -> str:
    """A launcher of an extra; ours stand on those, so the one that was typed is named."""
    typed = next((word for word in sys.argv if word.startswith("hydra/launcher=")), f"hydra/launcher={launcher}")
    return f"{typed}: not installed; pip install 'vae-sweep[{_EXTRAS[launcher]}]' brings it"


def _flat(text: str) -> str:
    """One line, without OmegaConf's technical trailer; spaces in it stay, since names may hold several."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"\n\s*(full_key|object_type|reference_type)[:=][^\n]*", "", text)).strip()
