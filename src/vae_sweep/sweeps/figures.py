"""The figures of one run, written to the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig

from vae_sweep.datasets.permuted import PERMUTED
from vae_sweep.metrics.losses import unit
from vae_sweep.models.vae import VAE
from vae_sweep.report.model_figures import FIGURES, Trained, some_of
from vae_sweep.tracking.store import RunRecord

ARRAYS = ("samples", "interpolations")  # kept for reports
N_RECONSTRUCTIONS = 16  # test images shown beside their reconstructions


@torch.no_grad()
def log_run_figures(
    cfg: DictConfig,
    model: VAE,
    test: torch.Tensor,
    facts: Mapping[str, Any],
    name: str,
    history: list[dict[str, float]],
    line: Mapping[str, float],
    record: RunRecord,
) -> None:
    """Draw the figures of a trained run and record them, samples and interpolations also as arrays.

    ``facts`` are those of the dataset: pixels that it permuted are put back for the eye. ``line``: validation loss and
    terms of the closed-form linear VAE.
    """
    where = f"{name} on {cfg.dataset.name}, seed {cfg.seed}"
    if facts.get(PERMUTED):
        where += ", trained on permuted pixels, put back here"
    if cfg.objective.reduction == "mean":
        where += " (squared error averaged over an image's values: not nats)"
    trained = Trained(
        model,
        where,
        cfg.seed,
        n_samples=cfg.evaluation.n_samples,
        n_interpolations=cfg.evaluation.n_interpolations,
        originals=some_of(test.numpy(), N_RECONSTRUCTIONS, seed=0),  # the same in every run
        facts=facts,
        history=history,
        linear=line,
        unit=unit([cfg.objective.reduction]),
    )
    for kind, draw in FIGURES.items():
        drawn = draw(trained)
        record.log_figure(drawn.figure, f"figures/{kind}.png")
        if kind in ARRAYS and drawn.images is not None:
            record.log_array(drawn.images, f"{kind}.npy")
