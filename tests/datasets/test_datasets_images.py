from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_sweep.datasets.images import CHUNK, Fit, _useful_threads, decode_files

WHITE = (255, 255, 255)


def decode(image: Image.Image, path: Path, size: int = 8, **options: object) -> np.ndarray:
    """Save and decode again: int (size, size, 3)."""
    image.save(path, **options)
    return Fit(size)(path).transpose(1, 2, 0).astype(int)


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("ending", ["png", "bmp", "ppm", "tif", "webp"])
def test_the_right_size_is_not_resampled(tmp_path: Path, noise: np.ndarray, ending: str) -> None:
    options = {"lossless": True} if ending == "webp" else {}
    np.testing.assert_array_equal(decode(Image.fromarray(noise), tmp_path / f"x.{ending}", **options), noise)


def test_the_centre_square_is_kept(tmp_path: Path, noise: np.ndarray) -> None:
    wide = np.zeros((8, 18, 3), np.uint8)
    wide[:, 5:13] = noise
    np.testing.assert_array_equal(decode(Image.fromarray(wide), tmp_path / "x.png"), noise)
    np.testing.assert_array_equal(
        decode(Image.fromarray(wide.transpose(1, 0, 2)), tmp_path / "y.png"), noise.transpose(1, 0, 2)
    )


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    result = decode(Image.fromarray(board), tmp_path / "x.png")
    assert np.abs(result - 127.5).max() < 4  # an image of every eighth pixel would be all black or white


def test_a_large_jpeg_is_close_to_the_plain_way(tmp_path: Path) -> None:
    y, x = np.mgrid[0:600, 0:800] / 100
    waves = np.stack([np.sin(x + y), np.cos(2 * x), np.sin(3 * y)], -1)
    image = Image.fromarray(np.rint(127.5 + 120 * waves).astype(np.uint8))
    result = decode(image, tmp_path / "x.jpg", size=32, quality=95)
    plain = np.asarray(image.crop((100, 0, 700, 600)).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(result - plain).mean() < 2
    assert np.abs(result - plain).max() < 12


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])  # Pillow itself turns a TIFF while it reads it
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, noise: np.ndarray, orientation: int, name: str) -> None:
    stored = {  # how a camera stores an upright image; EXIF 2.3, table of tag 0x0112
        1: noise,
        2: noise[:, ::-1],
        3: noise[::-1, ::-1],
        4: noise[::-1],
        5: noise.transpose(1, 0, 2),
        6: np.rot90(noise, 1),
        7: noise.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(noise, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if name.endswith("webp") else {}
    result = decode(Image.fromarray(np.ascontiguousarray(stored)), tmp_path / name, exif=exif, **lossless)
    np.testing.assert_array_equal(result, noise)


def test_grey_and_one_bit_and_palette(tmp_path: Path, noise: np.ndarray) -> None:
    grey = noise[:, :, 0]
    np.testing.assert_array_equal(decode(Image.fromarray(grey), tmp_path / "l.png"), grey[:, :, None].repeat(3, 2))
    bits = decode(Image.fromarray(grey > 127), tmp_path / "1.png")
    np.testing.assert_array_equal(bits[:, :, 0], (grey > 127) * 255)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert decode(palette, tmp_path / "p.gif")[0, 0].tolist() == [10, 20, 30]


def test_transparency_becomes_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (8, 8), (10, 20, 30, 255))
    rgba.paste((200, 0, 0, 0), (0, 0, 8, 4))
    rgba.paste((0, 0, 0, 128), (0, 4, 8, 5))
    result = decode(rgba, tmp_path / "rgba.png")
    assert [result[row, 0].tolist() for row in (0, 4, 7)] == [[255] * 3, [127] * 3, [10, 20, 30]]
    assert decode(Image.new("LA", (8, 8), (50, 0)), tmp_path / "la.png")[0, 0].tolist() == [255] * 3
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.putpixel((0, 0), 0)
    result = decode(palette, tmp_path / "p.png", transparency=0)
    assert (result[0, 0].tolist(), result[1, 1].tolist()) == ([255] * 3, [10, 20, 30])
    result = decode(palette, tmp_path / "bytes.png", transparency=b"\x00\xff")
    assert (result[0, 0].tolist(), result[1, 1].tolist()) == ([255] * 3, [10, 20, 30])
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    assert decode(keyed, tmp_path / "key.png", transparency=(1, 2, 3))[0, 0].tolist() == [255] * 3


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, ending: str) -> None:
    deep = np.zeros((8, 8), np.uint16)
    deep[0], deep[1], deep[2] = 65535, 257 * 100, 255
    result = decode(Image.fromarray(deep), tmp_path / f"x.{ending}")
    assert result[:4, 0, 0].tolist() == [255, 100, 1, 0]


def test_cmyk(tmp_path: Path) -> None:
    result = decode(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), tmp_path / "x.jpg", quality=95)
    assert np.abs(result[0, 0] - [0, 255, 255]).max() < 6


def test_a_crop_larger_than_the_image_is_refused(tmp_path: Path, noise: np.ndarray) -> None:
    Image.fromarray(noise).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match="8x8 pixels, smaller than the crop of 9x9"):
        Fit(8, crop=9)(tmp_path / "x.png")


def test_many_files_keep_their_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    n = 3 * CHUNK + 17

    def fake(path: Path) -> np.ndarray:
        i = int(path.name)
        if i % 100 == 3:
            raise OSError(f"bad {i}")
        return np.array([[[i // 256]], [[i % 256]]], np.uint8)

    with caplog.at_level(logging.INFO):
        images, broken = decode_files([Path(str(i)) for i in range(n)], fake, (2, 1, 1), threads=4)
    expected = [0 if i % 100 == 3 else i for i in range(n)]
    assert (images[:, 0, 0, 0].astype(int) * 256 + images[:, 1, 0, 0]).tolist() == expected
    assert broken == [(Path(str(i)), f"bad {i}") for i in range(3, n, 100)]
    assert "decoding 785 images" in caplog.text


def test_small_files_get_one_thread_and_large_ones_as_many_as_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vae_sweep.datasets.images.available_cores", lambda: 8)
    for size, threads in ((0, 1), (900, 1), (4096, 4), (100_000, 8)):
        (tmp_path / "x").write_bytes(bytes(size))
        assert _useful_threads([tmp_path / "x"] * 100) == threads
