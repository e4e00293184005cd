"""Batches of training images by index: from the device's memory where they fit there, else through pinned memory."""

from __future__ import annotations

import torch

from vae_sweep.training.evaluation import to_float

SHARE = 0.5  # of a GPU's free memory, at most, for the training images; the model and its gradients need the rest


class Batches:
    """Gives batches of ``images`` (uint8, (N, C, H, W)) as float32 in [0, 1] on ``device``.

    Where the images fit, they are copied there once, and a batch is an indexing on the device. Where they do not, a
    batch is gathered into one of two pinned buffers and copied from it while the device still works on the last one.
    The numbers are the same.
    """

    def __init__(self, images: torch.Tensor, device: torch.device, memory_format: torch.memory_format) -> None:
        self.device = device
        self.memory_format = memory_format
        self.resident = fits(images, device)
        self.images = images.to(device) if self.resident else images
        self._turn = 0
        self._buffers: list[torch.Tensor] = []
        self._copied: list[torch.cuda.Event | None] = [None, None]

    def __len__(self) -> int:
        return len(self.images)

    def order(self, permutation: torch.Tensor) -> torch.Tensor:
        """Return the permutation (N,) of an epoch where :meth:`take` needs it."""
        return permutation.to(self.device) if self.resident else permutation

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """Return the images at ``index`` (B,), float32 (B, C, H, W)."""
        batch = self.images.index_select(0, index) if self.resident else self._through_buffer(index)
        return to_float(batch, self.memory_format)

    def _through_buffer(self, index: torch.Tensor) -> torch.Tensor:
        if not self._buffers:  # the first batch of an epoch is the largest
            shape, pinned = (len(index), *self.images.shape[1:]), self.device.type == "cuda"
            self._buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=pinned) for _ in range(2)]
        self._turn = 1 - self._turn
        buffer, copied = self._buffers[self._turn][: len(index)], self._copied[self._turn]
        if copied is not None:
            copied.synchronize()  # the copy of two batches ago: long done, unless the device is far behind
        torch.index_select(self.images, 0, index, out=buffer)
        batch = buffer.to(self.device, non_blocking=True)
        if self.device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self.device))
            self._copied[self._turn] = event
        return batch


def fits(images: torch.Tensor, device: torch.device) -> bool:
    """Return whether the images may stay in the device's memory."""
    if device.type != "cuda":
        return True  # the processor's own memory, which MPS shares
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= SHARE * free
