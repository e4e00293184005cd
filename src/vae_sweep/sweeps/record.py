"""Dataset -> model -> fit -> evaluation -> tracking: the one place where the parts meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from vae_sweep import models
from vae_sweep.base.errors import Stopped, UserError
from vae_sweep.base.sources import own_sources
from vae_sweep.base.system import peak_memory, reset_peak_memory
from vae_sweep.base.timing import listed, timed
from vae_sweep.comparison.convergence import ALIKE, CONVERGED, Facts, Limits, judge
from vae_sweep.comparison.identity import Decides, changed, decides, flatten
from vae_sweep.config.validation import validate
from vae_sweep.datasets import describe
from vae_sweep.metrics import latents, losses
from vae_sweep.metrics.subject import TRAIN_IMAGES, fixed_subset
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.folders import own_folder, stop_requested
from vae_sweep.sweeps.image_grid import is_shown, send_images
from vae_sweep.sweeps.logged_model import record_model
from vae_sweep.sweeps.preparation import objective_of, parts_of
from vae_sweep.sweeps.remeasure import draw, measure_and_record
from vae_sweep.sweeps.run import Run
from vae_sweep.sweeps.timeleft import seconds_left
from vae_sweep.tracking.names import COLOUR, DATA, OUTPUTS, TRAINING_STATE
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.training import checkpoint, loop, state
from vae_sweep.training.device import device_tags
from vae_sweep.training.evaluation import Averages, evaluate, inference
from vae_sweep.training.randomness import seed_weights

log = logging.getLogger(__name__)

FIRST = (
    "model.name",
    "params.name",
    "params.latent_dim",
    "params.batch_size",
    "params.lr",
    "seed",
)  # in the UI's lists
LOSS = ("dataset", "latent_dim", "beta", "reduction", "variance", "metrics")  # of the closed form's row, no numbers


def train_and_record(run: Run) -> float:
    """Train the model of a run from its last snapshot, evaluate and record it.

    Returns the lowest validation loss, nats per image.

    Raises:
        UserError: where images or code are no longer those that the sweep has planned, among others.
    """
    run.reporter.says("training")
    reset_peak_memory()
    progress = Progress.load(run.folder)
    validate(run.cfg)
    output_dir = own_folder(run.output_dir, run.record.run_id)
    model = _build(run)
    _record_start(run, model, output_dir)
    stored = {int(epoch["epoch"]) for epoch in run.store.history(run.record.run_id, ("val/loss",))}
    sender = EpochSender(run.record, progress.history, stored, progress.images, run.record.images())
    settings = train_settings(run.cfg, run.scale)
    epochs = loop.fit(model, run.images("train"), run.images("val"), settings, run.device, progress.fit)
    for epoch in _shown(epochs, run, settings, progress):
        progress.add(epoch, sender)
        if is_shown(epoch.epoch):
            _send_images(run, model, epoch.epoch, sender, progress)
        progress.save(run.folder, epoch)
        reason = stop_requested(run.root, run.context.sweep_key) if run.context.fail_fast else None
        if reason:
            raise Stopped(f"stopped: {reason}")
    run.reporter.says("measuring")
    _send_images(run, model, int(progress.best["epoch"]), sender, progress)  # of the weights that count
    with timed(progress.seconds, "tracking"):
        sender.send()
    _record_convergence(run, model, progress)
    averages = _evaluate(run, model, progress)
    _record_result(run, model, averages, progress, output_dir / "checkpoint.pt")
    with best_effort("the figures"), timed(progress.seconds, "figures"):
        draw(run, model, progress.history)
    with best_effort("the held-out metrics"), timed(progress.seconds, "metrics"):  # the same command tries again
        measure_and_record(run, model, averages["test"])
    with best_effort("the model for MLflow"), timed(progress.seconds, "model"):  # likewise
        record_model(run)
    _record_end(run, averages["test"], progress)
    return averages["val"].loss


@dataclass
class Progress:
    """What a run has done so far, in all its processes; with a snapshot of the training it is kept on disk."""

    history: list[dict[str, float]] = field(default_factory=list)  # an entry per epoch: epoch, time_ms, metrics
    train_seconds: float = 0.0  # of the updates
    wall_seconds: float = 0.0  # of earlier processes
    seconds: dict[str, float] = field(default_factory=dict)  # of all but the updates, by part
    fit: dict[str, Any] | None = None  # snapshot of the training
    cpu_seconds: float = 0.0  # of earlier processes, and the most memory that one had
    peak_memory: float = 0.0  # MB
    images: list[dict[str, Any]] = field(default_factory=list)  # of some epochs, as the sender has them: not yet stored
    started: float = field(default_factory=time.perf_counter)  # this process
    cpu_started: float = field(default_factory=time.process_time)
    starting: bool = True  # until this process has finished an epoch

    @classmethod
    def load(cls, folder: Path) -> Progress:
        """Return what is kept in ``folder``, or a fresh start."""
        kept = state.load(folder) or {}
        return cls(**{key: value for key, value in kept.items() if key != "format"})

    def save(self, folder: Path, epoch: loop.EpochMetrics) -> None:
        """Keep it, with a snapshot of the training after ``epoch``."""
        times = {"train_seconds": self.train_seconds, "wall_seconds": self.wall_time(), **self.used()}
        with timed(self.seconds, "state"):
            kept = {"history": self.history, "images": list(self.images), "seconds": self.seconds}
            state.save(folder, kept | times | {"fit": epoch.snapshot()})

    def add(self, epoch: loop.EpochMetrics, sender: EpochSender) -> None:
        """Take in one epoch and hand it to the sender; one repeated after an interruption has the same values."""
        self.train_seconds += epoch.train_seconds
        if self.starting:
            start = time.perf_counter() - self.started - epoch.train_seconds - epoch.val_seconds
            self.seconds["start"] = self.seconds.get("start", 0.0) + start
            self.starting = False
        losses = {f"{split}/{k}": v for split in ("train", "val") for k, v in getattr(epoch, split)._asdict().items()}
        self.seconds["validation"] = self.seconds.get("validation", 0.0) + epoch.val_seconds
        with timed(self.seconds, "tracking"):
            sender.add(epoch.epoch, {"images_seen": epoch.images_seen, **losses})

    def wall_time(self) -> float:
        """Seconds that the run has taken."""
        return self.wall_seconds + time.perf_counter() - self.started

    def used(self) -> dict[str, float]:
        """CPU seconds and peak memory (MB) of the run so far."""
        cpu_seconds = self.cpu_seconds + time.process_time() - self.cpu_started
        return {"cpu_seconds": cpu_seconds, "peak_memory": max(self.peak_memory, peak_memory() or 0.0)}

    @property
    def best(self) -> dict[str, float]:
        """The entry of the epoch with the lowest validation loss."""
        return min(self.history, key=lambda epoch: epoch["val/loss"])


def train_settings(cfg: DictConfig, scale: float = 1.0) -> loop.TrainSettings:
    """Return how a configuration trains; ``scale``: of ``min_delta``, which is meant for decoder variance 1/2."""
    return loop.TrainSettings(
        batch_size=cfg.params.batch_size,
        lr=cfg.params.lr,
        seed=cfg.seed,
        max_epochs=min(cfg.training.max_epochs, cfg.params.epochs or cfg.training.max_epochs),
        patience=cfg.training.patience,
        min_delta=cfg.training.min_delta * scale,
        schedule=cfg.params.schedule,
        mirror=cfg.params.mirror,
        objective=objective_of(cfg),
        warmup=cfg.objective.warmup,
        clip_grad_norm=cfg.training.clip_grad_norm,
        channels_last=cfg.training.channels_last,
        compile=cfg.training.compile,
        precision=cfg.training.precision,
    )


def _build(run: Run) -> VAE:
    """The untrained model of a run, once its images and code are known to be those of the plan."""
    now = parts_of(run.cfg, run.dataset)
    difference = changed(run.made_of, now)
    if difference:
        raise UserError(f"{difference} changed since the sweep started; start the same command again")
    torch.set_num_threads(run.cfg.training.threads)
    seed_weights(run.cfg.seed)
    return models.create(run.cfg.model, run.dataset.image_shape, run.cfg.params.latent_dim)


def _record_start(run: Run, model: VAE, output_dir: Path) -> None:
    """Record configuration, code, data and device; log what is about to be trained."""
    record, dataset = run.record, run.dataset
    fixed = {k: v for k, v in flatten(run.plain).items() if decides(k) in (Decides.TRAINED, Decides.PLACE)}
    n_parameters = sum(p.numel() for p in model.parameters()) + (run.objective.variance == "learned")
    first = {key: fixed[key] for key in FIRST if key in fixed}
    record.log_params(first | fixed | {"n_parameters": n_parameters, "dataset.digest": dataset.digest})
    for module, text in own_sources(run.cfg.model, run.cfg.dataset).items():
        record.log_text(text, f"source/{module.replace('.', '/')}.py")
    record.log_text(OmegaConf.to_yaml(run.cfg, resolve=True), "config.yaml")
    tags = {OUTPUTS: str(output_dir), COLOUR: _colour(run)}
    record.set_tags({**device_tags(run.device, run.cfg.training.precision), **tags})
    profile = {
        "image_shape": list(dataset.image_shape),
        "skipped": dataset.facts.get("skipped", 0),
        **{key: len(split.images) for key, split in dataset.splits.items()},
    }
    record.log_dataset(dataset.name, dataset.digest, str(dataset.facts.get("source", dataset.name)), profile)
    record.log_text(describe.record(dataset), DATA)
    log.info(
        "%s: %d parameters on %s; %s: %s",
        *(run.name, n_parameters, run.device, dataset.name, "; ".join(describe.lines(dataset))),
    )
    if dataset.facts.get("skipped"):
        n = dataset.facts["skipped"]
        images = "image was" if n == 1 else "images were"
        log.warning("%s: %d broken %s left out of %s", run.name, n, images, dataset.name)
    _log_linear(run)


def _colour(run: Run) -> str:
    """The colour of the run's model in the figures of its sweep."""
    from vae_sweep.report.style import looks

    models = [cell.model for cell in run.context.cells]
    return looks([*models, run.cfg.model.name])[run.cfg.model.name][0]


