"""Seconds that the held-out evaluation of one run takes on one core: ``python benchmarks/evaluation.py``.

Untrained models of the real sizes on drawn pictures; the work does not depend on the weights. The linear VAE and the
real images' features are computed first, since a sweep does that once for all of its runs.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from vae_sweep import datasets, models, reference
from vae_sweep.evaluation import evaluate
from vae_sweep.features import resolve
from vae_sweep.heldout.measure import Settings, measure, measure_reference

NODES = {
    "fc": {"_target_": "vae_sweep.models.fc.FCVAE", "hidden_dims": [512, 256]},
    "conv": {"_target_": "vae_sweep.models.conv.ConvVAE", "channels": [32, 64, 128]},
}
LATENTS = 128


def main() -> None:
    torch.set_num_threads(1)
    source = datasets.create(
        {"_target_": "vae_sweep.datasets.shapes.Shapes", "name": "shapes", "n_train": 12000, "n_test": 10000}
    )
    network, why = resolve("efficientnet_lite0", None, torch.device("cpu"))
    settings = Settings(100, 2000, 10, 2000, network, 5000, None)
    with tempfile.TemporaryDirectory() as folder:
        data = datasets.load(source, Path(folder))
        spectrum = reference.spectrum(data.train.images)
        line = measure_reference(spectrum, LATENTS, 1.0, "sum", data, settings)
        print(f"10,000 test images of 3x32x32, {LATENTS} latents, one thread, torch {torch.__version__}; {why}\n")
        found = {"linear, and the real side": line.seconds}
        for name, node in NODES.items():
            model = models.create(node, data.image_shape, LATENTS)
            averages = evaluate(model, torch.from_numpy(data.test.images))
            found[name] = measure(model, averages, "sum", data, settings, 0).seconds
    parts = list(found["fc"])
    print("| model | " + " | ".join(parts) + " | without features, s | in all, s |")
    print("| --- |" + " ---: |" * (len(parts) + 2))
    for name, seconds in found.items():
        total = sum(seconds.values())
        cells = [f"{seconds[part]:.1f}" for part in parts]
        print(f"| {name} | " + " | ".join([*cells, f"{total - seconds['distances']:.1f}", f"{total:.1f}"]) + " |")


if __name__ == "__main__":
    main()
