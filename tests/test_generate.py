"""``generate`` on a checkpoint whose results are known by hand: two latents, each the brightness of one half."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from vae_sweep import UserError
from vae_sweep import generate as generate_module
from vae_sweep.generate import FRAMES, Options, generate
from vae_sweep.models.linear import LinearVAE
from vae_sweep.report import latents
from vae_sweep.training import checkpoint

SIDE = 4
HALF = SIDE * SIDE // 2


def halves() -> LinearVAE:
    """z0 is twice the brightness of the upper half minus 1, z1 that of the lower half; z2 is not used."""
    model = LinearVAE((3, SIDE, SIDE), 3)
    upper = torch.zeros(3, SIDE, SIDE)
    upper[:, : SIDE // 2] = 1
    both = torch.stack([upper.flatten(), 1 - upper.flatten(), torch.zeros(3 * SIDE * SIDE)])  # (L, D)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.decoder.weight.copy_(both.T / 2)
        model.decoder.bias.fill_(0.5)
        model.mean.weight.copy_(both / (3 * HALF) * 2)
        model.mean.bias.copy_(torch.tensor([-1.0, -1, 0]))
    return model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the checkpoint, an image white above and one white below, wider than the model takes them."""
    model = halves()
    node = {"_target_": "vae_sweep.models.linear.LinearVAE", "name": "linear"}
    config = {"model": node, "dataset": {"name": "halves"}}
    checkpoint.save(tmp_path / "checkpoint.pt", model, config, {"name": "linear-p1"})
    for name, rows in (("a.png", slice(0, 2)), ("b.png", slice(2, 4))):
        pixels = np.zeros((SIDE, 2 * SIDE, 3), np.uint8)
        pixels[rows] = 255
        Image.fromarray(pixels).save(tmp_path / name)
    return tmp_path


def made(root: Path, **options) -> tuple[Path, np.ndarray]:
    figure, array = generate(Options("checkpoint.pt", array=True, **options), root)
    return figure, np.load(array)


