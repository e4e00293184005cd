"""Where runs are stored: one address, absolute, and the way to look at it."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import urllib.error
import urllib.request
from pathlib import Path

from vae_sweep.errors import UserError, first_line

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
        path = path if path.is_absolute() else root / path
        if path.is_dir():
            raise UserError(f"tracking.uri={masked(uri)}: {path} is a folder; give sqlite:///path/mlflow.db")
        uri = f"{scheme}:///{path}"
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
    """Ask a server for its health, a database for a connection: MLflow would retry for minutes before it says no.

    Raises:
        UserError: where nothing answers, or not to this user.
    """
    if not uri.startswith(("http://", "https://", "sqlite")):
        _connect(uri)
    if uri.startswith(("http://", "https://")):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
                pass
        except urllib.error.HTTPError:
            pass  # something answers; MLflow will say what it thinks of the credentials
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UserError(
                f"tracking.uri={masked(uri)}: no MLflow server answers there ({first_line(error)}); "
                "start it, or give another tracking.uri"
            ) from error


def _connect(uri: str) -> None:
    """Connect to a database, once."""
    import sqlalchemy

    postgres = uri.startswith("postgres")
    try:
        engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": 10} if postgres else {})
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        extra = "pip install 'vae-sweep[postgres]'" if postgres else "install it"
        raise UserError(f"tracking.uri={masked(uri)}: its driver {error.name} is missing; {extra}") from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise UserError(
            f"tracking.uri={masked(uri)}: no such kind of store; "
            "give sqlite:///path/mlflow.db, a database or http://host:port"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise UserError(
            f"tracking.uri={masked(uri)}: cannot be opened ({first_line(error)}); "
            "check address, user and password, or give another tracking.uri"
        ) from error
