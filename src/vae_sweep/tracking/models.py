"""Trained models as MLflow 3 has them: a LoggedModel of each run, and its versions in the model registry.

The folder of a model is a pyfunc whose loader reads the run's ``checkpoint.pt``, so nothing in it is pickled. MLflow's
flavour for PyTorch would store the weights again, as a pickle, or, for seconds a run, as a program (pt2) of either the
encoder or the decoder.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from mlflow.entities import LoggedModelOutput, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from vae_sweep.base.errors import StoreError, UserError
from vae_sweep.tracking.client import error_code
from vae_sweep.tracking.record import RunRecord
from vae_sweep.tracking.store import Store

CHECKPOINT = "checkpoint.pt"
EXAMPLE, REQUEST = "input_example.json", "serving_input_example.json"
READY = "READY"
VERSIONS = "mlflow.modelVersions"  # tag of a model, of MLflow
LINKED = ("test/", "best/")  # beginnings of the metrics that belong to the trained model
ANYTHING = Schema([TensorSpec(np.dtype(object), (-1,))])  # MLflow has no other signature for one of two shapes


@dataclass(frozen=True)
class Described:
    """What MLflow needs to know of a model, beside its weights."""

    name: str
    loader: str  # module whose ``_load_pyfunc`` reads a checkpoint
    example: np.ndarray  # an input
    requirements: Sequence[str]  # of pip
    params: Mapping[str, str] = field(default_factory=dict)  # of a request, with their defaults
    config: Mapping[str, Any] = field(default_factory=dict)  # handed to the loader
    facts: Mapping[str, Any] = field(default_factory=dict)  # shown as the model's metadata


def log_model(store: Store, run_id: str, described: Described) -> str:
    """Give a run its LoggedModel, unless it has one; link the run's final metrics to it; return its id.

    What a killed process has begun is completed. On this machine's disk the model's checkpoint is a link to the run's.

    Raises:
        StoreError: where the store fails.
        UserError: where the run has no checkpoint.
    """
    client, run = store.client, store.client.get_run(run_id)
    model = client.retry(lambda once: _found(once, run) or _created(once, run, described.name))
    if model.status != READY:
        with tempfile.TemporaryDirectory(prefix="vae_sweep-") as temporary:
            _write(Path(temporary), described, model.model_id, store.record(run_id))
            client.log_model_artifacts(model.model_id, temporary)
        if not _linked(run.info.artifact_uri, model.artifact_location):
            with store.artifact(run_id, CHECKPOINT) as path:
                if path is None:
                    raise UserError(f"run {run_id[:8]} has no {CHECKPOINT}; resume=false trains it again")
                client.log_model_artifacts(model.model_id, str(path.parent))
        if model.model_id not in {output.model_id for output in run.outputs.model_outputs}:
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        client.finalize_logged_model(model.model_id, READY)
    _link_metrics(store.record(run_id), model.model_id)
    return str(model.model_id)


def register_model(store: Store, model_id: str, name: str) -> None:
    """Make a model a version of the registered model ``name``, unless it is one, with its own name as the alias.

    As MLflow's ``registered_model_name``: all models of a sweep are versions of one name. ``models:/NAME@ALIAS`` is the
    newest one of a cell.

    Raises:
        StoreError: where the store fails.
    """
    client = store.client
    model = client.get_logged_model(model_id)
    try:
        client.without_retries().create_registered_model(name)
    except StoreError as error:
        if error_code(error.__cause__) != "RESOURCE_ALREADY_EXISTS":  # by another run
            raise
    known = client.search_model_versions(f"name = '{name}' AND run_id = '{model.source_run_id}'")
    version = next(iter(known), None) or client.create_model_version(
        name, f"models:/{model_id}", run_id=model.source_run_id, model_id=model_id
    )
    client.set_registered_model_alias(name, re.sub(r"[^\w-]", "_", model.name), version.version)
    versions = [{"name": name, "version": version.version}]  # what the UI links to
    stored = json.loads(model.tags.get(VERSIONS, "[]"))
    client.set_logged_model_tags(model_id, {VERSIONS: json.dumps(stored + [v for v in versions if v not in stored])})


def _link_metrics(record: RunRecord, model_id: str) -> None:
    """Show the final metrics of a run, as they are stored, as those of its model on its dataset."""
    run = record.client.get_run(record.run_id)
    datasets = [known.dataset for known in run.inputs.dataset_inputs]
    on = {"dataset_name": datasets[0].name, "dataset_digest": datasets[0].digest} if datasets else {}
    found = [
        Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=record.run_id, **on)
        for m in run.data._metric_objs  # with their times: the run must not have them twice
        if m.key.startswith(LINKED)
    ]
    record.client.log_batch(record.run_id, metrics=found)


def _found(client: Any, run: Any) -> Any:
    """The model that this run has, also one that a killed process has only begun."""
    condition = f"source_run_id = '{run.info.run_id}'"
    return next(iter(client.search_logged_models([run.info.experiment_id], condition)), None)


def _created(client: Any, run: Any, name: str) -> Any:
    name = re.sub(r"""[/:.%"']""", "_", name)  # what MLflow refuses in a name
    return client.create_logged_model(
        run.info.experiment_id, name=name, source_run_id=run.info.run_id, params=run.data.params, model_type="VAE"
    )


