"""A VAE's training as tutorials write it: PIL pictures, ToTensor, a DataLoader, Adam as it comes, ``loss.item()``."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from vae_sweep.models.vae import VAE


class Pictures(Dataset):
    """As torchvision's CIFAR10: each access makes a PIL image from an array (N, H, W, C), and a tensor from that."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def array(images: torch.Tensor) -> np.ndarray:
    """Return pictures (N, C, H, W) as an array (N, H, W, C), as image files are read."""
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def loss_of(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """Return the loss of a batch as tutorials write it, nats per image."""
    reconstruction, posterior = model(x, torch.randn(len(x), model.latent_dim))
    recon = F.mse_loss(reconstruction, x, reduction="sum")
    kl = -0.5 * torch.sum(1 + posterior.logvar - posterior.mean.pow(2) - posterior.logvar.exp())
    return (recon + kl) / len(x)


def notebook_epoch(model: VAE, loader: DataLoader, optimizer: torch.optim.Optimizer) -> float:
    """Make the updates of one epoch; return the mean of the batches' losses."""
    model.train()
    total = 0.0
    for x, _ in loader:
        optimizer.zero_grad()
        loss = loss_of(model, x)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def notebook_loss(model: VAE, loader: DataLoader) -> float:
    """Return the mean of the batches' losses."""
    model.eval()
    return sum(loss_of(model, x).item() for x, _ in loader) / len(loader)
