"""Held-out metrics of a run: measured, and written to the store; again where the settings have changed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from vae_sweep import checkpoint, datasets, reference, training
from vae_sweep.clock import listed
from vae_sweep.context import Context
from vae_sweep.errors import UserError
from vae_sweep.evaluation import Averages, evaluate
from vae_sweep.heldout.measure import Settings, measure, measure_reference
from vae_sweep.machine import seen_from
from vae_sweep.models.vae import VAE
from vae_sweep.preparation import prepare
from vae_sweep.remembered import remembered
from vae_sweep.results import NAMES
from vae_sweep.tracking import RunRecord, StoredRun

log = logging.getLogger(__name__)

MEASURED = "vae_sweep.metrics"  # tag: settings and code that a run's held-out metrics come from
UNDEFINED = "vae_sweep.metrics.undefined"  # tag: metrics that these images do not define, and why, a line each
SPECTRUM = "kl_spectrum.npy"  # artifact: (L,)
REFERENCE = "reference.json"  # artifact: KL spectrum of the linear VAE, and its rate-distortion curve
CURVE_BETAS = [10 ** (k / 12) for k in range(-15, 16)]  # of that curve; 1 is among them


def settings_of(cfg: DictConfig, context: Context) -> Settings:
    """Return what the configuration asks for, with the feature network that the sweep decided on."""
    plain = OmegaConf.to_container(cfg.metrics)
    assert isinstance(plain, dict)
    if cfg.metrics.inception_weights:
        plain["inception_weights"] = str(seen_from(Path(context.root), cfg.metrics.inception_weights, "metrics"))
    return Settings(**{str(key): value for key, value in plain.items()} | {"features": context.features})


def record_heldout(
    cfg: DictConfig,
    context: Context,
    name: str,
    model: VAE,
    averages: Averages,
    dataset: datasets.ImageDataset,
    spectrum: reference.Spectrum,
    record: RunRecord,
) -> None:
    """Measure ``model`` and the closed-form linear VAE on the test images of ``dataset`` and record both.

    ``averages``: the model's test loss and terms. The store keeps the last value of a metric measured again.
    """
    from vae_sweep.report.figures import kl_spectra

    settings = settings_of(cfg, context)
    loss = (cfg.params.latent_dim, cfg.objective.beta, cfg.objective.reduction)
    with threadpool_limits(cfg.training.threads):  # linear algebra rounds differently with every number of threads
        line = measure_reference(spectrum, *loss, dataset, settings, next(model.parameters()).device)
        found = measure(model, averages, cfg.objective.reduction, dataset, settings, cfg.seed)
    values = {f"test/{key}": value for key, value in found.values.items()}
    values |= {f"reference/{key}": value for key, value in line.values.items()}
    record.log_changed({key: value for key, value in values.items() if np.isfinite(value)})
    record.log_array(found.spectrum, SPECTRUM)
    title = f"{name} on {cfg.dataset.name}, seed {cfg.seed}: test images"
    figure = kl_spectra({name: found.spectrum}, line.spectrum, title)
    record.log_figure(figure, "figures/kl_spectrum.png")
    curve = {"beta": CURVE_BETAS, **_curve(dataset, spectrum)}
    record.log_text(json.dumps({"spectrum": line.spectrum.tolist(), "curve": curve}), REFERENCE)
    tags = {
        "vae_sweep.images": ", ".join(f"{len(split):,} {key}" for key, split in dataset.splits.items()),
        "vae_sweep.features.why": context.features_reason,
        "vae_sweep.measuring_s": listed(found.seconds),
    }
    undefined = list(dict.fromkeys([*line.undefined, *found.undefined]))
    undefined += [f"{key}: its value is {value}" for key, value in values.items() if not np.isfinite(value)]
    tags[UNDEFINED] = "\n".join(undefined)
    tags[NAMES] = ",".join(sorted({*found.values, *line.values}))
    complete = {MEASURED: settings.key()} if not found.missing and not line.missing else {}
    record.set_tags({**found.tags, **tags, **complete})  # last: what is tagged is complete
    for reason in undefined:
        log.warning("%s: not defined on these images: %s", name, reason)
    for reason in dict.fromkeys([*line.missing, *found.missing]):
        log.warning("%s: not all could be measured: %s; the same command tries again", name, reason)
    log.info("%s measured in %.1f s (%s)", name, sum(found.seconds.values()), tags["vae_sweep.measuring_s"])


def _curve(dataset: datasets.ImageDataset, spectrum: reference.Spectrum) -> dict[str, list[float]]:
    """KL and squared error (nats/image) of the linear VAEs that are optimal at each of :data:`CURVE_BETAS`."""

    def compute() -> dict[str, list[float]]:
        kl, recon = reference.linear_curve(spectrum, dataset.test.images, CURVE_BETAS)
        return {"kl": kl.tolist(), "recon": recon.tolist()}

    known = [dataset.digest, CURVE_BETAS, reference.code()]
    return remembered(dataset.cache_dir, "curve", known, ("kl", "recon"), compute)


def measure_again(cfg: DictConfig, context: Context, name: str, run: StoredRun) -> bool:
    """Measure a finished run whose held-out metrics come from other settings or code; return whether it did.

    Raises:
        UserError: where its checkpoint cannot be read.
    """
    if run.tags.get(MEASURED) == settings_of(cfg, context).key():
        return False
    store = context.store()
    torch.set_num_threads(cfg.training.threads)
    dataset, spectrum = prepare(cfg, Path(context.root))
    with store.artifact(run.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(f"{name}: run {run.run_id[:8]} has no checkpoint, so it cannot be measured")
        model, _ = checkpoint.load(path)
    model.to(training.resolve_device(cfg.training.device))
    averages = evaluate(
        model,
        torch.from_numpy(dataset.test.images),
        beta=cfg.objective.beta,
        reduction=cfg.objective.reduction,
        noise_draws=cfg.evaluation.noise_draws,
    )
    if not math.isclose(averages.loss, run.metrics["test/loss"], rel_tol=1e-4):
        raise UserError(
            f"{name}: its checkpoint now gives a test loss of {averages.loss:.4f}, recorded is "
            f"{run.metrics['test/loss']:.4f}; the code has changed, so resume=false trains it again"
        )
    record_heldout(cfg, context, name, model, averages, dataset, spectrum, store.record(run.run_id))
    return True
