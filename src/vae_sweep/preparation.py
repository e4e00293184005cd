"""What must hold before anything is trained: the data are there, and the model fits them."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from vae_sweep import datasets, models, reference
from vae_sweep.errors import UserError


def prepare(cfg: DictConfig, root: Path) -> tuple[datasets.ImageDataset, reference.Spectrum]:
    """Return the cached dataset of ``cfg`` and the spectrum of its training images, building what is missing.

    Raises:
        UserError: where the data are not there or do not fit the configuration.
    """
    node = copy.deepcopy(cfg.dataset)
    for key in ("path", "root"):
        if isinstance(OmegaConf.select(node, key), str):
            node[key] = str(root / Path(node[key]).expanduser())
    source = datasets.create(node)
    dataset = datasets.load(source, root / Path(cfg.paths.data).expanduser() / "cache")
    n_train = len(dataset.train.images)
    if cfg.params.batch_size > n_train:
        raise UserError(
            f"params.batch_size={cfg.params.batch_size}: larger than the {n_train} training images of "
            f"{dataset.name}; give a value from 1 to {n_train}"
        )
    if dataset.image_shape[0] not in (1, 3):
        raise UserError(f"dataset={dataset.name}: images have {dataset.image_shape[0]} channels; 1 or 3 can be shown")
    # The optimum uses at most latent_dim directions; 512 are more than this loss can pay for on any usual data.
    directions = max(512, cfg.params.latent_dim)
    return dataset, reference.cached_spectrum(dataset.train.images, dataset.digest, dataset.cache_dir, directions)


def check_model(cfg: DictConfig, image_shape: tuple[int, int, int]) -> None:
    """Build the model without memory or weights, so that what does not fit is known before any run starts.

    Raises:
        UserError: as the model's constructor does.
    """
    with torch.device("meta"):
        models.create(cfg.model, image_shape, cfg.params.latent_dim)
