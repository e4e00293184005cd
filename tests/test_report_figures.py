"""Figures of a report: they show every point, survive what is missing, and keep their words apart."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

import evidence_examples as examples
from vae_sweep.comparison.statistics import Contrast, Group
from vae_sweep.metrics.catalogue import Metric
from vae_sweep.report import page_figures
from vae_sweep.report import sweep_figures as draw
from vae_sweep.report.style import COLOURS, looks

NAN, INF = float("nan"), float("inf")
LOSS = Metric("test/loss", "test loss", "nats/image", "lower", 2, 0.5, primary=True)


def render(figure: Figure) -> np.ndarray:
    out = io.BytesIO()
    figure.savefig(out, format="rgba", dpi=50)
    return np.frombuffer(out.getvalue(), np.uint8)


def texts(figure: Figure) -> str:
    return "\n".join(artist.get_text() for artist in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def drawn(figure: Figure, panel: int = 0) -> list[tuple[float, float]]:
    """Every point that a line or marker of a panel passes."""
    lines = figure.axes[panel].get_lines()
    return [(float(x), float(y)) for line in lines for x, y in line.get_xydata()]


def group(values: tuple[float, ...], model: str = "fc", params: str = "p1") -> Group:
    return Group("data", model, params, tuple(range(len(values))), values, *examples.summary(values))


def contrast(a: list[Group], b: list[Group], metric: Metric = LOSS) -> Contrast:
    return examples.contrast(metric, "data", "fc", "conv", [*a, *b])[0]


def test_paired_differences_show_every_pair_zero_and_the_margin() -> None:
    found = contrast([group((3.0, 4.0, 6.0))], [group((1.0, 1.0, 1.0), "conv")])
    figure = draw.paired_differences(found)
    xs = [x for x, _ in drawn(figure)]
    assert {2.0, 3.0, 5.0, 0.0} <= set(xs)
    assert any(x == pytest.approx(10 / 3) for x in xs)
    band = figure.axes[0].patches[0].get_extents().transformed(figure.axes[0].transData.inverted())
    assert (band.x0, band.x1) == (pytest.approx(-0.5), pytest.approx(0.5))
    said = texts(figure)
    assert "← fc better" in said  # a loss of fc below that of conv is a negative difference
    assert "conv better →" in said
    assert "fc − conv (nats/image)" in said
    assert render(figure).std() > 0


def test_where_higher_is_better_the_sides_are_exchanged() -> None:
    metric = replace(LOSS, better="higher")
    said = texts(draw.paired_differences(contrast([group((3.0, 4.0))], [group((1.0, 2.0), "conv")], metric)))
    assert "← conv better" in said
    assert "fc better →" in said
    metric = replace(LOSS, better="")
    assert "better →" not in texts(draw.paired_differences(contrast([group((3.0,))], [group((1.0,), "conv")], metric)))


def test_one_seed_has_points_and_no_interval() -> None:
    figure = draw.paired_differences(contrast([group((3.0,))], [group((1.0,), "conv")]))
    assert {x for x, _ in drawn(figure)} == {0.0, 2.0, 1.0}  # pair and means, and both ends of lines across: 0 to 1
    render(figure)


def test_seed_points_show_every_seed_and_the_reference() -> None:
    groups = [group((80.0, 81.0, 85.0)), group((74.0, NAN), "conv"), group((75.0,), "conv", "p2")]
    figure = draw.seed_points(groups, LOSS, {"linear": 76.13, "unknown": NAN})
    xs = [x for x, _ in drawn(figure)]
    assert {80.0, 81.0, 85.0, 82.0, 74.0, 75.0, 76.13} <= set(xs)
    said = texts(figure)
    assert "conv (1 not finite)" in said
    assert "linear: 76.13" in said
    assert "unknown" not in said
    assert "lower is better" in said
    render(figure)


def test_bands_are_the_range_of_all_seeds_as_far_as_all_trained() -> None:
    x = np.array([1e3, 2e3, 3e3, 4e3])
    histories = {"a": (x, np.array([9.0, 5, 4, 3])), "b": (x[:3], np.array([7.0, 3, 2])), "none": (x[:0], x[:0])}
    figure = draw.validation_bands(histories, dict.fromkeys(histories, ("fc", "p1")), {"p1": 4.5}, ["conv", "fc"])
    mean = figure.axes[0].get_lines()[2].get_xydata()
    assert mean.tolist() == [[1, 8], [2, 4], [3, 3]]
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {(1.0, 7.0), (1.0, 9.0), (3.0, 2.0), (3.0, 4.0)} <= set(map(tuple, band.tolist()))
    assert (4.0, 3.0) in drawn(figure)  # the longer seed goes on alone
    assert "4.50" in texts(figure)
    colours = {line.get_color() for line in figure.axes[0].get_lines()[:3]}
    assert colours == {looks(["conv", "fc"])["fc"][0]}
    render(figure)


def test_names_have_looks_of_their_own_beyond_the_colours_too() -> None:
    found = looks([f"m{i}" for i in range(36)])
    assert len(set(found.values())) == 36
    assert len({(colour, marker) for colour, _, marker in found.values()}) == 36
    assert [colour for colour, _, _ in found.values()][:7] == [*COLOURS, COLOURS[0]]


def test_each_set_has_a_panel_of_its_own() -> None:
    x = np.arange(1.0, 5.0)
    cells = {f"r{i}": ("fc", f"p{i}") for i in range(5)}
    figure = draw.validation_bands({run: (x, 90 / x) for run in cells}, cells)
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == [f"p{i}" for i in range(5)]
    render(figure)


def test_spectra_are_sorted_and_averaged_by_rank() -> None:
    spectra = {"a": np.array([0.1, 2.0, 0.0]), "b": np.array([4.0, 0.3, 0.0])}
    figure = draw.kl_spectra(spectra, np.array([1.0, 0.5]), "title", dict.fromkeys(spectra, ("fc", "p1")))
    mean, linear = (line.get_xydata().tolist() for line in figure.axes[0].get_lines())
    assert mean == [[1, 3], [2, pytest.approx(0.2)]]  # a latent without KL is not drawn on a logarithmic axis
    assert linear == [[1, 1], [2, 0.5]]
    assert "title" in texts(figure)
    render(figure)
    alone = draw.kl_spectra({"run": np.array([1.0, 0.5])}, np.array([1.0]), "one run")
    assert "run" in texts(alone)
    render(alone)


def test_rate_distortion_shows_every_run_and_lines_of_one_loss() -> None:
    points = {("fc", "p1"): [(17.0, 61.0), (16.5, 61.5)], ("conv", "p1"): [(22.0, 51.0), (NAN, 1.0)]}
    curve = np.array([15.0, 23.3, 30.0]), np.array([62.0, 52.85, 50.0])
    figure = draw.rate_distortion(points, curve, {"linear VAE, beta = 2": (23.3, 52.85)}, loss=(2.0, ""))
    found = set(drawn(figure))
    assert {(17.0, 61.0), (16.5, 61.5), (22.0, 51.0), (23.3, 52.85), (15.0, 62.0)} <= found
    grey = [line.get_xydata() for line in figure.axes[0].get_lines() if line.get_color() == "#AAAAAA"]
    levels = [float(text.get_text()) for text in figure.axes[0].texts]
    assert len(grey) == len(levels) > 2
    for line, level in zip(grey, levels, strict=True):
        assert line[:, 1] + 2 * line[:, 0] == pytest.approx([level, level])
    render(figure)


def test_a_diverged_run_does_not_hide_the_others() -> None:
    points = {("fc", "p1"): [(17.0, 61.0), (16.5, 61.5), (1e6, 1e9)]}
    figure = draw.rate_distortion(points)
    assert figure.axes[0].get_xlim()[1] < 30
    assert "points outside: 1" in texts(figure)


def test_nothing_at_all_is_said_in_every_figure() -> None:
    empty = [
        draw.seed_points([], LOSS),
        draw.seed_points([group((NAN,))], LOSS, {"linear": NAN}),
        draw.validation_bands({}, {}),
        draw.kl_spectra({}),
        draw.rate_distortion({}),
        draw.rate_distortion({("fc", "p1"): [(NAN, INF)]}),
    ]
    for figure in empty:
        assert "no run has these numbers" in texts(figure)
        render(figure)


def test_thirty_runs_with_long_names_stay_inside() -> None:
    name = examples.LONG + "_$x$"
    models = [f"{name}{i}" for i in range(5)]
    cells = {f"{m}-{s}-{i}": (m, f"_{name}{s}") for m in models for s in range(3) for i in range(2)}
    x = np.arange(1.0, 20.0)
    groups = [group((80.0, 81.0), m, f"_{name}{s}") for m in models for s in range(3)]
    pairs = contrast([group((3.0, 4.0))], [group((1.0, 2.0), "conv")])
    pairs = replace(
        pairs, a=name, b=name, metric=replace(LOSS, label=name * 2), sets=(replace(pairs.sets[0], params=name),)
    )
    made = [
        draw.paired_differences(pairs),
        draw.seed_points(groups, replace(LOSS, label=name * 2), {name: 76.0}),
        draw.validation_bands({run: (x * 1e6, 90 / x) for run in cells}, cells, {f"_{name}0": 76.0}),
        draw.kl_spectra({run: np.linspace(2, 0, 64) for run in cells}, np.ones(3), name * 3, cells),
        draw.rate_distortion({cell: [(17.0, 61.0)] for cell in cells.values()}, marks={name: (20.0, 60.0)}),
    ]
    for figure in made:
        render(figure)
        for axis in figure.axes:
            box = axis.title.get_window_extent()
            assert box.x0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            assert axis.get_window_extent().width > 60


def test_pyplot_is_never_imported() -> None:
    code = "import sys, vae_sweep.report.page, vae_sweep.report.latex\n"
    code += "sys.exit('matplotlib.pyplot' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_variance_has_its_mean_its_range_and_the_closed_form() -> None:
    points = {
        ("fc", "p2"): {"0.5": [(7.4, 7.2), (7.6, 7.2)], "optimal": [(7.1, 6.4)]},
        ("conv", "p2"): {"0.5": [(7.1, 7.2)], "0.1": [(6.9, 6.8)], "optimal": [(6.5, 6.4)]},
    }
    figure = draw.variances(points)
    assert {(0.0, 7.5), (1.0, 7.1), (0.0, 7.2), (1.0, 6.4), (2.0, 6.8)} <= set(drawn(figure))
    points[("conv", "p3")] = {"0.5": [(7.0, 7.15)], "optimal": [(6.0, 5.9)]}  # as many lines as closed forms
    assert {"linear (closed form), p2", "linear (closed form), p3"} <= set(texts(draw.variances(points)).splitlines())
    del points[("conv", "p3")]
    beside = drawn(figure, 1)
    assert any(y == pytest.approx(0.3) for x, y in beside if x == 0)
    assert any(y == pytest.approx(-0.1) for x, y in beside if x == 0)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0.5", "optimal", "0.1"]
    assert render(figure).std() > 0
    assert render(draw.variances(points, width=3.6)).std() > 0


@pytest.mark.parametrize(
    ("params", "variant", "left"),
    [
        ("p1", "variance=0.1", "p1"),
        ("p1", "variance=1e-2-beta=4", "p1 beta=4"),
        ("p1", "beta=4-variance=optimal", "p1 beta=4"),
        ("p1", "beta=4-variance=0.5-lr=0.1", "p1 beta=4-lr=0.1"),
        ("p1", "", "p1"),
    ],
)
def test_a_set_is_named_without_its_variance(params: str, variant: str, left: str) -> None:
    row = replace(examples.full().rows[0], params=params, variant=variant)
    assert page_figures._set_alone(row) == left
