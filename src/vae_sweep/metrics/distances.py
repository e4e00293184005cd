"""Distances between the features of generated images and those of test images.

Fréchet distance (Heusel et al. 2017) and kernel distance (Binkowski et al. 2018) by torch-fidelity's own functions;
precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020) from one matrix of distances.
Letters in the shape comments: N real images, M generated ones, F features.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vae_sweep.base.cache import cached_file, read_arrays, write_arrays
from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.metrics.features import Extractor

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

NEIGHBOURS = 5  # k of precision, recall, density, coverage
MIN_IMAGES = 50  # on each side; distances of fewer images are not computed

_SUBSETS = 20  # of the kernel distance; 0.9 s on one core, of 1000 images and 1280 features each
_SUBSET_IMAGES = 1000
_SEED = 2020  # the default of torch-fidelity; draws the subsets and the images that are used
_BLOCK = 1000  # rows of a distance matrix in memory at once
_FORMAT = 1  # raise it when what `real_features` stores changes its meaning


@dataclass(frozen=True)
class RealFeatures:
    """Features of the test images, and all that a distance from them needs."""

    features: Floats  # (N, F) in random order
    mean: Floats  # (F,)
    covariance: NDArray[np.float64]  # (F, F), 1/(N - 1)
    radii: Floats  # (N,) distance of each to its k-th nearest neighbour
    floor: dict[str, float]  # the distances of N training images, as a perfect generator has them

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
    """Return the features of ``n`` test images, and the distances of as many training images from them.

    ``n`` is at most the size of the smaller split. Images are uint8 (., C, H, W) in any order: a fixed permutation
    chooses. Computed once per dataset (``digest``), network and ``n``, and kept in ``cache_dir``. With fewer than
    `MIN_IMAGES` a side a warning is logged, and the floor and all distances are empty.
    """
    n = min(n, len(train_images), len(test_images))
    if n < MIN_IMAGES:
        log.warning("distances between image sets are skipped: they need %d images on each side, not %d", MIN_IMAGES, n)
        return measured(extractor(_chosen(test_images, n)))

    def compute() -> RealFeatures:
        real = measured(extractor(_chosen(test_images, n)))
        real.floor.update(real.compare(extractor(_chosen(train_images, n))))
        return real

    name = f"features-{digest[:16]}-{extractor.label}-{extractor.sha256[:8]}-{n}-v{METRICS_VERSION}.npz"
    return cached_file(Path(cache_dir) / name, lambda path: _read(path, n, extractor.n_features), compute, _write)


def measured(features: Floats) -> RealFeatures:
    """Return :class:`RealFeatures` of real features (N, F), without the floor."""
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

    M may differ from N. fd compares all images. Its bias is about 1/M + 1/N, and for equal sets rounding may make it
    slightly negative (3e-4 with fewer images than features). kd is the mean over 20 pairs of random subsets of
    min(1000, M, N) images of the unbiased squared MMD with kernel (x.y / F + 1)^3, which may be negative; kd_sd is
    their standard deviation. With 1000 images or fewer there is one subset and no kd_sd. The other four compare the
    first min(M, N) of both sides, so ``fake`` must be in random order too. Empty where a side has fewer than
    `MIN_IMAGES`.

    Raises:
        ValueError: for another number or type of features.
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
    """Precision, recall, density and coverage of generated features (M, F); ``radii`` (N,) are of the real ones.

    A point is in a neighbourhood if it is nearer than the radius (Naeem et al. 2020).
    """
    fake_radii = _radii(fake)
    counts = np.zeros(len(fake), np.int64)  # of real neighbourhoods around each generated image
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
    """The distance of each of the points (N, F) to its k-th nearest neighbour, (N,)."""
    found = [np.partition(block, NEIGHBOURS, axis=1)[:, NEIGHBOURS] for block in _distances(points, points)]
    return np.concatenate(found)  # number 0 is the point itself


def _distances(left: Floats, right: Floats) -> Iterator[Floats]:
    """Euclidean distances between points (A, F) and (B, F) in blocks (at most 1000, B), 20 MB for B = 5000."""
    centre = right.mean(axis=0)  # smaller norms lose fewer digits in the difference
    left, right = left - centre, right - centre
    norms = [np.einsum("if,if->i", side, side) for side in (left, right)]
    for start in range(0, len(left), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scale = norms[0][rows, None] + norms[1]
        squared = left[rows] @ right.T
        squared *= -2
        squared += scale
        squared[squared < 2e-6 * scale] = 0  # rounding: equal points, as of a collapsed model, are at distance 0
        yield np.sqrt(squared, out=squared)


def _chosen(images: NDArray[np.uint8], n: int) -> NDArray[np.uint8]:
    return images[np.random.default_rng(_SEED).permutation(len(images))[:n]]


def _read(path: Path, n: int, f: int) -> RealFeatures:
    arrays = read_arrays(path, _FORMAT)
    floor = {str(key): float(value) for key, value in zip(arrays["names"], arrays["values"], strict=True)}
    found = RealFeatures(arrays["features"], arrays["mean"], arrays["covariance"], arrays["radii"], floor)
    shapes = found.features.shape, found.mean.shape, found.covariance.shape, found.radii.shape
    if shapes != ((n, f), (f,), (f, f), (n,)):
        raise ValueError(f"its arrays have the shapes {shapes}")
    return found


def _write(path: Path, found: RealFeatures) -> None:
    arrays = {key: value for key, value in vars(found).items() if key != "floor"}
    write_arrays(path, _FORMAT, names=list(found.floor), values=list(found.floor.values()), **arrays)
