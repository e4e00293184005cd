"""Distances between reconstructions and images: PSNR and SSIM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch

from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import BATCH, to_float


@torch.no_grad()
def psnr(model: VAE, images: torch.Tensor) -> float:
    """Return the PSNR of decoded posterior means, clipped to [0, 1], in dB; higher is better.

    ``images``: uint8 (N, C, H, W). 10 log10(1 / MSE), the mean taken over all values of all images.
    """
    error = sum(float((a - b).square().sum(dtype=torch.float32)) for a, b in _pairs(model, images))
    return -10 * math.log10(max(error / images.numel(), 1e-12))


@torch.no_grad()
def ssim(model: VAE, images: torch.Tensor, facts: Mapping[str, Any] = MappingProxyType({})) -> float:
    """Return the structural similarity of decoded posterior means and images, mean over images; 1 for equal ones.

    ``images``: uint8 (N, C, H, W), H and W of 11 or more. ``facts``: of the dataset; permuted pixels are unshuffled,
    since SSIM compares neighbourhoods. As in Wang et al. 2004: a Gaussian window of 11 pixels with sigma 1.5, which is
    coarse on 32x32 pixels; borders are mirrored.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    similarity = 0.0
    for sides in _pairs(model, images):
        first, second = (torch.from_numpy(unshuffle(side.cpu().numpy(), facts)) for side in sides)
        each = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
        similarity += float(each.sum())  # type: ignore[union-attr]
    return similarity / len(images)


def _pairs(model: VAE, images: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield clipped reconstructions and their images, batch by batch."""
    device = next(model.parameters()).device
    for start in range(0, len(images), BATCH):
        x = to_float(images[start : start + BATCH].to(device))
        yield model.reconstruct(x).clamp_(0, 1), x