def _log_linear(run: Run) -> None:
    """Log what the closed-form linear VAE reaches; warn where the loss predicts that nothing can be learned."""
    linear = run.linear
    variance, given = linear.beta * run.variance, run.objective.implied_variance(1) is not None
    log.info(
        "%s: %s a decoder variance of %.3g; the closed-form linear VAE uses %d of %d latents, test loss %s",
        *(run.name, "the loss implies" if given else "the closed form's best is", variance),
        *(linear.active, linear.latent_dim),
        losses.equation(linear.test_loss, linear.test_recon, linear.test_kl, linear.beta, linear.reduction),
    )
    if run.spectrum.total_variance < ALIKE:
        log.warning("%s: the training images do not differ, so there is nothing to learn from them", run.name)
    elif linear.active == 0:
        largest = run.spectrum.eigenvalues.max(initial=0)
        averaged = linear.reduction == "mean"
        remedy = "objective.reduction=sum" if averaged else "a smaller objective.variance"
        warning = (
            f"posterior collapse predicted: the loss (reduction={linear.reduction}, beta={linear.beta:g}) implies a "
            f"decoder variance of {variance:.4g}, above the data's largest eigenvalue {largest:.3g}, so no latent "
            f"reduces the loss; use {remedy} or a smaller objective.beta"
        )
        log.warning("%s: %s", run.name, warning)
        run.record.set_tags({"vae_sweep.warning": warning})


