"""Addresses of pages in the MLflow UI; its fragments are those of MLflow 3.13 to 3.17."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from vae_sweep.tracking.names import PARENT, VIEW
from vae_sweep.tracking.store import StoredRun

MOST_IDS = 60  # in a search; MLflow keeps 5000 characters of a view
TRAINING = {"workflowType": "machine_learning"}  # not the mode for language models, which a new browser opens


def home(server: str, experiment_id: str) -> str:
    """Return where the UI at ``server`` lists all runs of an experiment."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(TRAINING)}"


def condition(sweep_id: str, runs: Sequence[StoredRun]) -> str:
    """Return what the UI's search finds the ``runs`` of a sweep by, also those that another sweep has trained."""
    if len(runs) > MOST_IDS or all(run.parent_id == sweep_id for run in runs):
        return f"tags.{PARENT} = '{sweep_id}'"
    return f"attributes.run_id IN ({', '.join(repr(run.run_id) for run in runs)})"


def pages(server: str, sweep: StoredRun, runs: Sequence[StoredRun]) -> dict[str, str]:
    """Return what to look at first in the UI at ``server``, and where: a sweep's runs, their comparison, its files."""
    base = f"{server.rstrip('/')}/#"
    search = urlencode({"searchFilter": condition(sweep.run_id, runs), **TRAINING}, quote_via=quote)
    compared = {
        "runs": json.dumps([run.run_id for run in runs]),
        "experiments": json.dumps([sweep.experiment_id]),
        **TRAINING,
    }
    charts = {"compareRunsMode": "CHART", "viewStateShareKey": sweep.tags.get(VIEW, ""), **TRAINING}
    home = f"{base}/experiments/{sweep.experiment_id}"
    seen = {"its images over epochs": f"{home}/runs?{urlencode(charts)}"} if VIEW in sweep.tags else {}
    return {
        **seen,
        "its runs": f"{home}/runs?{search}",
        "runs compared": f"{base}/compare-runs?{urlencode(compared, quote_via=quote)}",
        "its files": f"{home}/runs/{sweep.run_id}/artifacts?{urlencode(TRAINING)}",
    }
