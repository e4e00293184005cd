"""Which principal directions of the images a trained VAE keeps: where it falls behind the closed-form linear VAE.

    python benchmarks/directions.py outputs/.../checkpoint.pt [more checkpoints] [--root .]

For test images x and their reconstructions y from the posterior means: the share of variance kept along the principal
direction u of the training images, 1 - E[(u.(x - y))^2] / E[(u.(x - mean))^2], averaged over bands of directions;
higher is better. The linear VAE of decoder variance v = 1/2 keeps 1 - (v / eigenvalue)^2 of a direction whose
eigenvalue exceeds v (Tipping & Bishop 1999), and nothing of the others; a nonlinear model may keep more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from vae_sweep import datasets
from vae_sweep.metrics.linear import cached_spectrum
from vae_sweep.metrics.measure import linear_vae
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.preparation import objective_of
from vae_sweep.sweeps.source import source
from vae_sweep.training import checkpoint
from vae_sweep.training.evaluation import to_float

# Ranks, both ends counted.
BANDS = (*((1, 1), (2, 4), (5, 8), (9, 16), (17, 24), (25, 36), (37, 64)), *((65, 128), (129, 256)))
BATCH = 500


@torch.no_grad()
def kept(model: VAE, images: torch.Tensor, directions: torch.Tensor, mean: torch.Tensor) -> NDArray[np.float64]:
    """Return the share of variance kept along each of ``directions`` (D, k), (k,)."""
    missed = torch.zeros(directions.shape[1], dtype=torch.float64)
    total = torch.zeros_like(missed)
    for start in range(0, len(images), BATCH):
        x = to_float(images[start : start + BATCH])
        missed += ((x - model.reconstruct(x)).flatten(1) @ directions).double().square().sum(0)
        total += ((x.flatten(1) - mean) @ directions).double().square().sum(0)
    return (1 - missed / total).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="folder of the project whose data they used")
    options = parser.parse_args()
    shares: dict[str, NDArray[np.float64]] = {}
    for path in options.checkpoints:
        model, content = checkpoint.load(path)
        cfg = OmegaConf.create(content["config"])
        dataset = datasets.load(source(cfg.dataset, options.root), options.root / "data" / "cache")
        spectrum = cached_spectrum(dataset.train.images, dataset.digest, dataset.cache_dir)
        directions = torch.from_numpy(spectrum.eigenvectors[:, : BANDS[-1][1]]).float()
        images, mean = torch.from_numpy(dataset.test.images), torch.from_numpy(spectrum.mean).float()
        if not shares:
            line = linear_vae(spectrum, model.latent_dim, objective_of(cfg), model.image_shape)
            shares["linear, closed form"] = kept(line, images, directions, mean)
            eigenvalues = spectrum.eigenvalues
        loss = content["facts"]["test"]["loss"]
        shares[f"{content['facts']['name']} ({loss:.2f})"] = kept(model, images, directions, mean)
    print(
        "Share of test variance kept along principal directions of the training images (higher is better); test loss,"
    )
    print("nats/image, in brackets (lower is better). Eigenvalues in squared units of [0, 1].\n")
    print("| directions | eigenvalues | " + " | ".join(shares) + " |")
    print("| --- | --- |" + " ---: |" * len(shares))
    for first, last in [(first, min(last, len(eigenvalues))) for first, last in BANDS if first <= len(eigenvalues)]:
        span = (
            f"{eigenvalues[first - 1]:.2f} to {eigenvalues[last - 1]:.2f}" if last > first else f"{eigenvalues[0]:.2f}"
        )
        ranks = str(first) if first == last else f"{first} to {last}"
        cells = (f"{100 * values[first - 1 : last].mean():.0f} %" for values in shares.values())
        print(f"| {ranks} | {span} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
