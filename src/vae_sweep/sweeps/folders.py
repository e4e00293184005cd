"""What a project folder keeps between and beside runs: who holds what, and whether to stop. No torch, no MLflow."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from vae_sweep.base.errors import UserError
from vae_sweep.base.files import atomic_write
from vae_sweep.tracking.names import PROJECT

log = logging.getLogger(__name__)

SETTLED = 10.0  # seconds after which a file that was written once does not change by itself


def folder_of(root: Path, sweep: str, run: str = "") -> Path:
    """Return where a sweep, or a run of it, keeps its lock and what it needs to continue."""
    return root / "outputs" / "state" / sweep / run


def project_id(root: Path) -> str:
    """Return the name of this project folder: made once, it moves with the folder, on whatever machine it is seen.

    A copy, or a move to another disk, gets another name: its runs elsewhere are those of the folder before.
    """
    file = folder_of(root, "place")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        own = _named(file, uuid.uuid4().hex)
        try:
            os.link(own, file)  # of several first starts at once, one succeeds
        except FileExistsError:
            pass
        except OSError:  # a disk without hard links
            os.replace(own, file)
        own.unlink(missing_ok=True)
    with file.open(encoding="utf-8") as stream:
        name, *made = stream.read().split() or [uuid.uuid4().hex]  # empty: the power failed
        seen = os.fstat(stream.fileno())
    # Some disks change their numbers of files; only what is younger as well is a copy.
    if made and (seen.st_ino == int(made[0]) or seen.st_ctime < float(made[1]) + SETTLED):
        return name
    if made:
        before, name = name, uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {seen.st_ino}").hex
        said = "it gets another id than the folder before, with which runs stay that are RUNNING on a tracking server"
        log.info("%s is a copy, or was moved to another disk: %s", root, said)
        _take_over(root / "mlflow.db", before, name)
    os.replace(_named(file, name), file)  # several processes at once write the same name
    return name


def _named(file: Path, name: str) -> Path:
    """A file beside ``file`` that has ``name``, and by which it is known that it is no copy: its number and time."""
    own = file.with_name(f"{file.name}-{uuid.uuid4().hex}")
    with own.open("x", encoding="utf-8") as stream:
        made = os.fstat(stream.fileno())
        stream.write(f"{name} {made.st_ino} {made.st_mtime}")
    return own


def _take_over(database: Path, before: str, name: str) -> None:
    """Give the runs of the project folder ``before`` to ``name`` in ``database``, which was copied with the folder."""
    if database.is_file() and not database.is_symlink():
        try:
            with closing(sqlite3.connect(database, timeout=20)) as connection, connection:
                connection.execute("UPDATE tags SET value = ? WHERE key = ? AND value = ?", (name, PROJECT, before))
        except sqlite3.Error as error:  # it is locked, or not the store that is in use
            log.warning("the runs in %s stay those of the folder before: %s", database, error)


def request_stop(root: Path, sweep: str, reason: str) -> None:
    """Tell the cells of a sweep to stop, in whatever process or machine they run."""
    with atomic_write(folder_of(root, sweep) / "stop", f"-{os.getpid()}") as file:
        file.write_text(reason, encoding="utf-8")


def stop_requested(root: Path, sweep: str) -> str | None:
    """Return why the cells of a sweep should stop, or None where they should go on."""
    try:
        return (folder_of(root, sweep) / "stop").read_text(encoding="utf-8")
    except OSError:
        return None


def clear_stop_request(root: Path, sweep: str) -> None:
    """Let the cells of a sweep start."""
    (folder_of(root, sweep) / "stop").unlink(missing_ok=True)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Keep temporary files below ``folder``, so that what a killed process leaves is found and removed.

    Whoever calls this holds ``folder``.
    """
    scratch, before = folder / "tmp", tempfile.tempdir
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(scratch, ignore_errors=True)


def save_config(root: Path, sweep: str, run: str, cfg: DictConfig) -> None:
    """Keep the configuration of a run for the process that will train it, resolved."""
    folder = folder_of(root, sweep, run)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "config.yaml") as file:
        file.write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")


def load_config(root: Path, sweep: str, run: str) -> DictConfig:
    """Return the configuration that :func:`save_config` kept.

    Raises:
        UserError: where it is not there any more.
    """
    path = folder_of(root, sweep, run) / "config.yaml"
    try:
        cfg = OmegaConf.create(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); start the same command again") from error
    assert isinstance(cfg, DictConfig)
    return cfg


def own_folder(shared: Path, run_id: str) -> Path:
    """Return a folder that is the run's alone: ``shared``, or one in it where another run was there first."""
    shared.mkdir(parents=True, exist_ok=True)
    owner = shared / ".run"
    try:
        with owner.open("x", encoding="utf-8") as file:
            file.write(run_id)
    except FileExistsError:
        if owner.read_text(encoding="utf-8") != run_id:  # also where it is not written yet
            own = shared / run_id
            own.mkdir(exist_ok=True)
            return own
    return shared
