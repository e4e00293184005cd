"""What a user can mend, and nothing else."""


class UserError(Exception):
    """One line that names the value, what is allowed and what to do; shown without a traceback."""


class StoreError(UserError):
    """The tracking store did not take or give something; what it concerns may be tried again later."""


class RunFailed(RuntimeError):
    """A run that ended early; its reason is already recorded. One string, so that it crosses processes."""


class Stopped(Exception):
    """A run that ended early for a reason outside it; it may be continued."""


def escaped(text: object) -> str:
    """Return ``text`` with what is not UTF-8, such as bytes of a file's name, as escapes: it can be stored anywhere."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, in the database's own words where one is behind it."""
    error = getattr(error.__cause__, "orig", None) or error
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
