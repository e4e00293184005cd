"""How well single latents stand for the known factors of the images: MIG, SAP and DCI; higher is better, at most 1.

The definitions are those of disentanglement_lib (Locatello et al. 2019). N images, L latents, K factors; a factor of
whole numbers is a kind, any other a quantity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy  # its stats, when they are first used
from numpy.typing import NDArray

Codes = NDArray[np.floating]  # (N, L) posterior means
Factors = Mapping[str, NDArray[Any]]  # name -> (N,)

BINS = 20  # of a latent, and of a factor that is a quantity
ACTIVE = 0.01  # variance of a posterior mean: latents with less carry nothing
ONE_PART = 1e-11  # added to importances, as disentanglement_lib does


def mig(codes: Codes, factors: Factors) -> float:
    """Return the mutual information gap (Chen et al. 2018, eq. 6).

    Per factor: how much more its best latent tells about it than the second best, as a share of its entropy; the mean.
    """
    from sklearn.metrics import mutual_info_score

    binned = [_binned(column) for column in codes.T]
    gaps = []
    for values in factors.values():
        kinds = values if _is_kind(values) else _binned(values)
        entropy = mutual_info_score(kinds, kinds)
        found = sorted((mutual_info_score(column, kinds) for column in binned), reverse=True)
        gaps.append((found[0] - (found[1] if len(found) > 1 else 0.0)) / entropy if entropy > 0 else 0.0)
    return float(np.mean(gaps))


def sap(train: Codes, train_factors: Factors, test: Codes, test_factors: Factors) -> float:
    """Return the separated attribute predictability (Kumar et al. 2018).

    Per factor: how much better its best latent predicts it than the second best; the mean. A quantity is predicted
    linearly (R^2 on training images), a kind by a linear support vector machine (accuracy on test images).
    """
    from sklearn.svm import LinearSVC

    gaps = []
    for name, values in train_factors.items():
        scores = []
        if len(np.unique(values)) < 2:
            gaps.append(0.0)
            continue
        for column, held_out in zip(train.T, test.T, strict=True):
            if not _is_kind(values):
                constant = column.std() < 1e-6 or values.std() < 1e-6
                scores.append(0.0 if constant else float(np.corrcoef(column, values)[0, 1] ** 2))
                continue
            machine = LinearSVC(C=0.01, class_weight="balanced", random_state=0).fit(column[:, None], values)
            scores.append(float((machine.predict(held_out[:, None]) == test_factors[name]).mean()))
        best = sorted(scores, reverse=True)
        gaps.append(best[0] - best[1] if len(best) > 1 else best[0])
    return float(np.mean(gaps))


def dci(train: Codes, train_factors: Factors, test: Codes, test_factors: Factors) -> dict[str, float]:
    """Return ``dci_disentanglement``, ``dci_completeness`` and ``dci_informativeness`` (Eastwood & Williams 2018).

    Gradient-boosted trees predict each factor from all active latents; :func:`from_importance` reads what they use.
    Informativeness: accuracy for kinds, R^2 for quantities, on test images; the mean over factors.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    used = np.flatnonzero(train.var(axis=0) > ACTIVE)
    importance = np.zeros((train.shape[1], len(train_factors)))
    scores = []
    for k, (name, values) in enumerate(train_factors.items()):
        trees = (GradientBoostingClassifier if _is_kind(values) else GradientBoostingRegressor)(random_state=0)
        if not len(used) or len(np.unique(values)) < 2:
            scores.append(0.0)
            continue
        trees.fit(train[:, used], values)
        importance[used, k] = trees.feature_importances_
        scores.append(float(trees.score(test[:, used], test_factors[name])))
    disentanglement, completeness = from_importance(importance)
    return {
        "dci_disentanglement": disentanglement,
        "dci_completeness": completeness,
        "dci_informativeness": float(np.mean(scores)),
    }


def from_importance(importance: NDArray[np.floating]) -> tuple[float, float]:
    """Return disentanglement and completeness of importances (L, K), at least 0.

    Disentanglement: 1 - entropy over factors (base K) of each latent, weighted with its importance. Completeness: 1 -
    entropy over latents (base L) of each factor, likewise.
    """
    total = importance.sum()
    if total <= 0:
        return 0.0, 0.0
    size, n_factors = importance.shape
    of_latents = 1 - scipy.stats.entropy(importance.T + ONE_PART, base=max(n_factors, 2))
    of_factors = 1 - scipy.stats.entropy(importance + ONE_PART, base=max(size, 2))
    return (
        float((of_latents * importance.sum(1)).sum() / total),
        float((of_factors * importance.sum(0)).sum() / total),
    )


def _is_kind(values: NDArray[Any]) -> bool:
    return np.issubdtype(values.dtype, np.integer)


def _binned(values: NDArray[Any]) -> NDArray[np.intp]:
    """The bin of each value, of BINS equally wide ones."""
    return np.digitize(values, np.histogram(values, BINS)[1][:-1])
