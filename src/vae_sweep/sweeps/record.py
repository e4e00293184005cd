"""Dataset -> model -> fit -> evaluation -> tracking; the one place where the parts meet."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from vae_sweep import datasets, models
from vae_sweep.base.cache import cached
from vae_sweep.base.errors import Stopped, UserError
from vae_sweep.base.sources import own_sources
from vae_sweep.base.timing import listed, timed
from vae_sweep.comparison.convergence import CONVERGED, Facts, Limits, judge
from vae_sweep.comparison.identity import Decides, changed, decides, flatten, parts
from vae_sweep.comparison.rows import LinearRow
from vae_sweep.config.validation import validate
from vae_sweep.datasets import describe
from vae_sweep.metrics import latents, linear, losses
from vae_sweep.sweeps.context import Job
from vae_sweep.sweeps.folders import own_folder, stop_requested
from vae_sweep.sweeps.preparation import prepare
from vae_sweep.sweeps.remeasure import draw, measure_and_record
from vae_sweep.tracking.names import DATA, TRAINING_STATE
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.tracking.store import RunRecord
from vae_sweep.tracking.uris import masked
from vae_sweep.training import checkpoint, loop, state
from vae_sweep.training.device import device_tags, resolve_device
from vae_sweep.training.evaluation import Averages, evaluate, inference
from vae_sweep.training.randomness import seed_weights

log = logging.getLogger(__name__)


def train_and_record(job: Job, record: RunRecord) -> float:
    """Train the model of a job from its last state, evaluate and record it.

    Returns the lowest validation loss, nats per image.

    Raises:
        UserError: where images or code are no longer those that the sweep has planned, among others.
    """
    cfg, context, name, folder = job.cfg, job.context, job.name, job.folder
    output_dir = own_folder(job.output_dir, record.run_id)
    started = time.perf_counter()
    validate(cfg)
    dataset, spectrum = prepare(cfg, Path(context.root))
    sources = own_sources(cfg.model, cfg.dataset)
    difference = changed(job.made_of, parts(dataset.digest, sources))
    if difference:
        raise UserError(f"{difference} changed since the sweep started; start the same command again")
    torch.set_num_threads(cfg.training.threads)
    device = resolve_device(cfg.training.device, cfg.training.precision)
    beta, reduction = cfg.objective.beta, cfg.objective.reduction
    n_values = int(np.prod(dataset.image_shape))
    splits = {key: torch.from_numpy(split.images) for key, split in dataset.splits.items()}

    seed_weights(cfg.seed)
    model = models.create(cfg.model, dataset.image_shape, cfg.params.latent_dim)
    n_parameters = sum(p.numel() for p in model.parameters())
    if cfg.tracking.uri:
        cfg.tracking.uri = masked(cfg.tracking.uri)  # a password must not travel with the results
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    fixed = {key: value for key, value in flatten(plain).items() if decides(key) in (Decides.TRAINED, Decides.PLACE)}
    record.log_params(fixed | {"n_parameters": n_parameters, "dataset.digest": dataset.digest})
    for module, text in sources.items():
        record.log_text(text, f"source/{module.replace('.', '/')}.py")
    record.log_text(OmegaConf.to_yaml(cfg, resolve=True), "config.yaml")
    record.set_tags({**device_tags(device, cfg.training.precision), "vae_sweep.outputs": str(output_dir)})
    record.log_dataset(dataset.name, dataset.digest, str(dataset.facts.get("source", dataset.name)), _profile(dataset))
    record.log_text(describe.record(dataset), DATA)
    line = _reference_row(cfg, dataset, spectrum)
    _announce(name, n_parameters, device, dataset, line, spectrum, record)

    saved = state.load(folder) or {"history": [], "train_seconds": 0.0, "wall_seconds": 0.0, "seconds": {}, "fit": None}
    seconds: dict[str, float] = saved["seconds"]  # of all but the updates
    stored = {int(epoch["epoch"]) for epoch in context.store().history(record.run_id, ("val/loss",))}
    sender = EpochSender(record, saved["history"], stored)
    history = sender.entries
    train_seconds, earlier = saved["train_seconds"], saved["wall_seconds"]
    if history:
        log.info("%s continues after epoch %d", name, len(history))
    first_epoch = len(history) + 1
    max_epochs = min(cfg.training.max_epochs, cfg.params.epochs or cfg.training.max_epochs)
    epochs = loop.fit(
        model,
        splits["train"],
        splits["val"],
        batch_size=cfg.params.batch_size,
        lr=cfg.params.lr,
        seed=cfg.seed,
        max_epochs=max_epochs,
        schedule=cfg.params.schedule,
        mirror=cfg.params.mirror,
        patience=cfg.training.patience,
        min_delta=cfg.training.min_delta / (n_values if reduction == "mean" else 1),
        beta=beta,
        reduction=reduction,
        device=device,
        channels_last=cfg.training.channels_last,
        compile=cfg.training.compile,
        precision=cfg.training.precision,
        state=saved["fit"],
    )
    for metrics in _reported(epochs, cfg, name, len(history), max_epochs, context.progress_bar):
        train_seconds += metrics.train_seconds
        if metrics.epoch == first_epoch:
            since = time.perf_counter() - started - metrics.train_seconds - metrics.val_seconds
            seconds["start"] = seconds.get("start", 0.0) + since
        values = {
            "images_seen": metrics.images_seen,
            **{f"{split}/{k}": v for split in ("train", "val") for k, v in getattr(metrics, split)._asdict().items()},
        }
        seconds["validation"] = seconds.get("validation", 0.0) + metrics.val_seconds
        with timed(seconds, "tracking"):
            sender.add(metrics.epoch, values)  # an epoch repeated after an interruption has the same values
        wall_seconds = earlier + time.perf_counter() - started
        times = {"train_seconds": train_seconds, "wall_seconds": wall_seconds}
        with timed(seconds, "state"):
            state.save(folder, {"history": history, **times, "seconds": seconds, "fit": metrics.snapshot()})
        if context.fail_fast and (reason := stop_requested(Path(context.root), context.sweep_key)):
            raise Stopped(f"stopped: {reason}")
    with timed(seconds, "tracking"):
        sender.send()
    best_entry = min(history, key=lambda epoch: epoch["val/loss"])
    best_epoch = best_entry["epoch"]
    with timed(seconds, "losses"), inference(device):
        active = latents.active_units(latents.encode(model, splits["test"]))
    _record_training(cfg, name, history, line, spectrum, active, record)

    with timed(seconds, "losses"):
        best = {"val": Averages(*(best_entry[f"val/{term}"] for term in Averages._fields))}  # on the same weights
        for split, draws in {"train": 1, "test": cfg.evaluation.noise_draws}.items():
            best[split] = evaluate(model, splits[split], beta=beta, reduction=reduction, noise_draws=draws)
    final: dict[str, float] = {
        "epochs": len(history),
        "best_epoch": best_epoch,
        "images_per_s": history[-1]["images_seen"] / train_seconds,
        "train_time_s": train_seconds,
        **{f"best/{split}_{k}": v for split in ("train", "val") for k, v in best[split]._asdict().items()},
        **{f"test/{k}": v for k, v in best["test"]._asdict().items()},
        "distance_to_linear": best["test"].loss - line.test_loss,
        "implied_variance": linear.implied_variance(beta, reduction, n_values),
        **{
            f"reference/{k}": v
            for k, v in asdict(line).items()
            if k not in ("dataset", "latent_dim", "beta", "reduction", "metrics")
        },
    }
    path = output_dir / "checkpoint.pt"
    facts = {"name": name, "best_epoch": best_epoch, "test": best["test"]._asdict()}
    with timed(seconds, "checkpoint"):
        checkpoint.save(path, model, plain, facts)
        record.log_file(path)
        with context.store().artifact(record.run_id, path.name) as copy:
            checkpoint.check_holds(copy, model)
        record.log_once(final)
    with best_effort("the pictures"), timed(seconds, "pictures"):
        draw(job, model, dataset, history, {term: getattr(line, f"val_{term}") for term in Averages._fields}, record)
    with best_effort("the held-out metrics"), timed(seconds, "metrics"):  # the same command measures what is missing
        measure_and_record(job, model, best["test"], dataset, spectrum, record)
    wall_time = earlier + time.perf_counter() - started
    record.set_tags({"vae_sweep.time_s": listed({"training": train_seconds, **seconds})})
    record.log_once({"wall_time_s": wall_time})
    log.info(
        "%s finished: test loss %s, %s against the closed-form linear VAE, best of %d epochs: %d, %.0f s",
        name,
        losses.equation(*best["test"], beta, reduction),
        losses.number(final["distance_to_linear"], "+" + losses.spec(reduction)),
        len(history),
        best_epoch,
        wall_time,
    )
    return best["val"].loss


def _reference_row(cfg: DictConfig, dataset: datasets.ImageDataset, spectrum: linear.Spectrum) -> LinearRow:
    """The closed-form linear VAE on the same splits and the same loss."""
    arguments = (cfg.params.latent_dim, cfg.objective.beta, cfg.objective.reduction)
    keys = [f"{split}_{term}" for split in dataset.splits for term in Averages._fields]

    def compute() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, split in dataset.splits.items():
            optimum = linear.linear_loss(spectrum, split.images, *arguments)
            found |= {f"{key}_{term}": getattr(optimum, term) for term in Averages._fields}
            found["active"] = optimum.active
        return found

    known = [dataset.digest, *arguments]
    return LinearRow(
        dataset=dataset.name,
        latent_dim=cfg.params.latent_dim,
        beta=cfg.objective.beta,
        reduction=cfg.objective.reduction,
        **cached(dataset.cache_dir, "line", known, [*keys, "active"], compute),
    )


def _announce(
    name: str,
    n_parameters: int,
    device: torch.device,
    dataset: datasets.ImageDataset,
    line: LinearRow,
    spectrum: linear.Spectrum,
    record: RunRecord,
) -> None:
    variance = linear.implied_variance(line.beta, line.reduction, int(np.prod(dataset.image_shape)))
    found = "; ".join(describe.lines(dataset))
    log.info("%s: %d parameters on %s; %s: %s", name, n_parameters, device, dataset.name, found)
    if dataset.facts.get("skipped"):
        log.warning("%s: %d broken pictures of %s were left out", name, dataset.facts["skipped"], dataset.name)
    log.info(
        "%s: the loss implies a decoder variance of %g; the closed-form linear VAE uses %d of %d latents, test loss %s",
        *(name, variance, line.active, line.latent_dim),
        losses.equation(line.test_loss, line.test_recon, line.test_kl, line.beta, line.reduction),
    )
    if spectrum.total_variance < 1e-6:
        log.warning("%s: the training images do not differ, so there is nothing to learn from them", name)
    elif line.active == 0:
        largest = spectrum.eigenvalues.max(initial=0)
        warning = (
            f"posterior collapse predicted: the loss (reduction={line.reduction}, beta={line.beta:g}) implies a "
            f"decoder variance of {variance:g}, above the data's largest eigenvalue {largest:.3g}, "
            "so no latent pays for itself; objective.reduction=sum or a smaller objective.beta mends this"
        )
        log.warning("%s: %s", name, warning)
        record.set_tags({"vae_sweep.warning": warning})


def _record_training(
    cfg: DictConfig,
    name: str,
    history: list[dict[str, float]],
    line: LinearRow,
    spectrum: linear.Spectrum,
    active: int,
    record: RunRecord,
) -> None:
    """Say how the training ended, in the log and in the run's tags; ``active``: latents that its model uses."""
    nat = 1.0 if line.reduction == "sum" else 1 / len(spectrum.mean)
    limits = Limits(
        cfg.training.max_epochs, cfg.training.patience, cfg.training.min_delta, cycle=cfg.params.epochs, nat=nat
    )
    facts = Facts(spectrum.total_variance * nat, line.val_loss, line.active, active)
    val, train = ([epoch[f"{split}/loss"] for epoch in history] for split in ("val", "train"))
    found = judge(val, train, limits, facts)
    log.log(logging.INFO if found.state == CONVERGED else logging.WARNING, "%s %s", name, found.sentence)
    record.set_tags({TRAINING_STATE: found.state, f"{TRAINING_STATE}.why": found.sentence})


