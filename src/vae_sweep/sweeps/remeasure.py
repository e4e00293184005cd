"""Held-out metrics of a run: measured, and written to the store; again where the settings have changed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from vae_sweep import datasets
from vae_sweep.base import plugins
from vae_sweep.base.cache import cached
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.base.timing import listed
from vae_sweep.comparison.identity import Decides, decides, flatten
from vae_sweep.metrics import linear
from vae_sweep.metrics.measure import Settings, linear_vae, measure, measure_linear
from vae_sweep.models.vae import VAE
from vae_sweep.report.publish import NAMES
from vae_sweep.sweeps.context import Job
from vae_sweep.sweeps.preparation import prepare
from vae_sweep.tracking.store import RunRecord, Store, StoredRun
from vae_sweep.training import checkpoint
from vae_sweep.training.device import resolve_device
from vae_sweep.training.evaluation import Averages, evaluate, inference

log = logging.getLogger(__name__)

MEASURED = "vae_sweep.metrics"  # tag: settings and code that a run's held-out metrics come from
UNDEFINED = "vae_sweep.metrics.undefined"  # tag: metrics that these images do not define, and why, a line each
SPECTRUM = "kl_spectrum.npy"  # artifact: (L,)
REFERENCE = "reference.json"  # artifact: KL spectrum of the linear VAE, and its rate-distortion curve
CURVE_BETAS = [10 ** (k / 12) for k in range(-15, 16)]  # of that curve; 1 is among them


def settings_of(job: Job) -> Settings:
    """Return what the configuration asks for, with the feature network that the sweep decided on."""
    cfg, context = job.cfg, job.context
    plain = OmegaConf.to_container(cfg.metrics)
    assert isinstance(plain, dict)
    if cfg.metrics.inception_weights:
        plain["inception_weights"] = str(resolve_path(Path(context.root), cfg.metrics.inception_weights, "metrics"))
    return Settings(**{str(key): value for key, value in plain.items()} | {"features": context.features})


def measure_and_record(
    job: Job,
    model: VAE,
    averages: Averages,
    dataset: datasets.ImageDataset,
    spectrum: linear.Spectrum,
    record: RunRecord,
) -> None:
    """Measure ``model`` and the closed-form linear VAE on the test images of ``dataset`` and record both.

    ``averages``: the model's test loss and terms. The store keeps the last value of a metric measured again.
    """
    from vae_sweep.report.sweep_figures import kl_spectra

    cfg, name = job.cfg, job.name
    settings = settings_of(job)
    loss = (cfg.params.latent_dim, cfg.objective.beta, cfg.objective.reduction)
    device = next(model.parameters()).device
    # Linear algebra rounds differently with every number of threads.
    with threadpool_limits(cfg.training.threads), inference(device):
        found = measure(model, averages, cfg.objective.reduction, dataset, settings, cfg.seed)
        linear_model = linear_vae(spectrum, *loss, dataset.image_shape).to(device)
        line = measure_linear(linear_model, spectrum, *loss[1:], dataset, settings)
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
        "vae_sweep.features.why": job.context.features_reason,
        **_recorded(cfg, Decides.MEASURED),
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


def _curve(dataset: datasets.ImageDataset, spectrum: linear.Spectrum) -> dict[str, list[float]]:
    """KL and squared error (nats/image) of the linear VAEs that are optimal at each of :data:`CURVE_BETAS`."""

    def compute() -> dict[str, list[float]]:
        kl, recon = linear.linear_curve(spectrum, dataset.test.images, CURVE_BETAS)
        return {"kl": kl.tolist(), "recon": recon.tolist()}

    known = [dataset.digest, CURVE_BETAS]
    return cached(dataset.cache_dir, "curve", known, ("kl", "recon"), compute)


def _recorded(cfg: DictConfig, decides_what: Decides) -> dict[str, str]:
    """Settings that may change after training, as tags: MLflow lets no parameter change."""
    flat = flatten(OmegaConf.to_container(cfg, resolve=True))
    return {f"config.{key}": str(value) for key, value in flat.items() if decides(key) is decides_what}


def draw(
    job: Job,
    model: VAE,
    dataset: datasets.ImageDataset,
    history: list[dict[str, float]],
    line: Mapping[str, float],
    record: RunRecord,
) -> None:
    """Draw and record the figures of a trained run; ``line``: validation loss and terms of the closed form."""
    from vae_sweep.sweeps.figures import log_run_figures

    test = torch.from_numpy(dataset.test.images)
    with inference(next(model.parameters()).device):
        log_run_figures(job.cfg, model, test, dataset.facts, job.name, history, line, record)
    record.set_tags(_recorded(job.cfg, Decides.SHOWN))  # last: what is tagged is complete


def redraw(job: Job, run: StoredRun) -> bool:
    """Draw the figures of a finished run again where other ones are asked for; return whether it did.

    Raises:
        UserError: where its checkpoint cannot be read.
    """
    if all(run.tags.get(key) == value for key, value in _recorded(job.cfg, Decides.SHOWN).items()):
        return False
    store = job.context.store()
    dataset, _ = prepare(job.cfg, Path(job.context.root))
    terms = [f"{split}/{term}" for split in ("train", "val") for term in Averages._fields]
    history = store.history(run.run_id, ("images_seen", *terms))
    line = {term: run.metrics[f"reference/val_{term}"] for term in Averages._fields}
    draw(job, _trained(job, run, store), dataset, history, line, store.record(run.run_id))
    log.info("%s: its figures were drawn again", job.name)
    return True


def _trained(job: Job, run: StoredRun, store: Store) -> VAE:
    """The model of a finished run, on the device of the job."""
    torch.set_num_threads(job.cfg.training.threads)
    with store.artifact(run.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(f"{job.name}: run {run.run_id[:8]} has no checkpoint; resume=false trains it again")
        model, _ = checkpoint.load(path, plugins.find(job.cfg.model["_target_"], VAE, "model._target_"))
    return model.to(resolve_device(job.cfg.training.device))


def remeasure(job: Job, run: StoredRun) -> bool:
    """Measure a finished run whose held-out metrics come from other settings or code; return whether it did.

    Raises:
        UserError: where its checkpoint cannot be read, or does not give the recorded loss.
    """
    if run.tags.get(MEASURED) == settings_of(job).key():
        return False
    cfg, store = job.cfg, job.context.store()
    dataset, spectrum = prepare(cfg, Path(job.context.root))
    model = _trained(job, run, store)
    averages = evaluate(
        model,
        torch.from_numpy(dataset.test.images),
        beta=cfg.objective.beta,
        reduction=cfg.objective.reduction,
        noise_draws=cfg.evaluation.noise_draws,
    )
    if not math.isclose(averages.loss, run.metrics["test/loss"], rel_tol=1e-4):
        raise UserError(
            f"{job.name}: its checkpoint now gives a test loss of {averages.loss:.4f}, recorded is "
            f"{run.metrics['test/loss']:.4f}; the code has changed, so resume=false trains it again"
        )
    measure_and_record(job, model, averages, dataset, spectrum, store.record(run.run_id))
    return True
