"""All that a report is made of, gathered from one or several sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vae_sweep.comparison.contrasts import Contrast, Group
from vae_sweep.comparison.ranking import Ranking
from vae_sweep.comparison.rows import Row
from vae_sweep.metrics.catalogue import Metric

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Evidence:
    """What a report shows. Per-run entries are keyed by the run's label, which is unique among all sweeps."""

    title: str
    sweeps: tuple[str, ...]  # ids of the sweeps' own runs
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]  # those that at least one run has, primary ones first
    groups: Mapping[str, tuple[Group, ...]]  # metric key -> one group for each (dataset, model, params)
    references: Mapping[str, Mapping[str, Mapping[str, float]]]
    # ^ dataset -> latents, such as "128" -> metric -> value of the closed-form linear VAE
    contrasts: tuple[Contrast, ...]  # of each dataset: planned pairs and primary metrics first
    rankings: tuple[Ranking, ...] = ()  # of each dataset with three models or more, in the primary metrics
    controls: tuple[str, ...] = ()  # the primary contrasts where the pixels are permuted, a sentence each
    histories: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    # ^ run -> images seen, validation loss (nats/image) after each epoch
    samples: Mapping[str, Images] = field(default_factory=dict)  # run -> (n, C, H, W)
    reconstructions: Mapping[str, Images] = field(default_factory=dict)
    # ^ run -> (n, 2, C, H, W) test images, the same ones in every run of a dataset, and their reconstructions
    linear_samples: Mapping[str, Images] = field(default_factory=dict)
    # ^ dataset -> (n, C, H, W), closed-form linear VAE
    linear_reconstructions: Mapping[str, Images] = field(default_factory=dict)
    # ^ dataset -> (n, C, H, W), the closed-form linear VAE's of the same test images
    interpolations: Mapping[str, Images] = field(default_factory=dict)  # run -> (rows, steps, C, H, W)
    spectra: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    # ^ run -> (L,) KL per latent, nats, descending
    linear_spectra: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    # ^ dataset -> latents in words -> that of the closed-form linear VAE
    linear_curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = field(default_factory=dict)
    # ^ dataset -> kl, recon of the closed-form linear VAE on test as beta varies (its rate-distortion curve)
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # dataset -> what it was taken for, lines
    when: str = ""  # when the sweeps ran, and for how long
    missing: str = ""  # why the second primary metric, a distance of samples, is not there
    notes: tuple[str, ...] = ()  # what was skipped and why, which feature network, subsets
    facts: Mapping[str, str] = field(default_factory=dict)  # methods and versions: name -> value, in order

    @property
    def questions(self) -> tuple[Contrast, ...]:
        """The primary contrasts that the models' baselines ask for; of a dataset that has none of them, all."""
        primary = [contrast for contrast in self.contrasts if contrast.metric.primary]
        asked = {contrast.dataset for contrast in primary if contrast.planned}
        return tuple(contrast for contrast in primary if contrast.planned or contrast.dataset not in asked)
