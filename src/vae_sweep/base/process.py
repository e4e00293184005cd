"""The environment of a command's process: output streams, plots without a display, a home folder."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import io
import os
import shlex
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from vae_sweep.base.errors import UserError


def set_up() -> None:
    """Let this process and its children print any character, draw without a display and have a home folder.

    Raises:
        UserError: where the current folder is gone, or names hold characters that the locale does not have.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # the one that is set may not be installed
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn instead
    _ensure_home()
    try:
        names = [os.getcwd(), *sys.argv]
    except FileNotFoundError as error:
        raise UserError("the current folder no longer exists; cd to another") from error
    encoding = sys.getfilesystemencoding()
    for name in names if encoding != "utf-8" else ():
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            shown = os.fsencode(name).decode("utf-8", "replace")
            raise UserError(f"{shown}: the locale ({encoding}) cannot encode this name; set PYTHONUTF8=1")


def nobody_reads() -> None:
    """Write standard output nowhere from now on: its reader, such as ``head``, has seen enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def python() -> str:
    """Return how a shell calls this interpreter: ``python`` where it finds this one, else its path."""
    found = shutil.which("python")
    return "python" if found and Path(found).parent == Path(sys.executable).parent else shlex.quote(sys.executable)


def _ensure_home() -> None:
    """Set HOME and USER where they are missing, as in a container: MLflow asks for both."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = home = tempfile.mkdtemp(prefix="vae_sweep-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    with contextlib.suppress(KeyError, OSError):  # OSError: from Python 3.13 on
        getpass.getuser()
        return
    os.environ["USER"] = str(os.getuid())