def _write(folder: Path, described: Described, model_id: str, record: RunRecord) -> None:
    """Write what MLflow loads and serves but for the checkpoint, with what the run has recorded of the user's own code.

    By hand: ``mlflow.pyfunc.save_model`` takes a second to look through all installed packages, and copies the weights.
    """
    params = [ParamSpec(key, DataType.string, value) for key, value in described.params.items()]
    model = Model(
        artifact_path=f"models:/{model_id}",
        run_id=record.run_id,
        model_id=model_id,
        model_uuid=model_id,
        signature=ModelSignature(inputs=ANYTHING, params=ParamSchema(params)),
        saved_input_example_info={"artifact_path": EXAMPLE, "serving_input_path": REQUEST, "type": "ndarray"},
        metadata=dict(described.facts),
    )
    more: dict[str, Any] = {"code": "code"} if _own_code(record, folder / "code") else {}
    more |= {"config": dict(described.config)} if described.config else {}
    version = platform.python_version()
    model.add_flavor("python_function", loader_module=described.loader, data=CHECKPOINT, python_version=version, **more)
    model.save(str(folder / "MLmodel"))
    example = described.example.tolist()
    texts = {EXAMPLE: json.dumps(example), REQUEST: json.dumps({"inputs": example})}
    texts["requirements.txt"] = "\n".join(described.requirements) + "\n"
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _own_code(record: RunRecord, folder: Path) -> bool:
    """Copy the modules that the run has recorded, laid out to be imported; return whether it has any."""
    if not record.client.list_artifacts(record.run_id, "source"):
        return False
    folder.mkdir()
    with tempfile.TemporaryDirectory(prefix="vae_sweep-") as temporary:
        source = Path(record.client.download_artifacts(record.run_id, "source", temporary))
        shutil.copytree(source, folder, dirs_exist_ok=True)
    for package in [path for path in folder.rglob("*") if path.is_dir() and path.with_suffix(".py").exists()]:
        package.with_suffix(".py").rename(package / "__init__.py")
    return True


def _linked(run: str, model: str) -> bool:
    """Link the checkpoint of one folder of artifacts into another; return whether both are on a disk that can."""
    folders = [urlsplit(uri) for uri in (run, model)]
    if any(folder.scheme != "file" for folder in folders):
        return False
    ours, theirs = (Path(unquote(folder.path), CHECKPOINT) for folder in folders)
    theirs.unlink(missing_ok=True)
    with suppress(OSError):
        os.link(ours, theirs)
    return theirs.exists()
