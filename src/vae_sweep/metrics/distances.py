"""Distances between the features of generated images and those of test images.

Fréchet distance (Heusel et al. 2017) and kernel distance (Binkowski et al. 2018) by torch-fidelity's own functions;
precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) from one matrix of distances.
Letters in the shape comments: N real images, M generated ones, F features.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.metrics.features import Extractor

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

NEIGHBOURS = 5  # k of precision, recall, density, coverage
MIN_IMAGES = 50  # with fewer on a side nothing is measured

_SUBSETS = 20  # of the kernel distance; 0.9 s on one core, of 1000 images and 1280 features each
_SUBSET_IMAGES = 1000
_SEED = 2020  # torch-fidelity's own; draws the subsets, and which images are used
_BLOCK = 1000  # rows of a matrix of distances that are in memory at once
_FORMAT = 1  # raise it when what `real_features` stores changes its meaning


@dataclass(frozen=True)
class RealFeatures:
    """The test images' side of all distances."""

    features: Floats  # (N, F) in random order
    mean: Floats  # (F,)
    covariance: NDArray[np.float64]  # (F, F), 1/(N - 1)
    radii: Floats  # (N,) distance of each to its k-th neighbour
    floor: dict[str, float]  # the distances of N training images: what a perfect generator would get

    def compare(self, fake: Floats) -> dict[str, float]:
        """Return `distances` of generated features (M, F) from these."""
        return distances(self, fake)


def real_features(
    extractor: Extractor,
    train_images: NDArray[np.uint8],
    test_images: NDArray[np.uint8],
    n: int,
    cache_dir: Path,
    digest: str,
) -> RealFeatures:
    """Return the features of ``n`` test images, at most all of the smaller split, and the distances of as many
    training images from them.

    Images (., C, H, W) uint8, in any order: a fixed permutation chooses. Computed once per dataset (``digest``),
    network and count, and kept in ``cache_dir``; of several processes that ask at once one computes and the others
    wait; a damaged file is replaced. Fewer than `MIN_IMAGES` a side are a warning, an empty floor and empty distances.
    """
    n = min(n, len(train_images), len(test_images))
    if n < MIN_IMAGES:
        log.warning("distances between image sets are skipped: %d images a side, they need %d", n, MIN_IMAGES)
        return measured(extractor(_chosen(test_images, n)))
    name = f"features-{digest[:16]}-{extractor.label}-{extractor.sha256[:8]}-{n}-v{METRICS_VERSION}.npz"
    path = Path(cache_dir) / name
    shape = n, extractor.n_features
    found = _read(path, shape)
    if found is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = _read(path, shape)
            if found is None:
                real = measured(extractor(_chosen(test_images, n)))
                real.floor.update(real.compare(extractor(_chosen(train_images, n))))
                _write(path, real)
                found = real
    return found


def measured(features: Floats) -> RealFeatures:
    """Return what distances need of real features (N, F), the floor left empty."""
    import torch
    from torch_fidelity.metric_fid import fid_features_to_statistics

    if len(features) < MIN_IMAGES:
        f = features.shape[1]
        return RealFeatures(
            features, np.zeros(f, np.float32), np.zeros((f, f)), np.zeros(len(features), np.float32), {}
        )
    statistics = fid_features_to_statistics(torch.from_numpy(features))
    return RealFeatures(features, statistics["mu"], statistics["sigma"], _radii(features), {})


