"""A run: its configuration, its data and its record, built once and handed to whatever trains, measures or draws it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from vae_sweep.base.cache import cached
from vae_sweep.comparison.rows import LinearRow
from vae_sweep.datasets import ImageDataset
from vae_sweep.metrics.linear import Spectrum, decoder_variance, linear_loss
from vae_sweep.sweeps.context import Context
from vae_sweep.sweeps.preparation import objective_of, prepare
from vae_sweep.sweeps.status import Reporter
from vae_sweep.tracking.store import RunRecord, Store
from vae_sweep.training.device import resolve_device
from vae_sweep.training.evaluation import Averages
from vae_sweep.training.objective import Objective

N_RECONSTRUCTIONS = 16  # test images shown beside their reconstructions


@dataclass(frozen=True)
class Job:
    """One run that Hydra asks for."""

    cfg: DictConfig
    context: Context
    name: str
    key: str  # identity of the run
    made_of: dict[str, str]  # its images and code, by name
    output_dir: Path  # Hydra's folder of the job
    folder: Path  # what it needs to continue
    reporter: Reporter  # what it is doing

    @property
    def root(self) -> Path:
        """The project folder."""
        return Path(self.context.root)

    @cached_property
    def store(self) -> Store:
        """The tracking store."""
        return self.context.store()

    @cached_property
    def device(self) -> torch.device:
        """The device to train on; UserError where it is not there."""
        return resolve_device(self.cfg.training.device, self.cfg.training.precision, self.cfg.training.compile)


@dataclass(frozen=True)
class Run(Job):
    """A job whose run is open in the store."""

    record: RunRecord

    @classmethod
    def of(cls, job: Job, record: RunRecord) -> Run:
        """Return the run of a job."""
        return cls(
            job.cfg, job.context, job.name, job.key, job.made_of, job.output_dir, job.folder, job.reporter, record
        )

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The configuration, resolved, as plain values."""
        plain: Any = OmegaConf.to_container(self.cfg, resolve=True)
        return plain

    @cached_property
    def _prepared(self) -> tuple[ImageDataset, Spectrum]:
        return prepare(self.cfg, self.root)

    @property
    def dataset(self) -> ImageDataset:
        """The images; UserError where they are not there."""
        return self._prepared[0]

    @property
    def spectrum(self) -> Spectrum:
        """Eigenvalues of the training images, and their directions."""
        return self._prepared[1]

    def images(self, split: str) -> torch.Tensor:
        """The images of train, val or test, uint8 (N, C, H, W)."""
        return torch.from_numpy(self.dataset.splits[split].images)

    @property
    def originals(self) -> NDArray[np.uint8]:
        """The test images that reports show beside reconstructions, the same in every run: (n, C, H, W)."""
        from vae_sweep.report.model_figures import some_of  # here, since matplotlib takes its time

        return some_of(self.dataset.test.images, N_RECONSTRUCTIONS, seed=0)

    @cached_property
    def objective(self) -> Objective:
        """What is minimised."""
        return objective_of(self.cfg)

    @cached_property
    def variance(self) -> float:
        """The variance of the decoder, or of the closed-form linear VAE's where it is free; squared units of [0, 1]."""
        return decoder_variance(self.spectrum, self.cfg.params.latent_dim, self.objective)

    @cached_property
    def scale(self) -> float:
        """What a squared error counts in the loss, beside decoder variance 1/2: 1 / (2 variance).

        A free variance is the larger one that the closed form has on training and on validation images.
        """
        n_values, variance = len(self.spectrum.mean), self.variance
        if self.objective.implied_variance(n_values) is None:
            learned = variance if self.objective.variance == "learned" else None
            variance = max(variance, self.objective.squared_error(self.linear.val_recon, n_values, learned) / n_values)
        return 1 / (2 * variance)

    @cached_property
    def linear(self) -> LinearRow:
        """The closed-form linear VAE on the same splits and the same loss."""
        dataset, latent_dim = self.dataset, self.cfg.params.latent_dim
        loss = (latent_dim, self.objective.beta, self.objective.reduction, str(self.objective.variance))
        keys = [f"{split}_{term}" for split in dataset.splits for term in Averages._fields]

        def compute() -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, split in dataset.splits.items():
                optimum = linear_loss(self.spectrum, split.images, latent_dim, self.objective)
                found |= {f"{key}_{term}": getattr(optimum, term) for term in Averages._fields}
                found["active"] = optimum.active
            return found

        numbers = cached(dataset.cache_dir, "line", [dataset.digest, *loss], [*keys, "active"], compute)
        return LinearRow(dataset.name, *loss[:3], **numbers, variance=loss[3])
