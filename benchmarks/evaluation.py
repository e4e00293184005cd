"""Seconds that the held-out evaluation of one run takes on one core: ``python benchmarks/evaluation.py``.

It needs ``pip install -e ".[fd]"``.

``--profile`` also shows the operations in which both models' time goes.

Untrained models of the real sizes on drawn pictures; the work does not depend on the weights. The linear VAE and the
real images' features are computed first, since a sweep does that once for all of its runs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch.profiler import ProfilerActivity, profile

import common
from vae_sweep.metrics.features import resolve
from vae_sweep.metrics.measure import Settings, linear_vae, measure, measure_linear
from vae_sweep.sweeps.preparation import prepare
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.objective import ELBO

MODELS = ("fc", "conv")
PARAMS = "p1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="to test on; default 10000")
    parser.add_argument("--profile", action="store_true", help="print the top operations, too")
    options = parser.parse_args()
    n = options.images
    torch.set_num_threads(1)
    sizes = f"dataset.n_train={n + 2000}", f"dataset.n_test={n}"
    cells = {model: common.cell(model, PARAMS, *sizes) for model in MODELS}
    cfg = cells[MODELS[0]]
    network, why = resolve("efficientnet_lite0", None, torch.device("cpu"))
    settings = Settings(**{**cfg.metrics, "features": network})
    latents = cfg.params.latent_dim
    with tempfile.TemporaryDirectory() as folder:
        cfg.paths.data = folder  # not where an earlier run has left the closed form's numbers
        data, spectrum = prepare(cfg, Path(folder))
        model = linear_vae(spectrum, latents, ELBO, data.image_shape)
        line = measure_linear(model, spectrum, ELBO, data, settings)
        print(f"{n:,} test images of 3x32x32, {latents} latents, one thread; {why}\n")
        found = {"linear, and the real side": line.seconds}
        with profile(activities=[ProfilerActivity.CPU]) if options.profile else nullcontext() as profiler:
            for name, cell in cells.items():
                model = common.built(cell)
                averages = evaluate(model, torch.from_numpy(data.test.images))
                found[name] = measure(model, averages, ELBO, data, settings, 0).seconds
    parts = list(found["fc"])
    rows = []
    for name, seconds in found.items():
        total = sum(seconds.values())
        shown = [*(seconds[part] for part in parts), total - seconds["distances"], total]
        rows.append([name, *(f"{value:.1f}" for value in shown)])
    common.table(["model", *parts, "without features, s", "in all, s"], rows)
    if profiler:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=50))
    common.closing()


if __name__ == "__main__":
    main()
