"""The closed-form optimum of a linear VAE on the project's loss.

A linear VAE (affine encoder, diagonal posterior, affine decoder) has a known global optimum, probabilistic PCA
(Tipping & Bishop 1999; Lucas et al. 2019, "Don't blame the ELBO!"). Per image the loss is, up to a factor,

    SSE + 2 s2 KL        with s2 = beta times the decoder's variance

and the eigen-directions of the data covariance are independent of each other. With eigenvalue l, encoder mean a u
(u = projection on the direction), posterior variance v and decoder gain g, the cost is
(1 - a g)^2 l + g^2 v + s2 (a^2 l + v - ln v - 1); it is least at

    l > s2 (used):    g = sqrt(l - s2), a = g / l, v = s2 / l    ->   SSE = s2,   KL = ln(l / s2) / 2
    otherwise:        g = a = 0, v = 1                           ->   SSE = l,    KL = 0

Where the variance is free, its best value is SSE / D: with m used directions, the sum of the other eigenvalues divided
by D - beta m. At beta 1 that is the maximum likelihood of probabilistic PCA, which uses all latents.

Letters in the shape comments: N images, D = C H W values per image, k kept directions, q latents, m used ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from vae_sweep.base.cache import cached_file, read_arrays, write_arrays
from vae_sweep.base.versions import METRICS_VERSION
from vae_sweep.base.working import working
from vae_sweep.training.objective import ELBO, LEAST_VARIANCE, Objective

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]

_CHUNK_BYTES = 64 * 2**20  # float32 working copy of one chunk of images
_FORMAT = 1  # raise it when what `cached_spectrum` stores changes its meaning


@dataclass(frozen=True)
class Spectrum:
    """Mean and leading eigen-directions of the covariance (1/N) of images scaled to [0, 1].

    Only the k leading directions are kept: a loss needs those above its implied variance, and the trace for the rest.
    """

    mean: Floats  # (D,)
    eigenvalues: Floats  # (k,) descending, in squared units of [0, 1]
    eigenvectors: Floats  # (D, k) orthonormal columns
    total_variance: float  # trace of the covariance: the loss of predicting the mean image
    n_images: int


@dataclass(frozen=True)
class LinearOptimum:
    """A loss of the optimal linear VAE and its terms, nats per image: loss = recon + beta * kl."""

    loss: float
    recon: float  # see Objective
    kl: float  # summed over latents, not weighted
    active: int  # number of latents in use


def decoder_variance(spectrum: Spectrum, latent_dim: int, objective: Objective) -> float:
    """Return the decoder's variance of the optimal linear VAE, in squared units of [0, 1]: given, or the best one.

    Raises:
        ValueError: for a beta that is not positive (beta = 0: KL infinite), an unknown reduction, or no latent.
    """
    if not (np.isfinite(objective.beta) and objective.beta > 0):
        raise ValueError(f"the closed-form linear VAE needs a finite beta > 0, got {objective.beta}")
    if objective.reduction not in ("sum", "mean"):
        raise ValueError(f"unknown reduction {objective.reduction!r}: choose from 'sum', 'mean'")
    if latent_dim < 1:
        raise ValueError(f"latent_dim must be at least 1, got {latent_dim}")
    n_values = len(spectrum.mean)
    implied = objective.implied_variance(n_values)
    return implied if implied is not None else _best_variance(spectrum, latent_dim, objective.beta)


def _best_variance(spectrum: Spectrum, latent_dim: int, beta: float) -> float:
    """The variance, with the number m of used directions, of the least loss; see the module docstring."""
    values, n_values = spectrum.eigenvalues[:latent_dim], len(spectrum.mean)
    m = np.arange(len(values) + 1)
    rest = np.maximum(spectrum.total_variance - np.concatenate([[0.0], np.cumsum(values)]), 0.0)
    room = n_values - beta * m
    variance = np.maximum(rest / np.where(room > 0, room, np.inf), LEAST_VARIANCE)
    used = np.concatenate([[np.inf], values]) > beta * variance  # the last of m directions is worth its latent
    with np.errstate(divide="ignore"):
        logs = np.concatenate([[0.0], np.cumsum(np.log(values))])
    loss = n_values / 2 * np.log(variance) + beta / 2 * (logs - m * np.log(beta * variance))
    return float(variance[np.argmin(np.where(used & (room > 0), loss, np.inf))])


def spectrum(images: Images, directions: int = 512) -> Spectrum:
    """Return the mean, the leading `directions` eigenpairs and the total variance of uint8 images (N, C, H, W).

    Images are read in chunks, so a memory map is fine. Matrix products are float32 on centred data and summed in
    float64: losses are accurate to 1e-5 nats. 45,000 x 3072 take 7 s on one core, half of it for the eigenvectors.

    Raises:
        ValueError: where there are no images, or they are not uint8.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) == 0:
        raise ValueError(f"expected uint8 images (N, C, H, W), N > 0; got {images.dtype} {images.shape}")
    flat = images.reshape(len(images), -1)  # (N, D), a view
    n, d = flat.shape
    mean = np.zeros(d)
    for rows in _slices(n, d):
        mean += flat[rows].sum(axis=0, dtype=np.int64)
    mean /= 255.0 * n

    size = min(n, d)  # N < D: the N x N Gram matrix has the same non-zero eigenvalues and is smaller
    product = np.zeros((size, size))
    for part in _slices(n, d) if d <= n else _slices(d, n):
        x = _centred(flat, mean, part, by_rows=d <= n)
        product += x.T @ x if d <= n else x @ x.T
    product /= n
    total = float(np.trace(product))

    keep = min(directions, size if d <= n else size - 1)  # centring costs the Gram matrix one direction
    if keep < 1:
        return Spectrum(mean, np.zeros(0), np.zeros((d, 0)), total, n)
    values, vectors = scipy.linalg.eigh(
        product, subset_by_index=(size - keep, size - 1), driver="evr", overwrite_a=True, check_finite=False
    )
    values, vectors = np.maximum(values[::-1], 0.0), np.ascontiguousarray(vectors[:, ::-1])
    if d > n:
        known = values > 1e-9 * max(total, 1e-300)  # u = X^T v / sqrt(N l) is noise where l is rounding
        values, vectors = values[known], _directions_from_gram(flat, mean, values[known], vectors[:, known])
    return Spectrum(mean, values, vectors, total, n)


