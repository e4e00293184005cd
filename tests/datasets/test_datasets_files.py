"""Files as people have them: endings, what systems put beside them, metadata, scales, names."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from vae_sweep.base.errors import UserError
from vae_sweep.datasets import create, load
from vae_sweep.datasets.describe import lines, record
from vae_sweep.datasets.folder import Folder
from vae_sweep.datasets.images import Fit, UnknownScale, endings

Y, X = np.mgrid[0:8, 0:8]
RGB = np.stack([X * 30, Y * 30, 255 - X * 30], -1).astype(np.uint8)


def plain(folder: Path, n: int = 20) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.new("RGB", (8, 8), (i, i, i)).save(folder / f"plain{i:02d}.png")


def n_used(path: Path, **settings: object) -> int:
    built = Folder(path=str(path), image_size=8, **settings).build()  # type: ignore[arg-type]
    return sum(map(len, built.splits.values()))


OPENED = {
    **{".jfif": "JPEG", ".jpe": "JPEG", ".JPG": "JPEG", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".apng": "PNG"},
    **{".tga": "TGA", ".qoi": "QOI", ".pcx": "PCX", ".dib": "DIB", ".ico": "ICO", ".sgi": "SGI", ".j2k": "JPEG2000"},
    **{".jp2": "JPEG2000", ".avif": "AVIF", ".Tiff": "TIFF"},
}


@pytest.mark.parametrize("ending", OPENED)
def test_whatever_pillow_opens_safely_is_a_image(tmp_path: Path, ending: str) -> None:
    codec = {"AVIF": "avif", "JPEG2000": "jpg_2000"}.get(OPENED[ending])
    if codec and not features.check(codec):
        pytest.skip(f"this Pillow lacks {codec}")
    plain(tmp_path)
    mode = {".pgm": "L", ".pbm": "1"}.get(ending, "RGB")
    try:
        Image.fromarray(RGB).convert(mode).resize((16, 16)).save(tmp_path / f"x{ending}", OPENED[ending])
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {OPENED[ending]}")
    assert n_used(tmp_path, strict=True) == 21


def test_what_starts_programs_or_is_no_image_is_none() -> None:
    assert not {".eps", ".ps", ".wmf", ".emf", ".pdf", ".h5", ".grib", ".mpg"} & set(endings())


def test_other_files_are_counted_by_reason(tmp_path: Path) -> None:
    plain(tmp_path / "a")
    others = {
        "files ending in .heic": ["a/1.HEIC", "a/2.heic", "3.heic"],
        "files without an ending": ["a/README"],
        "system files (@eaDir)": ["a/@eaDir/1.png/SYNOPHOTO_THUMB_S.jpg", "@eaDir/x.jpg"],
        "system files (#recycle)": ["#recycle/x.png"],
        "system files (__MACOSX)": ["__MACOSX/a/._1.png"],
        "system files (Thumbs.db)": ["a/Thumbs.db"],
        "hidden files": ["a/._1.png", ".thumbnails/1.png", ".DS_Store"],
    }
    for names in others.values():
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8)).save(tmp_path / name, "png")
    built = Folder(path=str(tmp_path)).build()
    assert sum(map(len, built.splits.values())) == 20
    assert built.facts["left_out"] == {reason: len(names) for reason, names in others.items()}


def png_with(kind: bytes, content: bytes, behind: bool = False, damaged: bool = False) -> bytes:
    """RGB as a PNG with one more chunk, before or behind the pixels."""
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, "PNG")
    data = out.getvalue()
    checksum = zlib.crc32(kind + content) ^ damaged
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
    at = -12 if behind else 33
    return data[:at] + chunk + data[at:]


def with_exif(kind: str, content: bytes) -> bytes:
    """RGB with EXIF that says to turn it, its TIFF header replaced by `content`."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, kind, exif=exif, **({"quality": 100} if kind != "PNG" else {}))
    header = exif.tobytes().removeprefix(b"Exif\0\0")[:8]
    assert header in out.getvalue()
    data = out.getvalue().replace(header, content[:8].ljust(8, b"\xff"))
    return data


