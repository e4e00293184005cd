"""The figures of one run, recorded in the store."""

from __future__ import annotations

import torch

from vae_sweep.datasets.permuted import PERMUTED
from vae_sweep.metrics.losses import unit
from vae_sweep.models.vae import VAE
from vae_sweep.report.model_figures import FIGURES, Trained
from vae_sweep.sweeps.run import Run
from vae_sweep.training.evaluation import Averages

ARRAYS = ("samples", "interpolations", "reconstructions")  # recorded for reports


@torch.no_grad()
def log_run_figures(run: Run, model: VAE, history: list[dict[str, float]]) -> None:
    """Draw the figures of a trained run and record them, their images also as arrays.

    ``history``: an entry per epoch. Pixels that the dataset permuted are unshuffled for the eye.
    """
    cfg, record, facts = run.cfg, run.record, run.dataset.facts
    where = f"{run.name} on {cfg.dataset.name}, seed {cfg.seed}"
    if facts.get(PERMUTED):
        where += ", trained on permuted pixels, unshuffled here"
    if cfg.objective.reduction == "mean":
        where += " (squared error averaged over an image's values: not nats)"
    trained = Trained(
        model,
        where,
        cfg.seed,
        n_samples=cfg.evaluation.n_samples,
        n_interpolations=cfg.evaluation.n_interpolations,
        originals=run.originals,
        facts=facts,
        history=history,
        linear={term: getattr(run.linear, f"val_{term}") for term in Averages._fields},
        unit=unit([cfg.objective.reduction]),
    )
    for name, draw in FIGURES.items():
        drawn = draw(trained)
        record.log_figure(drawn.figure, f"figures/{name}.png")
        if name in ARRAYS and drawn.images is not None:
            record.log_array(drawn.images, f"{name}.npy")