def linear_optimum(spectrum: Spectrum, latent_dim: int, objective: Objective = ELBO) -> LinearOptimum:
    """Return the smallest training loss of any linear VAE, nats per image (formulas in the module docstring).

    Raises:
        ValueError: as `decoder_variance` does, and where too few directions were kept for this loss.
    """
    values, s2 = _used(spectrum, latent_dim, objective)
    sse = s2 * len(values) + max(spectrum.total_variance - float(values.sum()), 0.0)
    return _optimum(sse, 0.5 * float(np.log(values / s2).sum()), len(values), spectrum, latent_dim, objective)


def linear_loss(spectrum: Spectrum, images: Images, latent_dim: int, objective: Objective = ELBO) -> LinearOptimum:
    """Return the exact expected loss of the training-optimal linear VAE on other images, nats per image.

    `images`: uint8 (N, C, H, W) of the same shape. The expectation over the posterior is analytic. With
    ``variance="optimal"`` the decoder's variance is the best one of these images, as in `evaluate`.

    Raises:
        ValueError: as `linear_optimum` does, and for images of another size.
    """
    values, s2 = _used(spectrum, latent_dim, objective)
    sse, kl = _terms(values, s2, *_moments(spectrum, images, len(values)))
    return _optimum(sse, kl, len(values), spectrum, latent_dim, objective)


def linear_curve(spectrum: Spectrum, images: Images, betas: Sequence[float]) -> tuple[Floats, Floats]:
    """Return the rate-distortion curve of linear VAEs: KL and squared error on other images, nats per image, (B,) each.

    Each of ``betas`` has its optimal linear VAE, with as many latents as the spectrum has directions.
    """
    distance, scores = _moments(spectrum, images, len(spectrum.eigenvalues))
    found = []
    for beta in betas:
        # equal images have no direction
        values, s2 = _used(spectrum, max(1, len(spectrum.eigenvalues)), Objective(beta))
        found.append(_terms(values, s2, distance, scores[: len(values)]))
    sse, kl = np.array(found).T
    return kl, sse


def ppca_weights(spectrum: Spectrum, latent_dim: int, objective: Objective = ELBO) -> dict[str, Floats]:
    """Return the weights of an optimal linear VAE of raw x in [0, 1]: mean = W x + b, reconstruction = V z + c.

    `encoder_mean_weight` (q, D), `encoder_mean_bias` (q,), `encoder_logvar` (q,) (the same for every image),
    `decoder_weight` (D, q), `decoder_bias` (D,). Unused latents equal the prior. Raises as `linear_optimum` does.
    """
    values, s2 = _used(spectrum, latent_dim, objective)
    m, d = len(values), len(spectrum.mean)
    vectors, gain = spectrum.eigenvectors[:, :m], np.sqrt(values - s2)
    encoder, logvar, decoder = np.zeros((latent_dim, d)), np.zeros(latent_dim), np.zeros((d, latent_dim))
    encoder[:m] = (vectors * (gain / values)).T
    logvar[:m] = np.log(s2 / values)
    decoder[:, :m] = vectors * gain
    return {
        "encoder_mean_weight": encoder,
        "encoder_mean_bias": -encoder @ spectrum.mean,
        "encoder_logvar": logvar,
        "decoder_weight": decoder,
        "decoder_bias": spectrum.mean.copy(),
    }


