"""Names of tags and artifacts in the tracking store, and how long values may be."""

from __future__ import annotations

ROLE = "vae_sweep.role"  # run, or sweep
RUN_KEY = "vae_sweep.run_key"  # identity of a run
SWEEP_KEY = "vae_sweep.sweep_key"  # identity of the sweep that trained it
SETTINGS = "vae_sweep.settings"  # hash of its configuration alone
MADE_OF = "vae_sweep.made_of"  # its images and code, by name: JSON
MACHINE = "vae_sweep.machine"  # what two machines share that compute the same bits
START = "vae_sweep.start"  # unique per run, and known before the store has the run
ERROR = "vae_sweep.error"  # why a run ended early
FEATURES = "vae_sweep.features"  # network of the distances; with .sha256, .resize and .images more about it

PARENT = "mlflow.parentRunId"  # the sweep of a run
NOTE = "mlflow.note.content"  # description in Markdown, shown by the UI
KIND = "mlflow.experimentKind"  # of an experiment; without it the UI opens in its mode for language models
TABLES = "mlflow.loggedArtifacts"  # artifacts that the UI shows as tables

NOTE_LIMIT = 8000  # characters of a tag; MLflow refuses longer ones
PARAM_LIMIT = 6000  # characters of a parameter
NAME_LIMIT = 250  # characters of a run's name


def linked(sweep_id: str) -> str:
    """Return the tag of a finished run that the sweep of run ``sweep_id`` reuses instead of training it."""
    return f"vae_sweep.in_sweep.{sweep_id}"