def size(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


def test_own_images_are_reconstructed(root: Path) -> None:
    figure, pairs = made(root, what="reconstructions", input="a.png,b.png")
    assert size(figure)[0] > 100
    assert pairs.shape == (2, 2, 3, SIDE, SIDE)
    assert (pairs[:, 0] == pairs[:, 1]).all()  # the model holds these images exactly
    assert (pairs[0, 0, :, :2] == 255).all()
    assert (pairs[0, 0, :, 2:] == 0).all()
    everything = made(root, what="reconstructions", input=".")[1]
    assert (everything[:2] == pairs).all()


def test_an_interpolation_begins_and_ends_with_the_images_themselves(root: Path) -> None:
    _, grid = made(root, what="interpolation", input="a.png,b.png,a.png")
    assert grid.shape == (2, 10, 3, SIDE, SIDE)
    assert (grid[0, 0, :, :2] == 255).all()
    assert (grid[0, -1] == grid[1, 0]).all()
    upper = grid[0, :, 0, 0, 0].astype(float)
    np.testing.assert_allclose(upper, np.linspace(255, 0, 10), atol=0.51)  # straight in a linear model


def test_a_traversal_moves_the_latents_of_most_kl(root: Path) -> None:
    _, grid = made(root, what="traversal", input="a.png,b.png", n=2)
    assert grid.shape == (2, 9, 3, SIDE, SIDE)
    first, second = grid[0, :, 0, 0, 0].astype(int), grid[1, :, 0, -1, 0].astype(int)
    np.testing.assert_array_equal(first, second)  # both halves matter alike
    expected = np.clip(0.5 + 0.5 * np.linspace(-3, 3, 9), 0, 1) * 255
    np.testing.assert_allclose(first, expected, atol=0.51)
    assert (grid[0, :, :, 2:] == 0).all()  # the lower half stays that of a.png
    order, kl = latents.by_kl(halves(), np.zeros((1, 3, SIDE, SIDE), np.uint8))
    assert order.tolist()[-1] == 2
    np.testing.assert_allclose(kl, [0.5, 0.5, 0], atol=1e-6)  # mean -1, variance 1: (1 + 1 - 1 - 0) / 2


def test_images_are_encoded_to_a_table_with_their_names(root: Path) -> None:
    (file,) = generate(Options("checkpoint.pt", what="encode", input="a.png,b.png"), root)
    table = pd.read_csv(file)
    assert table.columns.tolist() == ["image", "z0", "z1", "z2"]
    assert table.image.tolist() == ["a.png", "b.png"]
    np.testing.assert_allclose(table[["z0", "z1", "z2"]], [[1, -1, 0], [-1, 1, 0]], atol=1e-6)
    (array,) = generate(Options("checkpoint.pt", what="encode", input="a.png,b.png", out="z.npy"), root)
    np.testing.assert_allclose(np.load(array), table[["z0", "z1", "z2"]], atol=1e-6)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_walk_is_an_animation(root: Path, ending: str) -> None:
    options = Options("checkpoint.pt", what="interpolation", input="a.png,b.png", out=f"walk.{ending}")
    (file,) = generate(options, root)
    with Image.open(file) as image:
        assert image.n_frames == 2 * FRAMES - 2
        assert image.width >= 256
        image.seek(0)
        assert image.convert("L").getpixel((5, 5)) > 250
        image.seek(FRAMES - 1)
        assert image.convert("L").getpixel((5, 5)) < 5


def test_given_images_are_as_many_as_n_and_named_by_their_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/0.png", "y/0.png", "y/1.png"):
        (root / "own" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "own" / name).write_bytes((root / "a.png").read_bytes())
    (file,) = generate(Options("checkpoint.pt", what="encode", input="own"), root)
    assert [line.partition(",")[0] for line in file.read_text().splitlines()[1:]] == ["x/0.png", "y/0.png", "y/1.png"]
    (file,) = generate(Options("checkpoint.pt", what="encode", input="own", n=2, out="two.csv"), root)
    assert len(file.read_text().splitlines()) == 3
    assert len(made(root, what="reconstructions", input="own", n=1)[1]) == 1
    assert len(made(root, what="interpolation", input="own", n=1)[1]) == 1
    monkeypatch.setitem(generate_module.WHAT, "reconstructions", (64, 2))
    with pytest.raises(UserError, match=r"^input=own: 3 images, at most 2; give n= or fewer"):
        generate(Options("checkpoint.pt", what="reconstructions", input="own"), root)


def test_the_name_of_a_file_has_the_options_that_it_was_made_with(root: Path) -> None:
    files = [
        generate(Options("checkpoint.pt", n=2, **more), root)[0] for more in ({}, {"temperature": 0.5}, {"columns": 1})
    ]
    assert [file.stem.partition("samples-")[2] for file in files] == [
        "0-n=2",
        "0-n=2-temperature=0.5",
        "0-n=2-columns=1",
    ]


def test_the_temperature_scales_the_draws(root: Path) -> None:
    cold = made(root, temperature=0.0, n=5)[1]
    assert (np.abs(cold.astype(int) - 127.5) <= 0.5).all()  # the prior's mean is grey
    spread = [made(root, temperature=t, n=500)[1].std() for t in (0.2, 0.4)]
    assert spread[1] == pytest.approx(2 * spread[0], rel=0.02)
    same = made(root, n=5)[1]
    assert (same == made(root, temperature=1.0, n=5)[1]).all()
    tall, wide = (size(made(root, n=6, columns=columns)[0]) for columns in (2, 6))
    assert tall[1] / tall[0] > wide[1] / wide[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": "encode", "input": "none.png"}, r"^input=none\.png: no such file"),
        ({"what": "encode", "input": "empty"}, r"^input=empty: no images in this folder"),
        ({"what": "encode", "input": "checkpoint.pt"}, r"^input=.*checkpoint\.pt: not an image of a known kind.*give"),
        ({"what": "interpolation", "input": "a.png"}, r"^input=a\.png: .* two images or more, such as input=a\.png,b"),
        (
            {"what": "traversal", "temperature": 2.0},
            r"^temperature=2: .* those of what=samples and of what=interpolation",
        ),
        (
            {"what": "interpolation", "input": "a.png,b.png", "temperature": 0.5},
            r"^temperature=0\.5: .* without input=",
        ),
        ({"what": "encode", "array": True}, r"^array=true: .* out=<file>\.npy"),
        ({"what": "samples", "input": "a.png"}, r"^input=a\.png: samples .* give what=reconstructions"),
        ({"what": "samples", "out": "x.gif"}, r"^out=x\.gif: must end in \.png with what=samples"),
        ({"what": "encode", "out": "x.png"}, r"^out=x\.png: must end in \.csv or \.npy with what=encode"),
    ],
)
def test_what_cannot_be_drawn_is_named(root: Path, options: dict[str, str], message: str) -> None:
    (root / "empty").mkdir()
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError, match=message):
        generate(Options("checkpoint.pt", **options), root)
    assert sorted(root.rglob("*")) == before
