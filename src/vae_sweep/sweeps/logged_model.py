"""A run's model for users of MLflow."""

from __future__ import annotations

import numpy as np
import torch

import vae_sweep
from vae_sweep.base.plugins import OURS
from vae_sweep.sweeps.run import Run
from vae_sweep.tracking.models import Described, log_model, register_model
from vae_sweep.tracking.names import MODEL, REGISTERED

LOADER = "vae_sweep.serving"


def record_model(run: Run) -> None:
    """Log the model of a finished run, unless the run has it, with its final metrics; register it where that is asked.

    Raises:
        UserError: where the store fails, or has no checkpoint of the run.
    """
    model_id = log_model(run.store, run.record.run_id, _described(run))
    run.record.set_tags({MODEL: model_id})
    name = run.cfg.get("register")  # a plan of an earlier version does not say
    if name:
        register_model(run.store, model_id, name)
        run.record.set_tags({REGISTERED: name})


def _described(run: Run) -> Described:
    latents, target = run.cfg.params.latent_dim, str(run.cfg.model["_target_"])
    versions = {"vae-sweep": vae_sweep.__version__, "torch": torch.__version__.partition("+")[0]}
    return Described(
        name=run.name,
        loader=LOADER,
        example=np.zeros((1, latents), np.float32),  # the mean of the prior
        requirements=[f"{package}=={version}" for package, version in versions.items()],
        params={"what": "auto"},
        config={} if target.startswith(OURS) else {"model": target},
        facts={"latents": [-1, latents], "images": [-1, *run.dataset.image_shape]},
    )
