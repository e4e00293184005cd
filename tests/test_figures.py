"""Figures: they draw, survive odd input, say their units, keep text apart and leave no global state behind."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from matplotlib.figure import Figure

from vae_sweep.report import run_figures, sweep_figures
from vae_sweep.report.style import GAP

NAN, INF = float("nan"), float("inf")
LONG = "conv-with_a_very_long_override_model.channels=[32,64,128,256]_lr=0.00001-s12"


def render(figure: Figure) -> np.ndarray:
    out = io.BytesIO()
    figure.savefig(out, format="rgba")
    return np.frombuffer(out.getvalue(), np.uint8)


def texts(figure: Figure) -> str:
    found = figure.findobj(lambda artist: hasattr(artist, "get_text"))
    return "\n".join(artist.get_text() for artist in found)


def images(n: int, channels: int = 3, side: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, channels, side, side), dtype=np.uint8)


def history(losses: list[float]) -> list[dict[str, float]]:
    keys = [f"{split}/{term}" for split in ("train", "val") for term in ("loss", "recon", "kl")]
    return [{"epoch": i, "images_seen": 100 * i, **dict.fromkeys(keys, loss)} for i, loss in enumerate(losses, 1)]


def cells(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Model and set of names such as conv-p2-s3."""
    return {name: (f"{name}--".split("-")[0], f"{name}--".split("-")[1]) for name in names}


@pytest.mark.parametrize("losses", [[], [NAN], [300.0], [300, 90, 80, INF, 78, 79, NAN], [80.0] * 9])
def test_learning_curves(losses: list[float]) -> None:
    for level in (None, 76.1, NAN):
        reference = None if level is None else {"loss": level, "recon": 50.0}
        figure = run_figures.learning_curves(history(losses), "conv-p2, seed 0", reference)
        assert len(figure.axes) == 3
        for axis, expected in zip(figure.axes, (level, level and 50.0, None), strict=True):
            assert axis.get_ylabel() == "nats/image"
            train, val, *others = axis.lines
            for line in (train, val):
                np.testing.assert_array_equal(line.get_ydata(), [y if np.isfinite(y) else NAN for y in losses])
                np.testing.assert_array_equal(line.get_xdata(), range(1, len(losses) + 1))
            levels = [line.get_ydata()[0] for line in others if line.get_color() == "black"]
            assert levels == ([] if expected is None or not np.isfinite(expected) else [expected])
    assert render(figure).std() > 0
    assert "lower is better" in texts(figure)


def test_the_best_epoch_is_the_lowest_validation_loss() -> None:
    figure = run_figures.learning_curves(history([300, 90, 78, 79, NAN]), "run")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["training images", "validation images", "best epoch, 3 (lowest validation loss)"]


def test_a_history_with_missing_keys_draws() -> None:
    render(run_figures.learning_curves([{"epoch": 1, "val/loss": 80.0}, {"epoch": 2, "val/loss": None}], "run"))


def test_the_first_epochs_do_not_flatten_the_differences() -> None:
    x = np.arange(1, 31) * 45_000
    curves = {f"{m}-p1": (x, level + 900 * np.exp(-np.arange(30.0))) for m, level in (("fc", 77), ("conv", 74))}
    figure = sweep_figures.validation_bands(curves, cells(curves), {"p1": 76.13, "p2": NAN})
    bottom, top = figure.axes[0].get_ylim()
    assert bottom < 74 < 77 < top < 85
    render(figure)
    said = texts(figure)
    assert "nats/image" in said
    assert "lower is better" in said
    assert "76.13" in said
    assert "linear (closed form)" in said


def test_a_diverging_run_stays_out_of_the_panel() -> None:
    x, y = np.arange(10), np.linspace(80, 75, 10)
    curves = {f"conv-p{i}": (x, y + i) for i in range(4)} | {"fc-p1": (x, y * 1e6), "fc-p2": (x, y * NAN)}
    figure = sweep_figures.validation_bands(curves, cells(curves))
    assert figure.axes[0].get_ylim()[1] < 120
    render(figure)


def test_a_model_with_a_hyphen_in_its_name_has_a_colour_of_its_own() -> None:
    x, y = [1, 2], [80.0, 75.0]
    runs = {f"{m}-{p}-s{seed}": (m, p) for m in ("my-fc", "my-conv") for p in ("p1", "p-s2") for seed in (0, 1)}
    axes = sweep_figures.validation_bands({name: (x, y) for name in runs}, runs).axes
    assert [axis.get_title() for axis in axes] == ["p1", "p-s2"]
    for axis in axes:
        means = [line for line in axis.get_lines() if not line.get_label().startswith("_")]
        assert [line.get_label() for line in means] == ["my-fc", "my-conv"]
        assert len({line.get_color() for line in means}) == 2
        assert len({line.get_linestyle() for line in means}) == 2


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [1, 3, 13])
def test_figures_of_images(n: int, channels: int) -> None:
    x = images(n, channels)
    pairs = run_figures.reconstructions(x, x, "test images")
    labels = [label.get_text() for label in pairs.axes[0].get_yticklabels()]
    assert labels == ["original", "reconstruction"] * (1 if n <= 10 else 2)
    assert render(pairs).std() > 0
    assert render(run_figures.samples(x, "samples", columns=4)).std() > 0
    walk = run_figures.interpolations(np.stack([x, x]), "walk")
    ends = [label.get_text() for label in walk.axes[0].get_xticklabels()]
    assert ends[0] == "t=0"
    assert n == 1 or ends[-1] == "t=1"
    render(walk)


def test_a_reconstruction_stands_below_its_original() -> None:
    figure = run_figures.reconstructions(np.zeros((2, 1, 4, 4), np.uint8), np.full((2, 1, 4, 4), 99, np.uint8), "t")
    drawn = figure.axes[0].images[0].get_array()
    assert drawn is not None
    assert (drawn[0, 0] == 0).all()
    assert (drawn[4 + GAP, 0] == 99).all()


def test_sample_columns_do_not_overlap() -> None:
    blocks = {"fc-p1": images(32), LONG: images(10, 1), "none": images(0), "conv_$p": images(100)}
    figure = sweep_figures.sample_columns(blocks, LONG * 3, captions={"fc-p1": "test loss 77.8", LONG: LONG})
    render(figure)
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(boxes))
    heading = figure.texts[0].get_window_extent()
    assert heading.x0 >= 0
    assert heading.x1 <= figure.bbox.x1
    assert heading.y0 >= max(box.y1 for box in boxes)
    assert "test loss 77.8" in texts(figure)


def test_many_runs_have_their_samples_in_lines_that_do_not_overlap() -> None:
    runs = {f"fc-p1-s{i}": images(32) for i in range(20)}
    figure = sweep_figures.sample_columns(runs, "title", captions=dict.fromkeys(runs, "test 77.80"))
    render(figure)
    assert figure.get_figwidth() < 15  # inches
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert len({round(box.y0) for box in boxes}) == 3
    for a, b in itertools.combinations(boxes, 2):
        assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
    assert min(box.y0 for box in boxes) >= 0
    assert max(box.y1 for box in boxes) <= figure.texts[0].get_window_extent().y0


def test_nothing_to_draw_is_no_error() -> None:
    for figure in (sweep_figures.sample_columns({}, "none"), sweep_figures.validation_bands({}, {})):
        render(figure)


@pytest.mark.parametrize("wrong", [images(2).astype(float), images(0), images(2, 2), images(2)[0]])
def test_what_is_no_image_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected uint8 images"):
        run_figures.samples(wrong, "title")


def test_pyplot_is_never_imported() -> None:
    code = "import sys, vae_sweep.report.run_figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
