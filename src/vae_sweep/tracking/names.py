"""Names of the tags that runs are found by in the tracking store."""

ROLE = "vae_sweep.role"  # run, or sweep
RUN_KEY = "vae_sweep.run_key"  # identity of a run
SWEEP_KEY = "vae_sweep.sweep_key"  # identity of the sweep that trained it
SETTINGS = "vae_sweep.settings"  # hash of its configuration alone
MADE_OF = "vae_sweep.made_of"  # its images and code, by name: JSON
MACHINE = "vae_sweep.machine"  # what two machines share that compute the same bits


def linked(sweep_id: str) -> str:
    """Return the tag of a finished run that another sweep, the one of run ``sweep_id``, uses instead of training it."""
    return f"vae_sweep.in_sweep.{sweep_id}"
