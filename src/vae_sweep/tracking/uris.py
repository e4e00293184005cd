"""Where runs are stored: one address, absolute and without its secret, and the way to look at it.

An address comes in through :func:`store_uri` only. What it holds of a secret goes into the environment, which the
processes of a sweep inherit, and comes out of it in :func:`with_secret` only: what is shown, pickled or kept has none.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import urllib.error
import urllib.request
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vae_sweep.base.errors import UserError, first_line

LIGHT_UI = "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --workers 1"  # 2 processes instead of 15
GIVE = "give sqlite:///path/mlflow.db, a database or http://host:port"
SERVERS = ("http://", "https://")
HIDDEN = "***"  # in the place of a secret
SHOWN = "timeout|mode|cache|uri|sslmode|charset|connect_timeout|driver"  # of an address's query; it may hide the rest


def store_uri(uri: str | None, root: Path) -> str:
    """Return the tracking URI to use: ``uri``, else MLFLOW_TRACKING_URI, else SQLite at ``root``/mlflow.db.

    A relative SQLite path is made absolute here, once: in another working directory it would silently name a second,
    empty store. A user, a password or a token moves into the environment.

    Raises:
        UserError: for a store that MLflow cannot use.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")
    if uri.startswith(SERVERS):
        return _server(uri)
    if not is_plugin(uri):
        uri = _database(uri, root)
    if masked(uri) != uri:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    return masked(uri)


def _database(uri: str, root: Path) -> str:
    """The address of a database; a SQLite file's is absolute."""
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(f"tracking.uri={masked(uri)}: MLflow no longer keeps runs in plain folders; {GIVE}")
    path = sqlite_path(uri)
    if path is None:
        if "@" in (_parsed(uri).host or ""):
            raise UserError(f"tracking.uri={masked(uri)}: write a @ in a user or password as %40")
        return uri
    given, mark, query = uri.partition("?")
    path = path if path.is_absolute() else root / path
    if query and "=" not in query:
        raise UserError(f"tracking.uri={masked(uri)}: write a ? in a path as %3F")
    if path.is_dir():
        raise UserError(f"tracking.uri={masked(uri)}: {path} is a folder; give sqlite:///path/mlflow.db")
    return sqlite_uri(path, given.partition("://")[0]) + mark + query


def _server(uri: str) -> str:
    """The address of a server, its user in the variables that MLflow reads: MLflow's errors name the whole address."""
    try:
        parts = urlsplit(uri)
        valid = parts.port != 0 and "@" not in parts.path and not parts.query and not parts.fragment
    except ValueError:  # a port that is no number: a / or a # in the password
        valid = False
    if not valid:
        raise UserError(
            f"tracking.uri={masked(uri)}: not the address of a server, which is http://host:port; give a user by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, a token by MLFLOW_TRACKING_TOKEN"
        )
    who, _, host = parts.netloc.rpartition("@")
    if not who:
        return uri
    user, _, password = (unquote(part) for part in who.partition(":"))
    basic = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    for variable in (*basic, "MLFLOW_TRACKING_TOKEN"):
        os.environ.pop(variable, None)
    os.environ.update(basic if password else {"MLFLOW_TRACKING_TOKEN": user})
    return parts._replace(netloc=host).geturl()


def with_secret(uri: str) -> str:
    """Return the address that MLflow opens for ``uri``, which :func:`store_uri` returned, here or in another process.

    Raises:
        UserError: where this process did not inherit the secret.
    """
    if HIDDEN not in uri:
        return uri
    whole = os.environ.get("MLFLOW_TRACKING_URI", "")
    if masked(whole) != uri:
        raise UserError(
            f"tracking.uri={uri}: its password is not known to this process; set MLFLOW_TRACKING_URI where it starts "
            "(on a Ray cluster before `ray start`)"
        )
    return whole


