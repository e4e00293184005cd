"""Held-out metrics of a run: measured, and written to the store; again where the settings have changed."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from vae_sweep.base import plugins
from vae_sweep.base.cache import cached
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.base.timing import listed
from vae_sweep.comparison.identity import Decides, decides, flatten
from vae_sweep.comparison.rows import Cell
from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.metrics.catalogue import BITS_PER_DIM
from vae_sweep.metrics.linear import linear_curve
from vae_sweep.metrics.measure import Settings, linear_vae, measure, measure_linear
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.context import Context
from vae_sweep.sweeps.folders import load_config
from vae_sweep.sweeps.run import Run
from vae_sweep.tracking.names import (
    FEATURES,
    LINEAR,
    LINEAR_RECONSTRUCTIONS,
    LINEAR_SAMPLES,
    MEASURED,
    METRIC_NAMES,
    MODEL,
    REGISTERED,
    RUN_KEY,
    SPECTRUM,
    UNDEFINED,
)
from vae_sweep.tracking.store import StoredRun
from vae_sweep.training import checkpoint
from vae_sweep.training.evaluation import Averages, evaluate, inference, to_float, to_uint8
from vae_sweep.training.randomness import Stream, generator

log = logging.getLogger(__name__)

N_LINEAR_SAMPLES = 16  # images of the closed-form linear VAE in a report
CURVE_BETAS = [10 ** (k / 12) for k in range(-36, 16)]  # of that curve; 1 is among them


def metric_settings(cfg: DictConfig, root: Path, features: str) -> Settings:
    """Return what the configuration asks for, with the feature network that the sweep decided on."""
    plain: Any = OmegaConf.to_container(cfg.metrics)
    if cfg.metrics.inception_weights:
        plain["inception_weights"] = str(resolve_path(root, cfg.metrics.inception_weights, "metrics"))
    return Settings(**plain | {"features": features})


def is_complete(run: StoredRun) -> bool:
    """Return whether a run was trained to its end."""
    return run.status == "FINISHED" and "best/val_loss" in run.metrics


def finished_runs(context: Context) -> dict[Cell, StoredRun]:
    """Return the run of every cell; empty unless each is finished, with its model and what is measured and drawn."""
    if context.parent_id is None:
        return {}
    root, found = Path(context.root), context.store().children(context.parent_id)
    runs = {run.tags.get(RUN_KEY): run for run in found if is_complete(run)}
    for cell in context.cells:
        stored = runs.get(cell.key)
        cfg = load_config(root, context.sweep_key, cell.key) if stored else None
        if not (stored and cfg and _has_its_model(cfg, stored) and _is_drawn(cfg, stored)):
            return {}
        if not _is_measured(cfg, root, context.features, stored):
            return {}
    return {cell: runs[cell.key] for cell in context.cells}


def _has_its_model(cfg: DictConfig, stored: StoredRun) -> bool:
    name = cfg.get("register")
    return MODEL in stored.tags and name in (None, stored.tags.get(REGISTERED))


def _is_drawn(cfg: DictConfig, stored: StoredRun) -> bool:
    return all(stored.tags.get(key) == value for key, value in _recorded(cfg, Decides.SHOWN).items())


def _is_measured(cfg: DictConfig, root: Path, features: str, stored: StoredRun) -> bool:
    return stored.tags.get(MEASURED) == metric_settings(cfg, root, features).key()


def measure_and_record(run: Run, model: VAE, averages: Averages) -> None:
    """Measure ``model`` and the closed-form linear VAE on the test images and record both.

    ``averages``: the model's test loss and terms. The store keeps the last value of a metric measured again.
    """
    from vae_sweep.report.sweep_figures import kl_spectra

    cfg, record, settings = run.cfg, run.record, metric_settings(run.cfg, run.root, run.context.features)
    device = next(model.parameters()).device
    # Linear algebra rounds differently with every number of threads.
    with threadpool_limits(cfg.training.threads), inference(device):
        found = measure(model, averages, run.objective, run.dataset, settings, cfg.seed)
        linear_model = linear_vae(run.spectrum, cfg.params.latent_dim, run.objective, run.dataset.image_shape)
        linear = measure_linear(linear_model.to(device), run.spectrum, run.objective, run.dataset, settings)
    values = {f"test/{key}": value for key, value in found.values.items()}
    record.log_changed({key: value for key, value in values.items() if np.isfinite(value)})
    record.log_array(found.spectrum, SPECTRUM)
    title = f"{run.name} on {cfg.dataset.name}, seed {cfg.seed}: test images"
    figure = kl_spectra({run.name: found.spectrum}, linear.spectrum, title)
    record.log_figure(figure, "figures/kl_spectrum.png")
    known = {key: value for key, value in linear.values.items() if np.isfinite(value)}
    bits = BITS_PER_DIM.removeprefix("test/")
    if bits in known:
        record.log_changed({f"reference/{bits}": known[bits]})
    reference = {"metrics": known, "spectrum": linear.spectrum.tolist(), "curve": _curve(run)}
    record.log_text(json.dumps(reference), LINEAR)
    images = to_uint8(linear_model.sample(N_LINEAR_SAMPLES, generator(0, Stream.LINEAR)))  # W z + mean, as its decoder
    record.log_array(unshuffle(images, run.dataset.facts), LINEAR_SAMPLES)
    images = to_uint8(linear_model.reconstruct(to_float(torch.from_numpy(run.originals)).to(device)))
    record.log_array(unshuffle(images, run.dataset.facts), LINEAR_RECONSTRUCTIONS)
    undefined = list(dict.fromkeys([*linear.undefined, *found.undefined]))
    values |= {f"reference/{key}": value for key, value in linear.values.items()}
    undefined += [f"{key}: its value is {value}" for key, value in values.items() if not np.isfinite(value)]
    missing = list(dict.fromkeys([*linear.missing, *found.missing]))
    tags = {
        "vae_sweep.images": ", ".join(f"{len(split):,} {key}" for key, split in run.dataset.splits.items()),
        "vae_sweep.features.why": run.context.features_reason,
        **_recorded(run.cfg, Decides.MEASURED),
        "vae_sweep.measuring_s": listed(found.seconds),
        UNDEFINED: "\n".join(undefined),
        METRIC_NAMES: ",".join(sorted({*found.values, *linear.values})),
    }
    complete = {} if missing else {MEASURED: settings.key()}
    record.set_tags({**found.tags, **tags, **complete})  # last: what is tagged is complete
    for reason in undefined:
        log.warning("%s: not defined on these images: %s", run.name, reason)
    for reason in missing:
        log.warning("%s: some metrics could not be measured: %s; the same command tries again", run.name, reason)
    log.info("%s measured in %.1f s (%s)", run.name, sum(found.seconds.values()), tags["vae_sweep.measuring_s"])


def _curve(run: Run) -> dict[str, list[float]]:
    """KL and squared error (nats/image) of the linear VAEs that are optimal at each of :data:`CURVE_BETAS`."""

    def compute() -> dict[str, list[float]]:
        kl, recon = linear_curve(run.spectrum, run.dataset.test.images, CURVE_BETAS)
        return {"kl": kl.tolist(), "recon": recon.tolist()}

    known = [run.dataset.digest, CURVE_BETAS, len(run.spectrum.eigenvalues)]
    return {"beta": CURVE_BETAS, **cached(run.dataset.cache_dir, "curve", known, ("kl", "recon"), compute)}


def _recorded(cfg: DictConfig, decides_what: Decides) -> dict[str, str]:
    """Settings that may change after training, as tags: MLflow lets no parameter change."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    return {f"config.{key}": str(v) for key, v in flatten(plain).items() if decides(key) is decides_what}


