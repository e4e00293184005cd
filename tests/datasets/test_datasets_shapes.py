from __future__ import annotations

import time

import numpy as np
import pytest

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.shapes import FACTORS, SHAPES, Shapes, draw_factors, render


def test_sizes_labels_and_facts() -> None:
    built = Shapes(n_train=100, n_test=30, image_size=16, val_fraction=0.2).build()
    assert {name: split.images.shape for name, split in built.splits.items()} == {
        "train": (80, 3, 16, 16),
        "val": (20, 3, 16, 16),
        "test": (30, 3, 16, 16),
    }
    assert all(split.images.dtype == np.uint8 for split in built.splits.values())
    assert built.facts["classes"] == ["ellipse", "rectangle", "triangle", "star", "ring", "crescent"]
    assert built.facts["factors"] == list(FACTORS)


def test_same_settings_give_the_same_bits_and_another_seed_others() -> None:
    one, two, other = (Shapes(n_train=50, n_test=20, split_seed=seed).build().splits for seed in (0, 0, 1))
    for name in one:
        np.testing.assert_array_equal(one[name].images, two[name].images)
        assert not np.array_equal(one[name].images, other[name].images)


@pytest.mark.parametrize("n", [1, 7, 100, 1000])
def test_fewer_images_are_the_first_of_more(n: int) -> None:
    many = draw_factors(2000, seed=5, stream=0)
    np.testing.assert_array_equal(draw_factors(n, seed=5, stream=0), many[:n])
    np.testing.assert_array_equal(render(many[:n], 32), render(many, 32)[:n])


def test_train_val_and_test_are_different_images_and_factors_line_up() -> None:
    source = Shapes(n_train=300, n_test=100)
    splits = source.build().splits
    every = np.concatenate([split.images for split in splits.values()])
    assert len(np.unique(every.reshape(len(every), -1), axis=0)) == len(every)
    for name, split in splits.items():
        factors = source.factors(name)
        np.testing.assert_array_equal(render(factors, 32), split.images)
        np.testing.assert_array_equal(factors[:, 0], split.labels)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_a_shape_lies_where_its_factors_say(shape: int) -> None:
    """Weigh where an image differs from its own background: the centre of mass follows x and y, the area size^2."""
    factors = draw_factors(2, seed=0, stream=0)
    factors[:] = [shape, 0.0, 0.3, 0.2, -0.1, 0.0, 0.5, 0.3]
    factors[1, 2:5] = [0.45, -0.2, 0.3]
    size = 128
    images = render(factors, size).astype(float)
    change = np.abs(images - images[:, :, :, :1]).sum(1)  # the first column shows background only
    grid = (np.arange(size) + 0.5) * 2 / size - 1
    weight = change > 60
    area = weight.sum((1, 2))
    x = (weight * grid).sum((1, 2)) / area
    y = (weight * grid[:, None]).sum((1, 2)) / area
    offset = np.array([0.2 - x[0], -0.1 - y[0]]) / 0.3  # of the centre of mass from the origin, in sizes
    np.testing.assert_allclose([-0.2 - x[1], 0.3 - y[1]], offset * 0.45, atol=0.015)
    np.testing.assert_allclose(area[1] / area[0], (0.45 / 0.3) ** 2, rtol=0.05)
    if shape in (0, 1, 3, 4):
        np.testing.assert_allclose(offset, 0, atol=0.02)


def test_areas_are_those_of_the_geometry() -> None:
    """Coverage adds up to the area in closed form, so edges are anti-aliased without bias."""
    factors = np.tile([0, 0.0, 0.5, 0.0, 0.0, 0.123, 0.5, 0.25], (len(SHAPES), 1))
    factors[:, 0] = range(len(SHAPES))
    size = 64
    images = render(factors, size).astype(float)
    ground = images[:, :, :, :1]
    front = images[:, 0].max((1, 2))  # red at hue 0: value 0.92, far from the background's red
    cover = ((images - ground)[:, 0] / (front[:, None, None] - ground[:, 0])).clip(0, 1).sum((1, 2))
    area = cover * (2 / size) ** 2 / 0.5**2
    r, big, gap, far = 0.14, 0.95, 0.75, 0.45
    lens = (  # of two circles, https://mathworld.wolfram.com/Circle-CircleIntersection.html
        gap**2 * np.arccos((far**2 + gap**2 - big**2) / (2 * far * gap))
        + big**2 * np.arccos((far**2 + big**2 - gap**2) / (2 * far * big))
        - 0.5 * np.sqrt((-far + gap + big) * (far + gap - big) * (far - gap + big) * (far + gap + big))
    )
    side, corner = 1.44, 0.1
    expected = {
        "ellipse": np.pi * 0.95 * 0.58,
        "rectangle": 4 * 0.88 * 0.5 - (4 - np.pi) * r**2,
        "triangle": 3**0.5 / 4 * side**2 + 3 * side * corner + np.pi * corner**2,
        "ring": np.pi * (0.92**2 - 0.52**2),
        "crescent": np.pi * big**2 - lens,
    }
    found = dict(zip([shape.__name__ for shape in SHAPES], area, strict=True))
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.02), name


def test_rotation_by_a_full_turn_changes_nothing_and_by_half_does() -> None:
    factors = np.tile([5, 0.1, 0.5, 0.0, 0.0, 0.2, 0.6, 0.5], (3, 1))
    factors[1, 5] += 1
    factors[2, 5] += 0.5
    images = render(factors, 32).astype(int)
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(images[0] - images[2]).max() > 50


def test_every_shape_shows_on_every_background() -> None:
    images = render(draw_factors(2000, seed=0, stream=0), 32).astype(int)
    contrast = np.abs(images - images[:, :, :, :1]).max(1).max((1, 2))
    assert contrast.min() > 20


def test_ten_thousand_images_take_less_than_three_seconds() -> None:
    start = time.process_time()
    Shapes(n_train=8000, n_test=2000).build()
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"n_train": 0}, r"dataset\.n_train=0 .*1 or more"),
        ({"n_test": -1}, r"dataset\.n_test=-1"),
        ({"image_size": 0}, r"dataset\.image_size=0"),
        ({"val_fraction": 0.0}, r"dataset\.val_fraction=0\.0 .*above 0 and below 1"),
        ({"val_fraction": 1.0}, r"dataset\.val_fraction=1\.0"),
        ({"split_seed": -1}, r"dataset\.split_seed=-1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Shapes(**settings)  # type: ignore[arg-type]


def test_too_few_images_for_validation_are_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.val_fraction=0\.1 of 5 images leaves no validation image"):
        Shapes(n_train=5).build()
