"""What must hold before anything is trained: the data are there, the model fits them, and both fit into memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from vae_sweep import datasets, models
from vae_sweep.base import plugins
from vae_sweep.base.errors import UserError, first_line
from vae_sweep.base.sources import own_sources
from vae_sweep.base.system import check_memory, resolve_path
from vae_sweep.comparison.identity import parts, run_key, settings_key
from vae_sweep.comparison.rows import Cell, data_label, schedule_label
from vae_sweep.config.plan import variant
from vae_sweep.config.settings import settings_of
from vae_sweep.metrics import linear
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.source import source
from vae_sweep.training.device import choose_precision, resolve_device
from vae_sweep.training.objective import Objective

log = logging.getLogger(__name__)

SMALL = 5e9  # weights times pixels: below, two images take 1.5 GB at most, and that only in one absurdly wide layer
COPIES = 5  # of the weights: themselves, gradients, Adam's two moments, those of the best epoch


def prepare(cfg: DictConfig, root: Path) -> tuple[datasets.ImageDataset, linear.Spectrum]:
    """Return the cached dataset of ``cfg`` and the spectrum of its training images, building what is missing.

    Raises:
        UserError: where the data are not there or do not fit the configuration.
    """
    dataset = datasets.load(source(cfg.dataset, root), resolve_path(root, cfg.paths.data, "paths.data") / "cache")
    n_train = len(dataset.train.images)
    if cfg.params.batch_size > n_train:
        raise UserError(
            f"params.batch_size={cfg.params.batch_size}: larger than the {n_train} training images of "
            f"{dataset.name}; give a value from 1 to {n_train}"
        )
    channels, height, width = dataset.image_shape
    if channels not in (1, 3):
        raise UserError(f"dataset={dataset.name}: images have {channels} channels; they must have 1 or 3")
    # The optimum uses at most latent_dim directions; 512 are more than this loss can pay for on any usual data.
    directions = max(512, cfg.params.latent_dim)
    n_values = channels * height * width
    size = min(n_train, n_values)
    check_memory(
        8 * (2 * size**2 + 2 * min(directions, size) * n_values),  # the matrix, a copy to work in, its eigenvectors
        f"dataset={dataset.name}: the closed-form reference of {n_train:,} images of {height}x{width} would",
        "give a smaller dataset.image_size, or fewer images",
    )
    return dataset, linear.cached_spectrum(dataset.train.images, dataset.digest, dataset.cache_dir, directions)


def dataset_of(
    config: Mapping[str, Any], run: str, root: Path, source_class: str | None = None
) -> datasets.ImageDataset:
    """Return the images of a run's configuration, from the folder that it was trained in where that still exists.

    ``source_class``: dotted path of a data source that is not vae_sweep's own.

    Raises:
        UserError: where they are not there, or where the configuration, which may be anybody's, does not say which.
    """
    try:
        trained_in = Path(config["paths"]["root"])  # what relative data paths refer to
        home = trained_in if trained_in.is_dir() else root
        node = config["dataset"] | ({"_target_": source_class} if source_class else {})
        if not source_class:
            plugins.require_ours(node, "dataset")
        images = source(node, home)
        cache = resolve_path(home, config["paths"]["data"], "paths.data") / "cache"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"run={run}: its configuration does not say what images it was trained on "
            f"({type(error).__name__}: {error}); samples and interpolations need none"
        ) from error
    # The cache of another folder is read, but never made.
    return datasets.load(images, cache if cache.is_dir() else root / "data" / "cache")


def parts_of(cfg: DictConfig, dataset: datasets.ImageDataset) -> dict[str, str]:
    """Return what makes the run of ``cfg`` beside its configuration, each part by its name."""
    return parts(dataset.digest, own_sources(cfg.model, cfg.dataset), dataset.arrangement)


def identity_of(cfg: DictConfig, root: Path) -> tuple[str, dict[str, str]]:
    """Return the identity of the run of ``cfg`` and its parts beside the configuration; prepares its images.

    Raises:
        UserError: as :func:`prepare` does.
    """
    made_of = parts_of(cfg, prepare(cfg, root)[0])
    return run_key(settings_of(cfg), made_of), made_of


def prepare_cells(
    planned: Mapping[str, tuple[list[str], DictConfig]], swept: tuple[str, ...], root: Path, local: bool
) -> dict[Cell, DictConfig]:
    """Prepare the data of every cell and check that they, the model and the device fit together.

    ``planned``: by a cell's name its overrides and its configuration. ``local``: this machine is to train them.

    Raises:
        UserError: for the first cell that cannot work.
    """
    for _, cfg in planned.values():  # what needs no data
        models.check(cfg.model)
        source(cfg.dataset, root)
        resolve_choices(cfg, local)
        if local:
            resolve_device(cfg.training.device, cfg.training.precision, cfg.training.compile)
    cells: dict[str, tuple[Cell, DictConfig]] = {}  # by identity
    known: dict[str, datasets.ImageDataset] = {}
    for name, (overrides, cfg) in planned.items():
        data = f"{OmegaConf.to_container(cfg.dataset)} {cfg.params.batch_size} {cfg.params.latent_dim}"
        if data not in known:
            known[data], _ = prepare(cfg, root)
            datasets.announce(known[data])
        dataset = known[data]
        flops = check_model(cfg, dataset.image_shape) * len(dataset.train) * _n_epochs(cfg)
        made_of = parts_of(cfg, dataset)
        key = run_key(settings_of(cfg), made_of)
        if key in cells:
            raise UserError(
                f"the sweep holds {cells[key][0].name} and {name}, which are one run; leave one of them out"
            )
        identity = {"name": name, "key": key, "made_of": tuple(made_of.items())}
        cells[key] = _cell(cfg, overrides, swept, flops=flops, **identity), cfg
    return dict(cells.values())


def resolve_choices(cfg: DictConfig, local: bool = True) -> None:
    """Replace ``training.precision=auto`` in ``cfg`` by what it stands for on this machine, and say why.

    A whole number as ``objective.variance`` becomes the same number with a point: both are one run.

    Raises:
        UserError: where another machine is to train.
    """
    cfg.objective.variance = objective_of(cfg).variance
    if cfg.training.precision != "auto":
        return
    if not local:
        raise UserError(
            "training.precision=auto: asks this machine, and the launcher may train on others; give float32, tf32 or "
            "bfloat16"
        )
    cfg.training.precision, why = choose_precision(resolve_device(cfg.training.device))
    _say_once(f"training.precision=auto: {cfg.training.precision}, since {why}")


@cache
def _say_once(line: str) -> None:
    log.info(line)


def objective_of(cfg: DictConfig) -> Objective:
    """Return what a configuration minimises."""
    o = cfg.objective
    return Objective(o.beta, o.reduction, o.variance if isinstance(o.variance, str) else float(o.variance))


def _n_epochs(cfg: DictConfig) -> int:
    """Epochs that a run takes at most."""
    return min(cfg.params.epochs or cfg.training.max_epochs, cfg.training.max_epochs)


def _cell(cfg: DictConfig, overrides: list[str], swept: tuple[str, ...], **identity: Any) -> Cell:
    p, o = cfg.params, cfg.objective
    return Cell(
        variant=variant(overrides, tuple(k for k in swept if k != "dataset.permute_pixels")),  # that has a label
        dataset=data_label(cfg.dataset.name, bool(cfg.dataset.get("permute_pixels"))),
        model=cfg.model.name,
        baseline=cfg.model.get("baseline") or "",
        params=p.name,
        seed=cfg.seed,
        batch_size=p.batch_size,
        lr=p.lr,
        schedule=schedule_label(p.schedule, p.epochs and min(p.epochs, cfg.training.max_epochs), p.mirror),
        latent_dim=p.latent_dim,
        beta=o.beta,
        reduction=o.reduction,
        variance=str(objective_of(cfg).variance),
        settings=settings_key(settings_of(cfg)),
        overrides=tuple(o for o in overrides if o.partition("=")[0].lstrip("+~") in swept),
        **identity,
    )


def check_model(cfg: DictConfig, image_shape: tuple[int, int, int]) -> float:
    """Build the model, a large one without memory or weights, so that what does not fit is known before any run starts.

    Returns:
        The floating-point operations of an update, per image: of one pass forward and two backward; 0.0 where the model
        cannot be counted.

    Raises:
        UserError: as the model's constructor does, where encode or decode fail, or where this machine has too little
            memory to train it.
    """
    try:
        with torch.device("meta"):
            model = models.create(cfg.model, image_shape, cfg.params.latent_dim)
        n_weights = sum(p.numel() for p in model.parameters())
        if n_weights * math.prod(image_shape[1:]) <= SMALL:  # without numbers PyTorch needs its compiler, a second
            with torch.random.fork_rng(devices=[]):
                model = models.create(cfg.model, image_shape, cfg.params.latent_dim)
        with _counted(model) as count:
            models.check_outputs(model)
    except UserError:
        raise
    except Exception:  # a user's own may want to see numbers
        _check_with_numbers(cfg, image_shape)
        return 0.0
    batch, latent_dim = cfg.params.batch_size, cfg.params.latent_dim
    check_memory(
        4 * (COPIES * n_weights + batch * count.values),  # float32
        f"model={cfg.model.name} params.latent_dim={latent_dim} params.batch_size={batch}: {n_weights:,} weights and "
        f"images of {image_shape[1]}x{image_shape[2]}",
        "give smaller widths, fewer latents, smaller batches or smaller images",
    )
    return 3 * 2.0 * count.products


def _check_with_numbers(cfg: DictConfig, image_shape: tuple[int, int, int]) -> None:
    """The same with weights, for a model that cannot do without."""
    try:
        models.check_outputs(models.create(cfg.model, image_shape, cfg.params.latent_dim).eval())
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"model={cfg.model.name}: {cfg.model['_target_']} fails on two images "
            f"({type(error).__name__}: {first_line(error)}); {plugins.TRACEBACK}"
        ) from error


@dataclass
class Count:
    """What a model computes for one image."""

    values: int = 0  # that the layers hand on, kept until the gradients are known
    products: int = 0  # of a weight and a value


@contextmanager
def _counted(model: VAE) -> Iterator[Count]:
    """While inside, count what the layers of ``model`` do with ``models.CHECKED`` images."""
    found = Count()

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        if not isinstance(output, torch.Tensor):
            return
        found.values += output.numel() // models.CHECKED
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:  # of a convolution, once for each place
            places = 1 if isinstance(layer, nn.Linear) else min(math.prod(x.shape[2:]) for x in (*inputs[:1], output))
            found.products += weight.numel() * places

    hooks = [layer.register_forward_hook(count) for layer in model.modules() if not list(layer.children())]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
