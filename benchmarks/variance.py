"""The closed form at its own best variance, and scikit-learn's probabilistic PCA beside it, on a folder of images.

    python benchmarks/variance.py cifar10-jpeg

Both are fitted to the training images; the losses are of the test images, in nats per image, lower is better.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

import common
from vae_sweep import datasets
from vae_sweep.metrics.bounds import bits_per_dim
from vae_sweep.metrics.linear import cached_spectrum, decoder_variance, linear_loss
from vae_sweep.sweeps.source import source
from vae_sweep.training.objective import Objective

LATENTS = (16, 64, 128, 256)
FITTED = Objective(variance="learned")  # on the training images, as PCA.score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of images, as dataset.path")
    parser.add_argument("--data", type=Path, default=Path("data"), help="where prepared images are kept")
    options = parser.parse_args()
    name = f"dataset.name={Path(options.folder).name}"
    cfg = common.composed("dataset=folder", f"dataset.path={options.folder}", name)
    data = datasets.load(source(cfg.dataset, Path.cwd()), options.data / "cache")
    train, test = (split.images.reshape(len(split), -1) / np.float32(255) for split in (data.train, data.test))
    spectrum = cached_spectrum(data.train.images, data.digest, data.cache_dir)
    rows = []
    for latents in LATENTS:
        ours = linear_loss(spectrum, data.test.images, latents, FITTED)
        theirs = -float(PCA(latents, svd_solver="covariance_eigh").fit(train).score(test))
        sigma, bits = math.sqrt(decoder_variance(spectrum, latents, FITTED)), bits_per_dim(ours.loss, test.shape[1])
        numbers = f"{ours.loss:.2f}", f"{theirs:.2f}", f"{ours.kl:.1f}", f"{bits:.3f}"
        rows.append([str(latents), f"{sigma:.4f}", *numbers])
    common.table(["latents", "sigma", "-ELBO, nats/image", "-PCA.score", "kl", "bits/dim of the density"], rows)


if __name__ == "__main__":
    main()
