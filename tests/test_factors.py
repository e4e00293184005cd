"""Disentanglement scores of constructed codes whose scores are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_sweep import datasets
from vae_sweep.datasets.permuted import Permuted
from vae_sweep.datasets.shapes import Shapes
from vae_sweep.metrics.factors import dci, from_importance, mig, sap
from vae_sweep.metrics.linear import spectrum
from vae_sweep.metrics.measure import Settings, linear_vae, measure
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.objective import ELBO

N = 4000


@pytest.fixture(scope="module")
def known() -> dict[str, np.ndarray]:
    source = np.random.default_rng(0)
    return {"kind": source.integers(0, 4, N), "place": source.random(N), "size": source.random(N)}


def noise(seed: int, columns: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((N, columns))


def test_a_latent_for_each_factor_has_the_highest_scores(known) -> None:
    codes = np.column_stack([known["size"], 3 * known["kind"], -known["place"], noise(1, 2)])
    assert mig(codes, known) == pytest.approx(1, abs=0.06)  # noise tells a little of anything in N images
    # kind: a line through four kinds in a row tells the two at its ends from the others, at least
    assert sap(codes, known, codes, known) > 0.7
    places = {name: known[name] for name in ("place", "size")}
    assert sap(codes, places, codes, places) == pytest.approx(1, abs=0.01)
    found = dci(codes, known, codes, known)
    assert found["dci_disentanglement"] > 0.97
    assert found["dci_completeness"] > 0.97
    assert found["dci_informativeness"] > 0.97


def test_two_latents_that_say_the_same_leave_no_gap(known) -> None:
    codes = np.column_stack(
        [known["kind"], known["kind"], known["place"], known["place"], known["size"], known["size"]]
    )
    assert mig(codes, known) == 0
    assert sap(codes, known, codes, known) == 0


def test_noise_has_the_lowest_scores(known) -> None:
    codes = noise(2, 5)
    assert mig(codes, known) < 0.01
    assert sap(codes, known, codes, known) < 0.03
    found = dci(
        codes[: N // 2],
        {k: v[: N // 2] for k, v in known.items()},
        codes[N // 2 :],
        {k: v[N // 2 :] for k, v in known.items()},
    )
    assert found["dci_disentanglement"] < 0.05
    assert found["dci_informativeness"] < 0.15  # 1/4 of the kinds by chance, nothing of the quantities


def test_importances_by_hand() -> None:
    assert from_importance(np.eye(3)) == pytest.approx((1, 1))
    assert from_importance(np.ones((4, 2))) == pytest.approx((0, 0))
    # two latents share one factor: each stands for it alone, but it is not complete
    shared = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]])
    assert from_importance(shared) == pytest.approx((1, (1 - math.log(2) / math.log(3)) / 2 + 0.5))
    # one latent stands for both factors
    mixed = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert from_importance(mixed) == pytest.approx((0, 1))
    assert from_importance(np.zeros((3, 2))) == (0, 0)


def test_a_gap_by_hand() -> None:
    """A kind of two, known by one latent, and with 1 of 4 wrong by another: I = ln 2 - H(1/4)."""
    kind = np.tile([0, 1], 400)
    wrong = np.where(np.arange(800) % 8 < 2, 1 - kind, kind)
    told = math.log(2) + 0.25 * math.log(0.25) + 0.75 * math.log(0.75)
    assert mig(np.column_stack([kind, wrong]), {"kind": kind}) == pytest.approx(1 - told / math.log(2))


def test_shapes_know_their_factors_and_runs_are_measured_by_them(tmp_path: Path) -> None:
    source = Shapes(n_train=300, n_test=100, image_size=16)
    source.max_images = 80
    data = datasets.load(source, tmp_path)
    assert data.factors is not None
    found = data.factors("test")
    assert set(found) == {"shape", "hue", "size", "rotation", "background_hue", "background_brightness"}
    assert all(len(values) == len(data.test) == 80 for values in found.values())
    np.testing.assert_array_equal(found["shape"], data.test.labels)
    np.testing.assert_array_equal(data.factors("val")["shape"], data.val.labels)
    shuffled = datasets.load(Permuted(source), tmp_path)
    assert shuffled.factors is not None
    np.testing.assert_array_equal(shuffled.factors("test")["shape"], shuffled.test.labels)
    model = linear_vae(spectrum(data.train.images), 4, ELBO, data.image_shape)
    averages = evaluate(model, torch.from_numpy(data.test.images))
    settings = Settings(0, 1, 0, 0, "none", 50, None, factors=True)
    values = measure(model, averages, ELBO, data, settings, 0).values
    scores = {"mig", "sap", "dci_disentanglement", "dci_completeness", "dci_informativeness"}
    assert scores <= set(values)
    assert all(-1 <= values[score] <= 1 for score in scores)