def cached_spectrum(images: Images, digest: str, cache_dir: Path, directions: int = 512) -> Spectrum:
    """Return `spectrum(images, directions)`, computed once per `digest` (a hash of the images), kept in `cache_dir`."""

    def read(path: Path) -> Spectrum:
        arrays = read_arrays(path, _FORMAT)
        found = Spectrum(
            *(arrays["mean"], arrays["eigenvalues"], arrays["eigenvectors"]),
            *(float(arrays["total_variance"]), int(arrays["n_images"])),
        )
        n_values = int(np.prod(images.shape[1:]))
        shapes = found.mean.shape, found.eigenvectors.shape, found.n_images
        if shapes != ((n_values,), (n_values, len(found.eigenvalues)), len(images)):
            raise ValueError("it belongs to other images")
        return found

    def write(path: Path, found: Spectrum) -> None:
        write_arrays(path, _FORMAT, **vars(found))

    def compute() -> Spectrum:
        with working("computing the closed-form linear VAE"):
            return spectrum(images, directions)

    path = Path(cache_dir) / f"spectrum-{digest[:16]}-{directions}-v{METRICS_VERSION}.npz"
    return cached_file(path, read, compute, write)


def _used(spectrum: Spectrum, latent_dim: int, objective: Objective) -> tuple[Floats, float]:
    """The eigenvalues (m,) of the directions the optimum uses, and s2."""
    s2 = objective.beta * decoder_variance(spectrum, latent_dim, objective)
    kept = spectrum.eigenvalues
    values = kept[:latent_dim][kept[:latent_dim] > s2]
    rest = spectrum.total_variance - float(kept.sum())
    if len(values) == len(kept) < latent_dim and rest > max(s2, 1e-6 * spectrum.total_variance):  # not mere rounding
        raise ValueError(
            f"only {len(kept)} directions were kept, and this loss (variance {s2:g}, {latent_dim} latents) may use "
            "more: call spectrum(images, directions=...) with more"
        )
    return values, s2


def _moments(spectrum: Spectrum, images: Images, m: int) -> tuple[float, Floats]:
    """E||x - mean||^2 of images and E(u_i^2) of their projections on the m leading directions, (m,)."""
    flat = images.reshape(len(images), -1)
    n, d = flat.shape
    if d != len(spectrum.mean) or n == 0:
        raise ValueError(f"expected images of {len(spectrum.mean)} values, N > 0; got {images.shape}")
    vectors = spectrum.eigenvectors[:, :m]  # (D, m)
    distance, scores = 0.0, np.zeros(m)
    for rows in _slices(n, 2 * d):
        x = flat[rows] / 255.0 - spectrum.mean  # (rows, D)
        distance += float(np.square(x).sum())
        scores += np.square(x @ vectors).sum(axis=0)
    return distance / n, scores / n


def _terms(values: Floats, s2: float, distance: float, scores: Floats) -> tuple[float, float]:
    """Squared error and KL, nats per image, of the linear VAE that uses directions of eigenvalues `values` (m,)."""
    gain, variance = values - s2, s2 / values  # decoder gain squared, posterior variance: (m,)
    # A used direction keeps the share s2/l of its projection as error, and adds the noise of its latent.
    sse = distance - float(scores.sum()) + float((scores * variance**2 + gain * variance).sum())
    kl = 0.5 * float((gain / values**2 * scores + variance - np.log(variance) - 1).sum())
    return sse, kl


def _optimum(
    sse: float, kl: float, active: int, spectrum: Spectrum, latent_dim: int, objective: Objective
) -> LinearOptimum:
    learned = objective.variance == "learned"  # on the training images
    variance = decoder_variance(spectrum, latent_dim, objective) if learned else None
    recon = objective.recon(sse, len(spectrum.mean), variance)
    return LinearOptimum(loss=recon + objective.beta * kl, recon=recon, kl=kl, active=active)


def _slices(length: int, width: int) -> Iterator[slice]:
    """Consecutive slices of `length`, each about `_CHUNK_BYTES` of float32 when `width` values wide."""
    step = max(_CHUNK_BYTES // (4 * max(width, 1)), 1)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _centred(flat: Images, mean: Floats, part: slice, by_rows: bool) -> NDArray[np.float32]:
    """Some rows, or some columns, of the centred images in [0, 1] as float32."""
    x = (flat[part] if by_rows else flat[:, part]).astype(np.float32)
    x *= np.float32(1 / 255)
    x -= (mean if by_rows else mean[part]).astype(np.float32)
    return x


def _directions_from_gram(flat: Images, mean: Floats, values: Floats, vectors: Floats) -> Floats:
    """Unit directions (D, k) from the eigenvectors (N, k) of the Gram matrix."""
    n, d = flat.shape
    found = np.empty((d, len(values)))
    weights = (vectors / np.sqrt(n * values)).astype(np.float32)
    for part in _slices(d, n):
        found[part] = _centred(flat, mean, part, by_rows=False).T @ weights
    return found / np.linalg.norm(found, axis=0)