def _shown(
    epochs: Iterable[loop.EpochMetrics], run: Run, settings: loop.TrainSettings, progress: Progress
) -> Iterator[loop.EpochMetrics]:
    """Pass the epochs on; log each, and report it with the time that is left."""
    objective, val = run.cfg.objective, [epoch["val/loss"] for epoch in progress.history]
    if val:
        log.info("%s continues after epoch %d", run.name, len(val))
    run.reporter.status.digits = 4 if objective.reduction == "mean" else 2
    ends = [time.perf_counter()]  # of the last epochs
    for epoch in epochs:
        rate = epoch.images_seen / epoch.epoch / epoch.train_seconds
        train_loss, val_loss = (
            losses.equation(*e, objective.beta, objective.reduction) for e in (epoch.train, epoch.val)
        )
        mark = " *" if epoch.improved else ""
        log.info(
            "%s epoch %d: train %s, val %s%s, %.0f images/s", run.name, epoch.epoch, train_loss, val_loss, mark, rate
        )
        val.append(epoch.val.loss)
        ends = [*ends[-5:], time.perf_counter()]
        run.reporter.epoch(val, rate, lambda: seconds_left(val, settings, ends))  # noqa: B023
        yield epoch


def _send_images(run: Run, model: VAE, epoch: int, sender: EpochSender, progress: Progress) -> None:
    with best_effort("the images of an epoch"), timed(progress.seconds, "images"):
        send_images(run, model, epoch, sender)


