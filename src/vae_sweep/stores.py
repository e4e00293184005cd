"""Where runs are stored: one address, absolute, and the way to look at it."""

from __future__ import annotations

import os
import re
import shlex
import urllib.error
import urllib.request
from pathlib import Path

from vae_sweep.errors import UserError

LIGHT_UI = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1"  # 2 processes instead of 15


def store_uri(uri: str | None, root: Path) -> str:
    """Return the tracking URI to use: ``uri``, else MLFLOW_TRACKING_URI, else SQLite at ``root``/mlflow.db.

    A relative SQLite path is made absolute here, once: in another working directory it would silently name a second,
    empty store.

    Raises:
        UserError: for a store that MLflow cannot use.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme == "file":
        raise UserError(
            f"tracking.uri={masked(uri)}: MLflow no longer keeps runs in plain folders; "
            "give sqlite:///path/mlflow.db, a database or http://host:port"
        )
    if scheme.startswith("sqlite"):
        path = Path(rest[1:])
        if "%" in rest:
            raise UserError(
                f"tracking.uri={masked(uri)}: MLflow cannot open a SQLite path with a % in it; use another folder"
            )
        uri = f"{scheme}:///{path if path.is_absolute() else root / path}"
    return uri


def ui_command(uri: str, root: Path) -> str:
    """Return the command or address that shows the runs of the store at ``uri``."""
    if uri.startswith(("http://", "https://")):
        return uri
    if uri == f"sqlite:///{root / 'mlflow.db'}":
        return f"cd {shlex.quote(str(root))} && {LIGHT_UI}"
    return f"{LIGHT_UI} --backend-store-uri {shlex.quote(masked(uri))}"


def masked(uri: str) -> str:
    """Return ``uri`` with its password, where it has one, replaced by stars: for everything that is shown or kept."""
    return re.sub(r"(://[^/@:]*:)[^@]*@", r"\1***@", uri)


def check_answers(uri: str) -> None:
    """Ask a tracking server for its health: MLflow itself would retry for minutes before it says no."""
    if uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
                pass
        except urllib.error.HTTPError:
            pass  # something answers; MLflow will say what it thinks of the credentials
        except OSError as error:
            raise UserError(
                f"tracking.uri={masked(uri)}: no MLflow server answers there ({first_line(error)}); "
                "start it, or give another tracking.uri"
            ) from error


def first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
