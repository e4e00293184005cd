"""What a user can mend, and nothing else."""


class UserError(Exception):
    """One line that names the value, what is allowed and what to do; shown without a traceback."""


class RunFailed(RuntimeError):
    """A run that ended early; its reason is already recorded. One string, so that it crosses processes."""


class Stopped(Exception):
    """A run that ended early for a reason outside it; it may be continued."""
