from __future__ import annotations

import time

import numpy as np
import pytest

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.shapes import FACTORS, POSITIONS, SHAPES, Shapes, draw_factors, render


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
    np.testing.assert_array_equal(render(many[:n], 24), render(many, 24)[:n])


def test_factors_are_drawn_from_their_distributions() -> None:
    """Against the moments of the distributions that the module states, within five standard errors of 20,000 draws."""
    columns = dict(zip(FACTORS, draw_factors(20_000, seed=1, stream=0).T, strict=True))
    np.testing.assert_allclose(np.bincount(columns["shape"].astype(int)) / 20_000, 1 / 6, atol=0.014)
    for name in ("hue", "rotation", "background_hue"):
        assert columns[name].mean() == pytest.approx(0.5, abs=0.011)
        assert columns[name].var() == pytest.approx(1 / 12, abs=0.003)
    assert (columns["size"].min(), columns["size"].max()) == pytest.approx((0.3, 0.38), abs=1e-4)
    brightness = columns["background_brightness"]
    dark = brightness < 0.3
    assert dark.mean() == pytest.approx(0.5, abs=0.018)
    assert (brightness[dark].max(), brightness[~dark].min()) == pytest.approx((0.1, 0.75), abs=1e-3)
    for name in POSITIONS:
        assert columns[name].mean() == pytest.approx(0, abs=0.016)
        assert columns[name].var() == pytest.approx(1.5**2 / 12, abs=0.006)


def test_train_val_and_test_are_different_images_and_factors_line_up() -> None:
    source = Shapes(n_train=300, n_test=100)
    splits = source.build().splits
    every = np.concatenate([split.images for split in splits.values()])
    assert len(np.unique(every.reshape(len(every), -1), axis=0)) == len(every)
    for name, split in splits.items():
        factors = source.factors(name)
        np.testing.assert_array_equal(render(factors, 24), split.images)
        np.testing.assert_array_equal(factors[:, 0], split.labels)


def one(shape: int, x: float = 0.0, y: float = 0.0, *, size: float = 0.3, rotation: float = 0.0) -> np.ndarray:
    """Factors (1, K) of five shapes in one place, red on a dark background of the opposite hue."""
    values = dict.fromkeys(POSITIONS[::2], x) | dict.fromkeys(POSITIONS[1::2], y)
    values |= {"shape": shape, "hue": 0.0, "size": size, "rotation": rotation}
    values |= {"background_hue": 0.5, "background_brightness": 0.05}
    return np.array([[values[name] for name in FACTORS]])


def apart(factors: np.ndarray) -> np.ndarray:
    """The same with one shape left inside: the others lie far outside."""
    moved = factors.copy()
    moved[:, -8:] = 9.0
    return moved


def cover(factors: np.ndarray, size: int) -> np.ndarray:
    """Share of each pixel that shapes cover (size, size): red is full in them, and 0.05 * 0.7 on the background."""
    ground = 0.05 * 0.7 * 255
    return (render(factors, size)[0, 0] - np.rint(ground)) / (255 - ground)


@pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (0.2, -0.1), (-0.5, 0.6)])
@pytest.mark.parametrize("shape", [0, 1, 3, 4])
def test_a_shape_lies_where_its_factors_say(shape: int, x: float, y: float) -> None:
    """The centre of mass of a symmetric shape is its position."""
    size = 96
    found = cover(apart(one(shape, x, y)), size)
    centres = (np.arange(size) + 0.5) * 2 / size - 1
    assert (found.sum(0) @ centres / found.sum()) == pytest.approx(x, abs=0.01)
    assert (found.sum(1) @ centres / found.sum()) == pytest.approx(y, abs=0.01)


def test_the_shapes_of_an_image_are_alike() -> None:
    factors = one(3, rotation=0.1)
    factors[:, -10:] = [-0.5, -0.5, 0.5, -0.5, -0.5, 0.5, 0.5, 0.5, 9.0, 9.0]
    found = cover(apart(one(3, -0.5, -0.5, rotation=0.1)), 96)[:48, :48]
    np.testing.assert_allclose(cover(factors, 96), np.tile(found, (2, 2)), atol=0.01)


def test_areas_are_those_of_the_geometry() -> None:
    """Coverage adds up to the area in closed form, so edges are anti-aliased without bias."""
    size, radius = 96, 0.6
    area = {
        shape.__name__: cover(apart(one(number, size=radius, rotation=0.123)), size).sum() * (2 / size) ** 2 / radius**2
        for number, shape in enumerate(SHAPES)
    }
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
    for name, value in expected.items():
        assert area[name] == pytest.approx(value, rel=0.02), name


def test_rotation_by_a_full_turn_changes_nothing_and_by_half_does() -> None:
    images = np.concatenate([render(one(5, size=0.5, rotation=turn), 24) for turn in (0.2, 1.2, 0.7)]).astype(int)
    assert np.abs(images[0] - images[1]).max() <= 1
    assert np.abs(images[0] - images[2]).max() > 50


def test_shapes_show_on_every_background() -> None:
    factors = draw_factors(2000, seed=0, stream=0)
    empty = factors.copy()
    empty[:, -len(POSITIONS) :] = 9.0
    changed = np.abs(render(factors, 24).astype(int) - render(empty, 24).astype(int)).max((1, 2, 3))
    assert changed.min() > 30  # of 255, in one colour at least


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
