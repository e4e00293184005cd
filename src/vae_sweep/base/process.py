"""What a process of a command needs of its environment, and gets also where the environment lacks it."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import io
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

from vae_sweep.base.errors import UserError


def set_up() -> None:
    """Let this process and those that it starts print any letter, draw without a display and have a home folder.

    Raises:
        UserError: where the current folder is gone, or names hold letters that the locale does not have.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ["MPLBACKEND"] = "agg"  # what is set for other programs may not exist here
    warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands for the letter
    _have_a_home()
    try:
        names = [os.getcwd(), *sys.argv]
    except FileNotFoundError as error:
        raise UserError("the current folder does not exist any more; change into one that does") from error
    encoding = sys.getfilesystemencoding()
    for name in names if encoding != "utf-8" else ():
        if any("\udc80" <= letter <= "\udcff" for letter in name):
            shown = os.fsencode(name).decode("utf-8", "replace")
            raise UserError(f"{shown}: the locale ({encoding}) does not have these letters; set PYTHONUTF8=1")


def _have_a_home() -> None:
    """MLflow asks for the home folder and the user's name; a container's user may have neither."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = home = tempfile.mkdtemp(prefix="vae_sweep-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
    with contextlib.suppress(KeyError, OSError):  # OSError: from Python 3.13 on
        getpass.getuser()
        return
    os.environ["USER"] = str(os.getuid())