def mpf() -> bytes:
    """A JPEG whose APP2 says to hold several images, and is cut off."""
    out = io.BytesIO()
    Image.fromarray(RGB).save(out, "JPEG", quality=100)
    content = b"MPF\0II*\0\x08\0\0\0\xff\xff" + bytes(range(40))
    return out.getvalue()[:2] + b"\xff\xe2" + struct.pack(">H", len(content) + 2) + content + out.getvalue()[2:]


METADATA = {
    "exif.png": png_with(b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03"),
    "exif_type.png": png_with(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\xff\xff\xff\xff\xff"),
    "empty_exif.png": png_with(b"eXIf", b""),
    "text_checksum.png": png_with(b"tEXt", b"Comment\0x", damaged=True),
    "exif_checksum.png": png_with(b"eXIf", b"MM\0*", damaged=True),
    "gamma.png": png_with(b"gAMA", b"\0"),
    "dpi.png": png_with(b"pHYs", b"\0"),
    "profile.png": png_with(b"iCCP", b"x"),
    "text_bomb.png": png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000))),
    "behind.png": png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)), behind=True),
    "exif.jpg": with_exif("JPEG", b"garbage"),
    "exif.webp": with_exif("WEBP", b"garbage"),
    "several.jpg": mpf(),
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_cannot_be_read_do_not_cost_the_image(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(METADATA[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Fit(8)(tmp_path / name).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - RGB).max() <= (0 if name.endswith("png") else 30)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow lacks AVIF")
def test_broken_exif_of_avif_does_not_cost_the_image(tmp_path: Path) -> None:
    big = Image.fromarray(RGB).resize((64, 64), Image.Resampling.NEAREST)
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x010E] = "described"
    big.save(out, "AVIF", exif=exif, quality=100)
    header = exif.tobytes().removeprefix(b"Exif\0\0")[:8]
    assert header in out.getvalue()
    (tmp_path / "x.avif").write_bytes(out.getvalue().replace(header, b"\xff" * 8))
    assert np.abs(Fit(8)(tmp_path / "x.avif").transpose(1, 2, 0).astype(int) - RGB).max() < 30


def test_an_orientation_that_can_be_read_is_heeded_beside_what_cannot(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    (tmp_path / "x.png").write_bytes(png_with(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[:33] + png_with(b"gAMA", b"\0")[33:46] + data[33:])
    np.testing.assert_array_equal(Fit(8)(tmp_path / "x.png").transpose(1, 2, 0), RGB[::-1, ::-1])


def test_a_image_that_is_cut_off_stays_broken(tmp_path: Path) -> None:
    content = png_with(b"eXIf", b"\0\x08")
    (tmp_path / "x.png").write_bytes(content[:-60])
    with pytest.raises(OSError, match=r"truncated|broken|cannot identify"):
        Fit(8)(tmp_path / "x.png")


def grey(values: np.ndarray, path: Path, value_range: tuple[float, float] | None) -> list[int]:
    Image.fromarray(values).save(path)
    return Fit(8, value_range=value_range)(path)[0, 0].tolist()


RAMP = np.arange(8) * np.ones((8, 1))  # 0..7 from left to right
EIGHT = [round(255 * i / 7) for i in range(8)]


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        ((RAMP / 7).astype(np.float32), (0, 1)),
        ((RAMP * 255 / 7).astype(np.float32), (0, 255)),
        ((RAMP / 3.5 - 1).astype(np.float32), (-1, 1)),
        ((RAMP * 10_000).astype(np.int32), (0, 70_000)),
        ((RAMP * 4095 / 7).round().astype(np.uint16), (0, 4095)),  # of a 12-bit camera
        ((RAMP * 10 - 30).astype(np.int32), (-30, 40)),
    ],
)
def test_the_scale_of_a_data_set_is_the_given_one(
    tmp_path: Path, values: np.ndarray, value_range: tuple[float, float]
) -> None:
    assert grey(values, tmp_path / "x.tif", value_range) == EIGHT
    dark = np.where(RAMP == 0, values, values[0, 1])
    assert grey(dark.astype(values.dtype), tmp_path / "x.tif", value_range) == [0, *[EIGHT[1]] * 7]


def test_portable_float_maps_have_no_scale_of_their_own_and_deep_grey_has(tmp_path: Path) -> None:
    (tmp_path / "x.pfm").write_bytes(b"Pf\n8 8\n-1.0\n" + (RAMP / 7).astype("<f4").tobytes())
    with pytest.raises(UnknownScale):
        Fit(8)(tmp_path / "x.pfm")
    assert Fit(8, value_range=(0, 1))(tmp_path / "x.pfm")[0, 0].tolist() == EIGHT
    (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n65535\n" + (RAMP * 65535 / 7).astype(">u2").tobytes())
    assert Fit(8)(tmp_path / "x.pgm")[0, 0].tolist() == EIGHT
    for largest in (4095, 65535):  # that the file says; its values are those of a 12-bit camera
        (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n%d\n" % largest + (RAMP * 4095 / 7).astype(">u2").tobytes())
        fit = Fit(8, value_range=(0, 4095))
        assert fit(tmp_path / "x.pgm")[0, 0].tolist() == EIGHT
        (tmp_path / "x.pgm").write_bytes(b"P5\n8 8\n%d\n" % largest + np.full((8, 8), 1000, ">u2").tobytes())
        exact = Fit(8, value_range=(0, 1000))
        assert exact(tmp_path / "x.pgm").min() == 255
        assert fit.clipped == exact.clipped == []


def test_16_bit_grey_has_all_its_bits_unless_a_tiff_says_fewer_and_white_may_be_zero(tmp_path: Path) -> None:
    deep = (RAMP * 65535 / 7).round().astype(np.uint16)
    assert grey(deep, tmp_path / "x.png", None) == EIGHT
    assert grey(deep, tmp_path / "x.tif", None) == EIGHT
    inverted = TiffImagePlugin.ImageFileDirectory_v2()
    inverted[262] = 0
    Image.fromarray(deep).save(tmp_path / "x.tif", tiffinfo=inverted)
    with Image.open(tmp_path / "x.tif") as found:
        assert (found.mode, found.tag_v2[262]) == ("I;16", 0)  # type: ignore[attr-defined]
    assert Fit(8)(tmp_path / "x.tif")[0, 0].tolist() == EIGHT[::-1]
    ramp = (RAMP * 4095 / 7).round().astype(int)
    packed = b"".join(
        bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in zip(ramp.flat[::2], ramp.flat[1::2], strict=True)
    )
    tags = [(256, 8), (257, 8), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 8), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(packed))
    (tmp_path / "x.tif").write_bytes(head + packed + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0))
    assert Fit(8)(tmp_path / "x.tif")[0, 0].tolist() == EIGHT


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_without_a_scale_the_option_is_named(tmp_path: Path, kind: type) -> None:
    plain(tmp_path)
    Image.fromarray((RAMP * 30).astype(kind)).save(tmp_path / "deep.tif")
    with pytest.raises(UserError) as error:
        Folder(path=str(tmp_path)).build()
    assert "deep.tif holds " in str(error.value)
    assert "dataset.value_range=[0,1] or [0,255]" in str(error.value)
    assert "\n" not in str(error.value)
    built = Folder(path=str(tmp_path), value_range=[0, 255], image_size=8).build()
    assert sum(map(len, built.splits.values())) == 21
    assert "note" not in built.facts


def test_values_that_are_not_finite_are_a_broken_image_and_values_beyond_the_scale_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain(tmp_path)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("beyond", 2.0)):
        values = (RAMP / 7).astype(np.float32)
        values[0, 0] = value
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    built = Folder(path=str(tmp_path), value_range=[0, 1]).build()
    assert built.facts["left_out"] == {"broken: floating-point values that are not finite": 2}
    assert built.facts["note"] == "1 images have values beyond dataset.value_range=[0, 1]: clipped"
    assert built.facts["note"] in caplog.text


