"""The figures of one run: learning curves, reconstructions, samples, interpolations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from vae_sweep.datasets.base import ImageDataset
from vae_sweep.datasets.permuted import PERMUTED, unshuffle
from vae_sweep.metrics.losses import unit
from vae_sweep.models.vae import VAE
from vae_sweep.report import run_figures
from vae_sweep.sweeps.context import Job
from vae_sweep.tracking.store import RunRecord
from vae_sweep.training.evaluation import interpolate, to_float, to_uint8
from vae_sweep.training.randomness import Stream, generator

N_RECONSTRUCTIONS = 16  # test images shown beside their reconstructions


@torch.no_grad()
def log_run_figures(
    job: Job,
    model: VAE,
    dataset: ImageDataset,
    history: list[dict[str, float]],
    linear: Mapping[str, float],
    record: RunRecord,
) -> None:
    """Draw the figures of a trained run and record them, samples and interpolations also as arrays (..., C, H, W).

    Images of a dataset that shuffles pixels are unshuffled. ``linear``: validation loss and terms of the closed-form
    linear VAE.
    """
    cfg, facts, test = job.cfg, dataset.facts, dataset.test.images
    where = f"{job.name} on {cfg.dataset.name}, seed {cfg.seed}"
    if facts.get(PERMUTED):
        where += ", trained on permuted pixels, put back here"
    if cfg.objective.reduction == "mean":
        where += " (squared error averaged over an image's values: not nats)"
    curves = run_figures.learning_curves(history, where, linear, unit([cfg.objective.reduction]))
    record.log_figure(curves, "figures/curves.png")

    chosen = np.sort(np.random.default_rng(0).permutation(len(test))[:N_RECONSTRUCTIONS])  # the same in every run
    originals = test[chosen]
    device = next(model.parameters()).device
    pairs = unshuffle(to_uint8(model.reconstruct(to_float(torch.from_numpy(originals).to(device)))), facts)
    shown = unshuffle(originals, facts)
    figure = run_figures.reconstructions(shown, pairs, f"{where}: test images and their reconstructions")
    record.log_figure(figure, "figures/reconstructions.png")

    samples = unshuffle(to_uint8(model.sample(cfg.evaluation.n_samples, generator(cfg.seed, Stream.SAMPLES))), facts)
    record.log_figure(run_figures.samples(samples, f"{where}: samples from the prior"), "figures/samples.png")
    record.log_array(samples, "samples.npy")

    source = generator(cfg.seed, Stream.INTERPOLATIONS)
    flat = to_uint8(interpolate(model, cfg.evaluation.n_interpolations, generator=source).flatten(0, 1))
    grid = unshuffle(flat, facts).reshape(cfg.evaluation.n_interpolations, -1, *flat.shape[1:])
    figure = run_figures.interpolations(grid, f"{where}: between two prior draws")
    record.log_figure(figure, "figures/interpolations.png")
    record.log_array(grid, "interpolations.npy")
