"""Images of a model while it trains, for the image grid of the MLflow UI: the same ones in all runs of a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.models.vae import VAE
from vae_sweep.sweeps.run import Run
from vae_sweep.tracking.sender import EpochSender
from vae_sweep.training.evaluation import inference, to_float, to_uint8
from vae_sweep.training.randomness import Stream, generator

if TYPE_CHECKING:
    from vae_sweep.report.style import Images

N_SAMPLES, N_ORIGINALS, STEPS = 16, 8, 8  # prior draws; validation images; of an interpolation between two of them
COLUMNS = {"samples": 4, "reconstructions": 4, "interpolations": STEPS}


def is_shown(epoch: int) -> bool:
    """Return whether the images after ``epoch`` are kept: 1, 2, 4, 8, ..., since a VAE changes most at first."""
    return epoch & (epoch - 1) == 0


def send_images(run: Run, model: VAE, epoch: int, sender: EpochSender) -> None:
    """Hand the images of ``model`` to the sender, unless the configuration asks for none."""
    from vae_sweep.report.model_figures import some_of  # here, since matplotlib takes its time
    from vae_sweep.report.style import mosaic

    if run.cfg.tracking.get("images", True):  # a plan of an earlier version does not say
        drawn = draw(model, some_of(run.dataset.val.images, N_ORIGINALS, seed=0), run.cfg.seed)
        for key, images in drawn.items():
            grid = mosaic(unshuffle(images, run.dataset.facts), COLUMNS[key], gap=0)
            sender.add_image(key, epoch, torch.from_numpy(grid))


@torch.no_grad()
def draw(model: VAE, originals: Images, seed: int) -> dict[str, Images]:
    """Return uint8 images (n, C, H, W) by name; the global random generators are left as they were.

    ``samples``: prior draws, decoded. ``reconstructions``: a row of ``originals`` (n, C, H, W), a row of what they are
    reconstructed to, and so on. ``interpolations``: rows of decoded lines between the posterior means of two originals.
    """
    model.eval()
    device = next(model.parameters()).device
    with inference(device):
        means = model.encode(to_float(torch.from_numpy(originals).to(device))).mean
        pairs = means[: len(means) // 2 * 2].unflatten(0, (-1, 2)).unsqueeze(2)  # (n / 2, 2, 1, L)
        t = torch.linspace(0, 1, STEPS, device=device).view(1, STEPS, 1)
        z = {
            "samples": torch.randn(N_SAMPLES, model.latent_dim, generator=generator(seed, Stream.SAMPLES)).to(device),
            "reconstructions": means,
            "interpolations": torch.lerp(pairs[:, 0], pairs[:, 1], t).flatten(0, 1),
        }
        found = {key: to_uint8(model.decode(latents)) for key, latents in z.items() if len(latents)}
    columns = COLUMNS["reconstructions"]
    starts = range(0, len(originals), columns)
    both = [stack[i : i + columns] for i in starts for stack in (originals, found["reconstructions"])]
    return found | {"reconstructions": np.concatenate(both)}