def draw(run: Run, model: VAE, history: list[dict[str, float]]) -> None:
    """Draw and record the figures of a trained run; ``history``: an entry per epoch."""
    from vae_sweep.sweeps.figures import log_run_figures

    with inference(next(model.parameters()).device):
        log_run_figures(run, model, history)
    run.record.set_tags(_recorded(run.cfg, Decides.SHOWN))  # last: what is tagged is complete


def redraw(run: Run, stored: StoredRun) -> bool:
    """Draw the figures of a finished run again where they were configured differently; return whether it did.

    Raises:
        UserError: where its checkpoint cannot be read.
    """
    if _is_drawn(run.cfg, stored):
        return False
    run.record.set_tags(dict.fromkeys(_recorded(run.cfg, Decides.SHOWN), ""))  # until all are drawn
    terms = [f"{split}/{term}" for split in ("train", "val") for term in Averages._fields]
    draw(run, _trained(run), run.store.history(stored.run_id, ("images_seen", *terms)))
    log.info("%s: its figures were drawn again", run.name)
    return True


def remeasure(run: Run, stored: StoredRun) -> bool:
    """Measure a finished run whose held-out metrics come from other settings or code; return whether it did.

    Raises:
        UserError: where its checkpoint cannot be read, or does not give the recorded loss.
    """
    if _is_measured(run.cfg, run.root, run.context.features, stored):
        return False
    model, cfg = _trained(run), run.cfg
    averages = evaluate(model, run.images("test"), run.objective, noise_draws=cfg.evaluation.noise_draws)
    size = abs(averages.recon) + abs(averages.loss - averages.recon)  # a log-density may be near 0
    if not math.isclose(averages.loss, stored.metrics["test/loss"], rel_tol=0.0, abs_tol=1e-4 * size):
        raise UserError(
            f"{run.name}: its checkpoint now gives a test loss of {averages.loss:.4f}, but "
            f"{stored.metrics['test/loss']:.4f} was recorded: the code has changed; resume=false trains it again"
        )
    about = {key: "" for key in stored.tags if key == FEATURES or key.startswith(f"{FEATURES}.")}
    run.record.set_tags({MEASURED: ""} | about)  # until all are measured
    measure_and_record(run, model, averages)
    return True


def _trained(run: Run) -> VAE:
    """The model of a finished run, on the device of the job."""
    torch.set_num_threads(run.cfg.training.threads)
    with run.store.artifact(run.record.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(f"{run.name}: run {run.record.run_id[:8]} has no checkpoint; resume=false trains it again")
        model, _ = checkpoint.load(path, plugins.find(run.cfg.model["_target_"], VAE, "model._target_"))
    return model.to(run.device)
