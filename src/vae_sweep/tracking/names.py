"""Names of tags and artifacts in the tracking store, and how long values may be. Stored runs have them: they stay."""

from __future__ import annotations

# Tags.
ROLE = "vae_sweep.role"  # run, or sweep
RUN_KEY = "vae_sweep.run_key"  # identity of a run
SWEEP_KEY = "vae_sweep.sweep_key"  # identity of the sweep that trained it
SETTINGS = "vae_sweep.settings"  # hash of its configuration alone
ANEW = "vae_sweep.anew"  # of a sweep: resume=false, so it shares no older run of another sweep
MADE_OF = "vae_sweep.made_of"  # its images and code, by name: JSON
MACHINE = "vae_sweep.machine"  # what two machines share that compute the same bits
PROJECT = "vae_sweep.place"  # id of the project folder
OUTPUTS = "vae_sweep.outputs"  # Hydra's folder
START = "vae_sweep.start"  # unique per run, and known before the store has the run
ERROR = "vae_sweep.error"  # why a run ended early
FEATURES = "vae_sweep.features"  # network of the distances; with .sha256, .resize and .images more about it
TRAINING_STATE = "vae_sweep.training_state"  # how training ended; with .why after it, in a sentence
MEASURED = "vae_sweep.metrics"  # settings and code that a run's held-out metrics come from
METRIC_NAMES = "vae_sweep.metrics.names"  # the held-out metrics of the last measuring, without prefix
MODEL = "vae_sweep.model"  # id of its LoggedModel, once that is complete
REGISTERED = "vae_sweep.registered"  # name in the model registry that it is a version of
VIEW = "vae_sweep.view"  # of a sweep: key of its view in the UI
UNDEFINED = "vae_sweep.metrics.undefined"  # metrics that the images do not define, and why, a line each

# Tags of MLflow.
PARENT = "mlflow.parentRunId"  # the sweep of a run
NOTE = "mlflow.note.content"  # description in Markdown, shown by the UI
COLOUR = "mlflow.runColor"  # of a run in the charts of the UI
KIND = "mlflow.experimentKind"  # of an experiment; without it the UI opens in its mode for language models
TABLES = "mlflow.loggedArtifacts"  # artifacts that the UI shows as tables

# Artifacts.
PLAN = "sweep.json"  # of a sweep: its cells, also those that have not started
DATA = "data.json"  # of a run: what its dataset was taken for
SPECTRUM = "kl_spectrum.npy"  # of a run: KL per latent, (L,)
LINEAR = "reference.json"  # of a run: the closed-form linear VAE's metrics, KL spectrum and rate-distortion curve
LINEAR_SAMPLES = "reference_samples.npy"  # of a run: images of its prior draws, uint8 (n, C, H, W)
LINEAR_RECONSTRUCTIONS = "reference_reconstructions.npy"  # and of the run's test images, uint8 (n, C, H, W)

NOTE_LIMIT = 8000  # characters of a tag; MLflow refuses longer ones
PARAM_LIMIT = 6000  # characters of a parameter
NAME_LIMIT = 250  # characters of a run's name


def linked(sweep_id: str) -> str:
    """Return the tag of a finished run that the sweep of run ``sweep_id`` reuses instead of training it."""
    return f"vae_sweep.in_sweep.{sweep_id}"