def masked(uri: str) -> str:
    """Return ``uri`` with stars for its password or token, and for what its query may hide: to be shown or kept."""
    start = "://" if "://" in uri else "^"
    user = r"(://)(?!/).*@" if uri.startswith(SERVERS) else rf"({start}[^:@/]*:).*@"  # a server's user may be a token
    uri = re.sub(user, rf"\1{HIDDEN}@", uri, flags=re.DOTALL)
    path, mark, query = uri.partition("?") if uri.startswith("sqlite") else ("", "", uri)
    return path + re.sub(rf"([?&](?!(?:{SHOWN})=)[^=&]*=)[^&]*", rf"\1{HIDDEN}", mark + query)


@cache
def _plugins() -> set[str]:
    known = {point.name for point in entry_points(group="mlflow.tracking_store")} - {"http", "https", "file"}
    return known | {"databricks", "databricks-uc", "uc"}


def is_plugin(uri: str) -> bool:
    """Return whether ``uri`` is of Databricks, or of a store that another package brings to MLflow."""
    return uri.partition(":")[0] in _plugins()


def is_database(uri: str) -> bool:
    """Return whether this process writes to a database itself, and artifacts lie where it says."""
    return not uri.startswith(SERVERS) and not is_plugin(uri)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite address; None for any other store."""
    return Path(_parsed(uri).database or "") if uri.startswith("sqlite") else None


def sqlite_uri(path: Path, scheme: str = "sqlite") -> str:
    """Return the address of a SQLite file.

    MLflow makes the folder of a ``sqlite:///`` address as it is written, so one that must be quoted names its driver.

    Raises:
        UserError: where no address can name it.
    """
    quoted = str(path).replace("%", "%25").replace("?", "%3F")
    plain, named = f"{scheme}:///{path}", f"{scheme if '+' in scheme else 'sqlite+pysqlite'}:///{quoted}"
    for uri in (plain, named):
        if sqlite_path(uri) == path:
            return uri
    raise UserError(f"{path}: SQLAlchemy cannot open this path; pip install 'sqlalchemy>=2.1', or use another folder")


def _parsed(uri: str) -> Any:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(uri)
    except (ArgumentError, ValueError) as error:
        raise UserError(f"tracking.uri={masked(uri)}: not an address; {GIVE}") from error


def ui_command(uri: str, root: Path) -> str:
    """Return the command or address that shows the runs of the store at ``uri``."""
    if not is_database(uri):
        return uri
    if uri == sqlite_uri(root / "mlflow.db"):
        return f"cd {shlex.quote(str(root))} && {LIGHT_UI}"
    return f"{LIGHT_UI} --backend-store-uri {shlex.quote(uri)}"


def check_answers(uri: str) -> None:
    """Ask a server for its health, a database for a connection: MLflow would retry for minutes before it says no.

    Raises:
        UserError: where nothing answers, or not to this user.
    """
    if is_database(uri) and (not uri.startswith("sqlite") or "?" in uri):  # a query may hold what SQLite does not know
        _connect(uri)
    if uri.startswith(SERVERS):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
                pass
        except urllib.error.HTTPError:
            pass  # something answers; MLflow will say what it thinks of the credentials
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UserError(
                f"tracking.uri={uri}: no MLflow server answers there ({first_line(error)}); "
                "start it, or give another tracking.uri"
            ) from error


def _connect(uri: str) -> None:
    """Connect to a database, once."""
    import sqlalchemy

    postgres = uri.startswith("postgres")
    try:
        connect_args = {"connect_timeout": 10} if postgres else {}
        engine = sqlalchemy.create_engine(with_secret(uri), connect_args=connect_args)
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        extra = "pip install 'vae-sweep[postgres]'" if postgres else "install it"
        raise UserError(f"tracking.uri={uri}: its driver {error.name} is missing; {extra}") from error
    except sqlalchemy.exc.NoSuchModuleError as error:
        raise UserError(f"tracking.uri={uri}: no such kind of store; {GIVE}") from error
    except (sqlalchemy.exc.SQLAlchemyError, TypeError) as error:  # TypeError: an option that its driver does not know
        raise UserError(
            f"tracking.uri={uri}: cannot be opened ({first_line(error)}); "
            "check address, user and password, or give another tracking.uri"
        ) from error
