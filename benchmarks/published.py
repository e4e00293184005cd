"""Published numbers beside ours.

    python benchmarks/published.py                  # on points that the script draws
    python benchmarks/published.py dataset=cifar10  # and the Gaussian of all pixels of a dataset, in bits/dim

It needs ``pip install -e ".[fd]"``. What follows the options are overrides of the project's configuration. Ours are
means of five draws, with their standard deviation; every published one is of one draw, or exact.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from sklearn.covariance import EmpiricalCovariance

import common
from vae_sweep import datasets
from vae_sweep.metrics.bounds import bits_per_dim
from vae_sweep.metrics.distances import NEIGHBOURS, distances, measured
from vae_sweep.sweeps.source import source

VALUES, DRAWS = 1000, 5  # of two sets from one standard normal distribution
PRDC = {"precision": 0.4772, "recall": 0.4705, "density": 1.0555, "coverage": 0.9735}  # README of prdc, k = 5
GAUSSIAN = 4.70  # bits/dim of CIFAR-10's test images; van den Oord et al. 2016, "Pixel recurrent neural networks"


def neighbourhoods(points: int) -> list[list[str]]:
    """Two sets from one distribution: the example of the authors' package prdc, and what Naeem et al. prove."""
    random = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        real, fake = (random.standard_normal((points, VALUES), np.float32) for _ in range(2))
        found.append(distances(measured(real), fake))
    rows = []
    for key, published in PRDC.items():
        values = [each[key] for each in found]
        ours = f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
        rows.append(
            [f"{key} of two sets of {points:,} from N(0, I), {VALUES} values", "prdc", f"{published:.4f}", ours]
        )
    missed = math.prod((points - i) / (2 * points - i) for i in range(1, NEIGHBOURS + 1))
    rows.append(["its expected coverage", "Naeem et al. 2020, exact", f"{1 - missed:.4f}", ours])
    return rows


def gaussian(overrides: list[str]) -> list[str]:
    """Bits/dim of the test images under the Gaussian of the training images, noise that fills the bins included."""
    cfg = common.composed(*overrides)
    data = datasets.load(source(cfg.dataset, Path.cwd()), Path("data") / "cache")
    random = np.random.default_rng(0)
    parts = (np.concatenate([data.train.images, data.val.images]), data.test.images)
    train, test = (
        (images + random.random(images.shape, np.float32)).reshape(len(images), -1) / 256 for images in parts
    )
    ours = bits_per_dim(-EmpiricalCovariance().fit(train).score(test), test.shape[1])
    return [
        f"bits/dim of a multivariate Gaussian, {data.name}",
        "van den Oord et al. 2016",
        f"{GAUSSIAN:.2f}",
        f"{ours:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10_000, help="of each set; default 10000, as published")
    options, given = parser.parse_known_args()
    rows = neighbourhoods(options.points)
    if given:
        rows.append(gaussian(given))
    common.table(["what", "published by", "theirs", "ours"], rows)


if __name__ == "__main__":
    main()