@pytest.mark.parametrize("given", [[1, 0], [0], [0, 1, 2], [0, float("nan")], [0, float("inf")], [1, 1]])
def test_no_scale_is_refused(given: list[float]) -> None:
    with pytest.raises(UserError, match=r"dataset\.value_range=.* must be \[black, white\]"):
        Folder(path="x", value_range=given)


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """Images whose names, and that of a class, are no UTF-8; one of them is broken."""
    root = tmp_path / "images"
    plain(root / "a")
    odd = os.fsencode(root) + b"/cl\xff"
    try:
        os.mkdir(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    for i in range(5):
        with open(odd + b"/p\xfc%d.png" % i, "wb") as file:
            Image.new("RGB", (8, 8)).save(file, "PNG")
    with open(odd + b"/broken\xfc.png", "wb") as file:
        file.write(b"")
    return root


def test_names_that_are_no_utf8_are_escaped_where_they_are_recorded(
    odd_names: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = load(Folder(path=str(odd_names)), tmp_path / "cache")
    texts = [record(data), json.dumps(data.facts), *lines(data), *(message.getMessage() for message in caplog.records)]
    for text in texts:
        text.encode()
        json.dumps(json.loads(text) if text.startswith("{") else text, ensure_ascii=False).encode()
    assert data.facts["classes"] == ["a", "cl\\udcff"]
    assert data.facts["skipped_files"][0].endswith("cl\\udcff/broken\\udcfc.png: cannot identify image file") is False
    assert "broken\\udcfc.png" in data.facts["skipped_files"][0]
    with pytest.raises(UserError) as error:
        Folder(path=str(odd_names), strict=True).build()
    str(error.value).encode()


@pytest.mark.parametrize("name", ["Übung", "画像", "с-данные"])
def test_a_name_outside_ascii_is_no_part_of_a_path(tmp_path: Path, name: str) -> None:
    plain(tmp_path / "images")
    node = {
        "_target_": "vae_sweep.datasets.folder.Folder",
        "name": name,
        "path": str(tmp_path / "images"),
        "image_size": 8,
    }
    data = load(create(node), tmp_path / "cache")
    assert data.name == name
    assert data.cache_dir.name.isascii()
    assert load(create(node), tmp_path / "cache").digest == data.digest


@pytest.mark.parametrize("permuted", [False, True])
def test_at_most_so_many_images_of_each_split_and_no_more_decoded(
    tmp_path: Path, permuted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split in ("train", "test"):
        plain(tmp_path / split, 30)
    node = {"_target_": "vae_sweep.datasets.folder.Folder", "path": str(tmp_path), "permute_pixels": permuted}
    whole = load(create(node), tmp_path / "cache")
    decoded = []
    original = Fit.__call__
    monkeypatch.setattr(Fit, "__call__", lambda self, path: decoded.append(path) or original(self, path))
    few = load(create(node | {"max_images": 7}), tmp_path / "cache")
    assert {key: len(split) for key, split in few.splits.items()} == {"train": 7, "val": 3, "test": 7}
    assert len(decoded) == 17
    for key, split in few.splits.items():
        known = {image.tobytes() for image in whole.splits[key].images}
        assert {image.tobytes() for image in split.images} <= known
    assert "at most 7 of each" in "".join(lines(few))
    assert few.cache_dir != whole.cache_dir


def test_any_source_can_be_limited_and_the_limit_is_checked(tmp_path: Path) -> None:
    node = {"_target_": "helper_sources.Counting", "log": str(tmp_path / "log"), "size": 50}
    data = load(create(node | {"max_images": 2}), tmp_path / "cache")
    assert {key: len(split) for key, split in data.splits.items()} == {"train": 2, "val": 2, "test": 2}
    for bad in (0, -1, 1.5, "all"):
        with pytest.raises(UserError, match=r"dataset\.max_images=.* must be a whole number"):
            create(node | {"max_images": bad})
