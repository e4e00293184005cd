"""Names in the tracking store. Stored runs have them, so they never change."""

# Tags.
ROLE = "vae_sweep.role"  # run, or sweep
RUN_KEY = "vae_sweep.run_key"  # identity of a run
SWEEP_KEY = "vae_sweep.sweep_key"  # identity of the sweep that trained it
SETTINGS = "vae_sweep.settings"  # hash of its configuration alone
MADE_OF = "vae_sweep.made_of"  # its images and code, by name: JSON
MACHINE = "vae_sweep.machine"  # what two machines share that compute the same bits
TRAINING_STATE = "vae_sweep.training_state"  # how training ended; with .why after it, in a sentence
MEASURED = "vae_sweep.metrics"  # settings and code that a run's held-out metrics come from
METRIC_NAMES = "vae_sweep.metrics.names"  # the held-out metrics of the last measuring, without prefix
UNDEFINED = "vae_sweep.metrics.undefined"  # metrics that the images do not define, and why, a line each

# Artifacts.
PLAN = "sweep.json"  # of a sweep: its cells, also those that have not started
DATA = "data.json"  # of a run: what its data set was taken for
SPECTRUM = "kl_spectrum.npy"  # of a run: KL per latent, (L,)
LINEAR = "reference.json"  # of a run: KL spectrum of the closed-form linear VAE, and its rate-distortion curve


def linked(sweep_id: str) -> str:
    """Return the tag of a finished run that another sweep, the one of run ``sweep_id``, uses instead of training it."""
    return f"vae_sweep.in_sweep.{sweep_id}"