def distances(real: RealFeatures, fake: Floats) -> dict[str, float]:
    """Return fd, kd, kd_sd, precision, recall, density and coverage of generated features (M, F), float32.

    M may differ from N. fd compares all with all; it is biased by about 1/M + 1/N, and rounding may make it slightly
    negative for equal sets (3e-4 with fewer images than features). kd is the mean over 20 pairs of random subsets of
    min(1000, M, N) images of the unbiased squared MMD with kernel (x.y / F + 1)^3, which may be negative, and kd_sd
    their standard deviation; with 1000 images or fewer there is one subset, and no kd_sd. The other four compare the
    first min(M, N) of both, so ``fake`` is in random order too.
    Empty when one side has fewer than `MIN_IMAGES`. Raises ValueError for another number or type of features.
    """
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    if fake.ndim != 2 or fake.shape[1] != real.features.shape[1] or fake.dtype != np.float32:
        raise ValueError(f"expected float32 features (M, {real.features.shape[1]}), got {fake.dtype} {fake.shape}")
    n = min(len(real.features), len(fake))
    if n < MIN_IMAGES:
        return {}
    a, b = torch.from_numpy(fake), torch.from_numpy(real.features)
    statistics = {"mu": real.mean, "sigma": real.covariance}
    frechet = fid_statistics_to_metric(fid_features_to_statistics(a), statistics, verbose=False)
    several = n > _SUBSET_IMAGES  # else every subset holds all images
    kernel = kid_features_to_metric(
        *(a, b),
        **{"kid_subsets": _SUBSETS if several else 1, "kid_subset_size": min(_SUBSET_IMAGES, n)},
        **{"rng_seed": _SEED, "verbose": False},
    )
    radii = real.radii if n == len(real.features) else _radii(real.features[:n])
    return {
        "fd": frechet[KEY_METRIC_FID],
        "kd": kernel[KEY_METRIC_KID_MEAN],
        **({"kd_sd": kernel[KEY_METRIC_KID_STD]} if several else {}),
        **_neighbourhoods(real.features[:n], radii, fake[:n]),
    }


def _neighbourhoods(real: Floats, radii: Floats, fake: Floats) -> dict[str, float]:
    """Precision, recall, density and coverage of (M, F) among (N, F) whose k-th neighbours are ``radii`` away.

    A point is in a neighbourhood when it is nearer than the radius, as in Naeem et al. 2020.
    """
    fake_radii = _radii(fake)
    counts = np.zeros(len(fake), np.int64)  # real neighbourhoods that hold each generated image
    recalled = covered = start = 0
    for block in _distances(real, fake):  # (rows, M)
        own = radii[start : start + len(block), None]
        inside = block < own
        counts += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int((block < fake_radii).any(axis=1).sum())
        start += len(block)
    return {
        "precision": float((counts > 0).mean()),
        "recall": recalled / len(real),
        "density": float(counts.mean()) / NEIGHBOURS,
        "coverage": covered / len(real),
    }


def _radii(points: Floats) -> Floats:
    """The distance of each of the points (N, F) to its k-th neighbour, (N,)."""
    found = [np.partition(block, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for block in _distances(points, points)]
    return np.concatenate(found)  # the nearest of all is the point itself, so number k, from 0, is the k-th neighbour


def _distances(left: Floats, right: Floats) -> Iterator[Floats]:
    """Euclidean distances between points (A, F) and (B, F) in blocks (at most 1000, B), 20 MB for B = 5000."""
    centre = right.mean(axis=0)  # small norms lose fewer digits in the difference
    left, right = left - centre, right - centre
    norms = [np.einsum("if,if->i", side, side) for side in (left, right)]
    for start in range(0, len(left), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scale = norms[0][rows, None] + norms[1]
        squared = left[rows] @ right.T
        squared *= -2
        squared += scale
        squared[squared < 2e-6 * scale] = 0  # rounding: equal points are at distance 0, as a collapsed model's are
        yield np.sqrt(squared, out=squared)


def _chosen(images: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    return images[np.random.default_rng(_SEED).permutation(len(images))[:n]]


def _read(path: Path, shape: tuple[int, int]) -> RealFeatures | None:
    try:
        # numpy leaves the file open when it is no archive, unless the file is ours
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if int(file["format"]) != _FORMAT:
                return None
            floor = {str(key): float(value) for key, value in zip(file["names"], file["values"], strict=True)}
            found = RealFeatures(file["features"], file["mean"], file["covariance"], file["radii"], floor)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    n, f = shape
    shapes = found.features.shape, found.mean.shape, found.covariance.shape, found.radii.shape
    return found if shapes == ((n, f), (f,), (f, f), (n,)) else None


def _write(path: Path, found: RealFeatures) -> None:
    """Write the file under another name and move it into place: a reader never sees half of it."""
    content = {key: value for key, value in vars(found).items() if key != "floor"}
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, format=_FORMAT, names=list(found.floor), values=list(found.floor.values()), **content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
