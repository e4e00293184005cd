"""Errors the user can fix, the early ends of a run, and error texts."""

import os
import traceback

FULL = "HYDRA_FULL_ERROR"  # 1: with tracebacks
_ASKED = "VAE_SWEEP_FULL_ERROR"  # what the user gave as FULL, which the command itself sets for Hydra


class UserError(Exception):
    """An error the user can fix: one line with the value, what is allowed and what to do, shown without a traceback."""


class StoreError(UserError):
    """The tracking store did not accept or return something; the same may work later."""


class RunFailed(RuntimeError):
    """A run that ended early, its reason already recorded. One string, so that it can be pickled."""


class Stopped(Exception):
    """A run that ended early for a reason outside it; it may be continued."""


def keep_asked() -> None:
    """Remember, for this process and its workers, whether the user asks for tracebacks."""
    os.environ[_ASKED] = os.environ.get(FULL, "")


def show_traceback() -> None:
    """Print the traceback of the error that is being handled, where the user asks for it."""
    if os.environ.get(_ASKED, os.environ.get(FULL)) == "1":
        traceback.print_exc()


def escaped(text: object) -> str:
    """Return ``text`` with everything that is not UTF-8, such as bytes of a file name, as escapes."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, in the database's own words where SQLAlchemy wraps its error."""
    error = getattr(error.__cause__, "orig", None) or error
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