def _record_convergence(run: Run, model: VAE, progress: Progress) -> None:
    """Say how the training ended, in the log and in the run's tags."""
    cfg, linear = run.cfg, run.linear
    with timed(progress.seconds, "losses"), inference(run.device):
        active = latents.active_units(latents.encode(model, run.images("test")))
    limits = Limits(
        *(cfg.training.max_epochs, cfg.training.patience, cfg.training.min_delta, cfg.params.epochs),
        scale=run.scale,
        warmup=cfg.objective.warmup,
    )
    total, n_values = run.spectrum.total_variance, len(run.spectrum.mean)
    mean_image = run.objective.recon(total, n_values)
    density = run.objective.implied_variance(n_values) is None
    facts = Facts(mean_image, linear.val_loss, linear.active, active, density, alike=total < ALIKE)
    val, train = ([epoch[f"{split}/loss"] for epoch in progress.history] for split in ("val", "train"))
    found = judge(val, train, limits, facts)
    log.log(logging.INFO if found.state == CONVERGED else logging.WARNING, "%s %s", run.name, found.sentence)
    run.record.set_tags({TRAINING_STATE: found.state, f"{TRAINING_STATE}.why": found.sentence})


def _evaluate(run: Run, model: VAE, progress: Progress) -> dict[str, Averages]:
    """Loss and terms of the best weights, by split; of the training images on a fixed part."""
    averages = {"val": Averages(*(progress.best[f"val/{term}"] for term in Averages._fields))}
    with timed(progress.seconds, "losses"):
        part = run.images("train")[fixed_subset(len(run.dataset.train), TRAIN_IMAGES)]
        averages["train"] = evaluate(model, part, run.objective)
        draws = run.cfg.evaluation.noise_draws
        averages["test"] = evaluate(model, run.images("test"), run.objective, noise_draws=draws)
    return averages


def _record_result(run: Run, model: VAE, averages: dict[str, Averages], progress: Progress, path: Path) -> None:
    """Record the checkpoint and the final losses, once."""
    linear, record = run.linear, run.record
    final: dict[str, float] = {
        "epochs": len(progress.history),
        "best_epoch": progress.best["epoch"],
        "images_per_s": progress.history[-1]["images_seen"] / progress.train_seconds,
        "train_time_s": progress.train_seconds,
        **{f"best/{split}_{k}": v for split in ("train", "val") for k, v in averages[split]._asdict().items()},
        **{f"test/{k}": v for k, v in averages["test"]._asdict().items()},
        "distance_to_linear": averages["test"].loss - linear.test_loss,
        "implied_variance": linear.beta * run.variance,
        **{f"reference/{k}": v for k, v in asdict(linear).items() if k not in LOSS},
    }
    facts = {"name": run.name, "best_epoch": progress.best["epoch"], "test": averages["test"]._asdict()}
    with timed(progress.seconds, "checkpoint"):
        checkpoint.save(path, model, run.plain, facts)
        record.log_file(path)
        with run.store.artifact(record.run_id, path.name) as copy:
            checkpoint.check_holds(copy, model)
        run.store.share(record.run_id, path)
        record.log_once(final)


def _record_end(run: Run, test: Averages, progress: Progress) -> None:
    """Record what the run took, and log its result."""
    linear = run.linear
    wall_time = progress.wall_time()
    run.record.set_tags({"vae_sweep.time_s": listed({"training": progress.train_seconds, **progress.seconds})})
    cpu_seconds, memory = progress.used().values()
    run.record.log_once({"wall_time_s": wall_time, "cpu_time_s": cpu_seconds, "peak_memory_mb": round(memory)})
    equation = losses.equation(*test, linear.beta, linear.reduction)
    distance = losses.number(test.loss - linear.test_loss, "+" + losses.spec(linear.reduction))
    result = f"test loss {equation}, {distance} against the closed-form linear VAE, best of {len(progress.history)} "
    result += f"epochs: {progress.best['epoch']:.0f}, {wall_time:.0f} s"
    log.info("%s finished: %s", run.name, result)
    run.reporter.status.reason = result


@contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Log a failure to record something instead of raising it: the run's own outcome counts."""
    try:
        yield
    except UserError as error:
        log.warning("could not record %s: %s", what, error)
    except Exception:
        log.warning("could not record %s", what, exc_info=True)
