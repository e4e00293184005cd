"""The tracking URI: absolute and without its password, and the command that shows its runs.

A URI enters through :func:`store_uri` only. Its password goes into the environment, which the processes of a sweep
inherit, and :func:`with_secret` alone reads it there: what is shown, pickled or stored has no password.
"""

from __future__ import annotations

import http.client
import os
import re
import shlex
import ssl
import urllib.error
import urllib.request
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from vae_sweep.base.errors import UserError, first_line
from vae_sweep.base.process import python

GIVE = "give sqlite:///path/mlflow.db, a database or http://host:port"
SERVERS = ("http://", "https://")
HIDDEN = "***"  # instead of a password
SHOWN = "timeout|mode|cache|uri|sslmode|charset|connect_timeout|driver"  # of a query; other values may be passwords


def store_uri(uri: str | None, root: Path) -> str:
    """Return the tracking URI to use: ``uri``, else MLFLOW_TRACKING_URI, else SQLite at ``root``/mlflow.db.

    A relative SQLite path becomes absolute: in another working directory it would name another, empty store. A user, a
    password or a token moves into the environment.

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
    """The URI of a database; of a SQLite file, absolute."""
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
    """The URI of a server; its user goes into MLflow's variables, since MLflow's errors show the whole URI."""
    try:
        parts = urlsplit(uri)
        valid = parts.port != 0 and "@" not in parts.path and not parts.query and not parts.fragment
    except ValueError:  # a port that is not a number: a / or a # in the password
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
    """Return the URI that MLflow opens for ``uri``, which :func:`store_uri` returned in this or another process.

    Raises:
        UserError: where this process did not inherit the password.
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
    """Return ``uri`` with stars for password or token and for unknown values of its query: to be shown or stored."""
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
    """Return whether ``uri`` is of Databricks, or of a store that another package adds to MLflow."""
    return uri.partition(":")[0] in _plugins()


def is_database(uri: str) -> bool:
    """Return whether this process writes to a database and to artifacts itself, not through a server."""
    return not uri.startswith(SERVERS) and not is_plugin(uri)


def sqlite_path(uri: str) -> Path | None:
    """Return the file of a SQLite URI; None for any other store."""
    return Path(_parsed(uri).database or "") if uri.startswith("sqlite") else None


def sqlite_uri(path: Path, scheme: str = "sqlite") -> str:
    """Return the URI of a SQLite file.

    MLflow creates the folder of a ``sqlite:///`` URI without unquoting it, so a quoted path needs the driver's name.

    Raises:
        UserError: where no URI can name it.
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
    """Return the command, or the address, that shows the runs of the store at ``uri``."""
    if not is_database(uri):
        return uri
    if uri == sqlite_uri(root / "mlflow.db"):
        return f"cd {shlex.quote(str(root))} && {python()} -m vae_sweep ui"
    return f"{python()} -m vae_sweep ui {shlex.quote(f'uri={uri}')}"


def check_answers(uri: str) -> None:
    """Check that a server is healthy, or a database accepts a connection: MLflow would retry for minutes.

    Raises:
        UserError: where nothing answers, or the user is refused.
    """
    if is_database(uri) and (not uri.startswith("sqlite") or "?" in uri):  # a query may have unknown options
        _connect(uri)
    if uri.startswith(SERVERS):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10):
                pass
        except urllib.error.HTTPError:
            pass  # it answers; MLflow checks the credentials
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLError):
                return  # it answers; MLflow checks certificates, as its environment variables say
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
    except (sqlalchemy.exc.SQLAlchemyError, TypeError) as error:  # TypeError: an unknown option
        raise UserError(
            f"tracking.uri={uri}: cannot be opened ({first_line(error)}); "
            "check address, user and password, or give another tracking.uri"
        ) from error
