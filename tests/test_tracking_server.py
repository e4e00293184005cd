"""The compose file of the tracking server agrees with the script beside it, and with this MLflow."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import environment_variables

FOLDER = Path(__file__).parent.parent / "docs" / "tracking-server"
SCRIPT = (FOLDER / "server.sh").read_text(encoding="utf-8")
WITH_DEFAULT = re.compile(r"\$\{(\w+):-(\w+)\}")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose()["services"]


def compose() -> dict[str, Any]:
    """The file as Compose reads it where no variable but passwords is set."""
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(WITH_DEFAULT.sub(r"\2", text))


def flags(command: str) -> dict[str, str]:
    """Flag -> value, "" for a switch, of a command that ends with flags."""
    words = shlex.split(command[command.index(" --") :])
    return {
        word: "" if following.startswith("--") else following
        for word, following in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


def in_script(pattern: str) -> str:
    found = re.search(pattern, SCRIPT, re.DOTALL)
    assert found is not None, pattern
    return found[1]


def test_mlflow_gets_the_flags_of_the_script(services: dict[str, Any]) -> None:
    expected = flags(in_script(r'exec "\$PYTHON" -m (mlflow server .*?)\n  \)').replace("\\\n", " "))
    defaults = {"$PORT": "5000", "$WORKERS": "2", "$folder/artifacts": "/artifacts"}
    for variable, value in defaults.items():
        expected = {flag: given.replace(variable, value) for flag, given in expected.items()}
    assert expected.pop("--host") == "127.0.0.1"
    found = flags(services["mlflow"]["command"])
    assert found.pop("--host") == "0.0.0.0"  # of the container; the port is published on this machine alone
    assert found == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of MLflow's own type hints
        from mlflow.cli import cli
    known = {option for parameter in cli.commands["server"].params for option in parameter.opts}
    assert set(found) <= known
    assert services["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]


def test_mlflow_gets_the_variables_and_settings_of_the_script(services: dict[str, Any]) -> None:
    exported = set(re.findall(r"\b(MLFLOW_\w+)=", in_script(r'cd "\$folder"\n(.*?)unset')))
    found = services["mlflow"]["environment"]
    assert set(found) == exported
    names = "MLFLOW_AUTH_CONFIG_PATH", "MLFLOW_AUTH_ADMIN_PASSWORD"
    assert set(names) < exported
    if hasattr(environment_variables, names[1]):  # a server needs a newer MLflow than 3.13
        assert {getattr(environment_variables, name).name for name in names} < exported
    for variable in ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "MLFLOW_DISABLE_TELEMETRY"):
        assert f"{variable}={found[variable]}" in SCRIPT
    settings = [configparser.ConfigParser(interpolation=None) for _ in range(2)]
    settings[0].read_string(in_script(r"<<INI\n(.*?)\nINI").replace("$database", "DATABASE"))
    settings[1].read_string(compose()["configs"]["auth_ini"]["content"])
    script, container = (dict(parser["mlflow"]) for parser in settings)
    assert script.pop("database_uri") == "DATABASE/mlflow_auth"
    assert container.pop("database_uri") == f"{found['MLFLOW_BACKEND_STORE_URI']}_auth"
    assert container == script


def test_the_image_has_the_packages_of_the_script(services: dict[str, Any]) -> None:
    packages = re.search(r"pip install (.*)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert packages is not None
    assert services["mlflow"]["build"]["dockerfile_inline"].rstrip().endswith(packages[1])
    for package in shlex.split(packages[1]):
        assert re.split("[<>]", package)[0] in SCRIPT


def test_every_password_is_given_and_none_is_written_down(services: dict[str, Any]) -> None:
    text = json.dumps(compose())
    for name in ("PG_PASSWORD", "MLFLOW_PASSWORD", "SECRET_KEY"):
        assert f"${{{name}:?" in text  # refused where it is missing
    assert services["postgres"]["environment"]["POSTGRES_PASSWORD"].startswith("${PG_PASSWORD:?")
    assert set(re.findall(r"\$\{(\w+)", text)) == {"PG_PASSWORD", "MLFLOW_PASSWORD", "SECRET_KEY"}


def test_mlflow_waits_for_a_healthy_database_and_both_keep_their_data(services: dict[str, Any]) -> None:
    assert services["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    made = compose()
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        volume, _, path = service["volumes"][0].partition(":")
        assert volume in made["volumes"]
        assert path in (flags(services["mlflow"]["command"])["--artifacts-destination"], "/var/lib/postgresql/data")
        assert {config["source"] for config in service["configs"]} <= set(made["configs"])
    assert "ports" not in services["postgres"]  # reached by MLflow alone
    compile(services["mlflow"]["healthcheck"]["test"][-1], "healthcheck", "exec")
    for database in ("mlflow", "mlflow_auth"):
        assert f'"{database}"' in in_script(r"for name in (\(.*?\)):")
    assert made["configs"]["auth_database"]["content"] == "CREATE DATABASE mlflow_auth OWNER mlflow;"
    assert services["postgres"]["environment"]["POSTGRES_DB"] == "mlflow"