def _reported(
    epochs: Iterable[loop.EpochMetrics],
    cfg: DictConfig,
    name: str,
    done: int,
    max_epochs: int,
    progress_bar: bool,
) -> Iterator[loop.EpochMetrics]:
    """Pass the epochs on, showing them as a bar on a terminal and as plain lines elsewhere."""
    tqdm.set_lock(threading.RLock())  # its own holds semaphores that a killed process leaves behind
    beta, reduction = cfg.objective.beta, cfg.objective.reduction
    bar = tqdm(epochs, name, max_epochs, initial=done, unit="epoch", disable=not progress_bar)
    metrics: loop.EpochMetrics
    for metrics in bar:
        rate = metrics.images_seen / metrics.epoch / metrics.train_seconds
        if bar.disable:
            train, val = (losses.equation(*found, beta, reduction) for found in (metrics.train, metrics.val))
            mark = " *" if metrics.improved else ""
            log.info("%s epoch %d: train %s, val %s%s, %.0f images/s", name, metrics.epoch, train, val, mark, rate)
        else:
            train, val = (losses.number(found.loss, losses.spec(reduction)) for found in (metrics.train, metrics.val))
            bar.set_postfix(train=train, val=val, images_per_s=f"{rate:.0f}")
        yield metrics


def _profile(dataset: datasets.ImageDataset) -> dict[str, Any]:
    return {
        "image_shape": list(dataset.image_shape),
        "skipped": dataset.facts.get("skipped", 0),
        **{key: len(split.images) for key, split in dataset.splits.items()},
    }


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Keep going where the store does not take something, and say so: the run's own outcome must not be replaced."""
    try:
        yield
    except UserError as error:
        log.warning("could not record %s: %s", what, error)
    except Exception:
        log.warning("could not record %s", what, exc_info=True)
