"""The slider page: what it holds is what the models decode, whatever they are called, and a browser shows the same."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

import decoders
from evidence_examples import NASTY
from vae_sweep.base.errors import UserError
from vae_sweep.datasets import Split
from vae_sweep.datasets.permuted import PERMUTED, pixel_order, reorder
from vae_sweep.models.conv import ConvVAE
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.report import explore
from vae_sweep.report.explore import Subject, explorer
from vae_sweep.sweeps import explore as sweeps_explore
from vae_sweep.training.evaluation import to_uint8

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
CLASSES = ["cat", "dog", "</script><script>alert(1)</script>"]


def subject(make: Callable[[], VAE], title: str = "fc, p1, seed 0", n: int = 40, **changed: Any) -> Subject:
    torch.manual_seed(3)
    model = make().eval()
    source = np.random.default_rng(0)
    images = source.integers(0, 256, (n, *model.image_shape), dtype=np.uint8)
    test = Split(images, np.arange(n, dtype=np.int64) % 3)
    given = Subject(title, "test loss 73.97 nats/image", "shapes", model, test, {"classes": CLASSES})
    return replace(given, **changed)


def small_conv() -> VAE:
    return ConvVAE(decoders.SHAPE, 6, [4, 8])


def data_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    content: dict[str, Any] = json.loads(found)
    return content


def pixels(sheet: dict[str, Any]) -> np.ndarray:
    """All images of a sheet, (N, C, H, W)."""
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sheet["src"].partition(",")[2]))))
    image = image[..., None] if image.ndim == 2 else image
    h, w, columns = sheet["height"], sheet["width"], sheet["columns"]
    rows = image.reshape(-1, h, columns, w, image.shape[2]).transpose(0, 2, 4, 1, 3)
    return rows.reshape(-1, *rows.shape[2:])[: sheet["n"]]


@torch.no_grad()
def decoded(model: VAE, z: Any) -> np.ndarray:
    return to_uint8(model.decode(torch.as_tensor(np.asarray(z), dtype=torch.float32).reshape(-1, model.latent_dim)))


def test_the_page_knows_each_model_and_fetches_nothing() -> None:
    made = explorer("fc, conv on shapes", [subject(decoders.Everything), subject(small_conv, "conv, p1, seed 0")])
    data = data_of(made.html)
    assert [model["title"] for model in data["models"]] == ["fc, p1, seed 0", "conv, p1, seed 0"]
    assert all("program" in model and len(model["walk"]) == 6 for model in data["models"])
    assert [len(model["top"]) for model in data["models"]] == [8, 6]
    assert len(data["pictures"]) == 1  # the same test images
    assert made.said == f"2 decoded live, 0 from pictures, {len(made.html) / 1e6:.1f} MB"
    assert "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:" in made.html
    assert not re.findall(r"(?:src|href)=\"(?!data:)|https?:|@import|url\(", made.html)


def test_the_sliders_are_the_latents_of_most_kl_and_the_map_their_principal_components() -> None:
    given = subject(decoders.Everything)
    (model,) = data_of(explorer("", [given]).html)["models"]
    with torch.no_grad():
        posterior = given.model.encode(torch.from_numpy(given.test.images).float() / 255)
    kl = 0.5 * (posterior.mean**2 + posterior.logvar.exp() - 1 - posterior.logvar).mean(0)
    expected = kl.sort(descending=True)
    assert [slider["latent"] for slider in model["top"]] == expected.indices[:8].tolist()
    assert [slider["kl"] for slider in model["top"]] == pytest.approx(expected.values[:8].tolist(), abs=1e-3)
    means = posterior.mean.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(means.T))
    points = np.array(model["map"]["points"])
    assert np.abs((means - means.mean(0)) @ vectors[:, :-3:-1]) == pytest.approx(np.abs(points), abs=1e-3)
    assert model["map"]["share"] == pytest.approx(values[-2:].sum() / values.sum(), abs=1e-3)
    assert np.abs(points).max() < model["map"]["extent"]


def test_a_decoder_that_cannot_be_exported_is_shown_by_pictures_of_it() -> None:
    given = subject(decoders.Softmax)
    made = explorer("", [given])
    (model,) = data_of(made.html)["models"]
    assert made.said.startswith("0 decoded live, 1 from pictures")
    assert "softmax" in model["frames"]["reason"]
    images, frames, steps = pixels(model["frames"]), model["frames"], 9
    z = np.zeros((8 * steps, decoders.LATENTS))
    for j, slider in enumerate(model["top"]):
        z[j * steps : (j + 1) * steps, slider["latent"]] = np.linspace(-3, 3, steps)
    assert (images[: len(z)] == decoded(given.model, z)).all()
    walk = np.array(model["walk"])
    second = 8 * steps + steps  # after the walk from the first image to the second, that to the third
    expected = decoded(given.model, [walk[0], (walk[0] + walk[2]) / 2, walk[2]])
    assert np.abs(images[[second, second + 4, second + 8]].astype(int) - expected).max() <= 1
    place = frames["at"][8 * steps + 15 * steps]  # the first of the map: its lower left corner
    assert place == pytest.approx([-model["map"]["extent"]] * 2, abs=1e-3)
    assert (images[-1] == decoded(given.model, np.zeros(decoders.LATENTS))[0]).all()
    assert len(images) == 8 * steps + 15 * steps + steps**2 + 16 + 1


def test_a_page_without_room_takes_pictures_and_then_names_who_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [subject(small_conv, "first"), subject(decoders.Everything, "second")]
    whole = explorer("", given)
    sizes = [len(json.dumps(model)) for model in data_of(whole.html)["models"]]
    monkeypatch.setattr(explore, "MAX_LIVE", 2 * 1000)
    assert "0 decoded live, 2 from pictures" in explorer("", given).said
    monkeypatch.undo()
    shared = len(data_of(whole.html)["pictures"][0]["src"])
    monkeypatch.setattr(explore, "MAX_PAGE", 100_000 + shared + sizes[0] + 5000)
    made = explorer("", given)
    assert made.said.startswith("1 decoded live, 0 from pictures")
    assert made.said.endswith("left out: second (no room)")
    assert [model["title"] for model in data_of(made.html)["models"]] == ["first"]


def test_pixels_of_permuted_images_are_unshuffled() -> None:
    plain = subject(small_conv)
    order = pixel_order(*decoders.SHAPE[1:])
    test = Split(reorder(plain.test.images, order), plain.test.labels)
    permuted = replace(plain, test=test, facts={**plain.facts, PERMUTED: True}, data="shapes (pixels permuted)")
    data = data_of(explorer("", [plain, permuted]).html)
    assert len(data["pictures"]) == 1  # they show the same test images, so the models stand side by side
    assert (pixels(data["pictures"][0]) == plain.test.images).all()
    with_pictures = data_of(explorer("", [replace(permuted, model=subject(decoders.Softmax).model)]).html)
    last = pixels(with_pictures["models"][0]["frames"])[-1:]
    assert (reorder(last, order) == decoded(subject(decoders.Softmax).model, np.zeros(decoders.LATENTS))).all()


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("make", [small_conv, decoders.Softmax])
def test_few_images_suffice(n: int, make: Callable[[], VAE]) -> None:
    given = subject(make, n=n)
    (model,) = data_of(explorer("", [given]).html)["models"]
    assert len(model["map"]["points"]) == len(model["walk"]) == n
    assert np.isfinite(np.array(model["map"]["axes"])).all()


def test_one_grey_latent_without_classes_that_has_collapsed() -> None:
    def make() -> VAE:
        model = ConvVAE((1, 8, 4), 1, [2])
        torch.nn.init.zeros_(model.head.weight)
        return model

    given = subject(make, facts={})
    given = replace(given, test=Split(given.test.images, np.full(40, -1)))
    data = data_of(explorer("", [given]).html)
    assert data["pictures"][0]["classes"] == data["pictures"][0]["labels"] == []
    assert data["models"][0]["map"]["share"] == pytest.approx(0, abs=1e-6)
    assert data["models"][0]["map"]["extent"] == 1  # a map of the prior's size, not of rounding errors
    assert pixels(data["pictures"][0]).shape == (40, 1, 8, 4)


def test_models_that_cannot_be_shown_are_named_and_the_others_are_shown() -> None:
    class Broken(decoders.Softmax):
        def encode(self, x: torch.Tensor) -> Posterior:
            raise RuntimeError("no encoder\nat all")

    def overflowing() -> VAE:
        model = small_conv()
        torch.nn.init.constant_(model.head.bias, 1e4)
        return model

    made = explorer("", [subject(Broken, "a"), subject(overflowing, "b"), subject(small_conv, "c")])
    assert made.said.startswith("1 decoded live")
    assert made.said.endswith("left out: a (RuntimeError: no encoder), b (its latents are not finite)")
    assert [model["title"] for model in data_of(made.html)["models"]] == ["c"]
    json.loads(json.dumps(data_of(made.html), allow_nan=False))


def test_large_images_are_shrunk_in_pictures() -> None:
    made = explorer("", [subject(lambda: decoders.Softmax((3, 128, 96), 2), n=3)])
    data = data_of(made.html)
    assert pixels(data["pictures"][0]).shape == (3, 3, 64, 48)
    assert pixels(data["models"][0]["frames"]).shape[1:] == (3, 64, 48)


def test_names_cannot_break_out_of_the_page() -> None:
    nasty = f"</script><!--<script>{NASTY}\u202e\ud800"
    made = explorer(nasty, [subject(small_conv, nasty, loss=nasty, data=nasty)])
    assert made.html.count("</script>") == 2
    assert made.html.count("<script") == 2
    assert "<img" not in made.html
    assert "<!--" not in made.html
    made.html.encode()
    (model,) = data_of(made.html)["models"]
    assert model["title"] == nasty.replace("\u202e", "\ufffd").replace("\ud800", "\ufffd")


def test_a_sweep_ends_with_the_page_and_compare_writes_it_again(
    swept: tuple[Path, str], tmp_path: Path, command: Callable
) -> None:
    root, said = swept
    (stored,) = root.glob("mlruns/*/artifacts/explore.html")
    page = stored.read_text(encoding="utf-8")
    titles = [model["title"] for model in data_of(page)["models"]]
    assert titles == ["fc, tiny, seed 0", "conv, tiny, seed 0"]  # of each cell the lowest seed
    assert re.search(r"file://\S+/artifacts/explore\.html\s\(\d decoded live,\s0 from\s", said), said
    assert "test loss" in data_of(page)["models"][0]["loss"]
    copied = tmp_path / "copied"
    shutil.copytree(root, copied)
    done = command("sweep=last", "out=here", cwd=copied, module="vae_sweep.compare")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(copied / "here" / "explore.html")
    assert (copied / "here" / "explore.html").read_text(encoding="utf-8") == page


def test_a_run_without_a_checkpoint_is_left_out(swept: tuple[Path, str], tmp_path: Path, command: Callable) -> None:
    root = tmp_path / "copied"
    shutil.copytree(swept[0], root)
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.vae_sweep.role = 'run'")
    lost = [run for run in runs if run.data.params["model.name"] == "fc"]
    for run in lost:
        (root / "mlruns" / run.info.run_id / "artifacts" / "checkpoint.pt").unlink()
    done = command("sweep=last", "out=here", cwd=root, module="vae_sweep.compare")
    assert done.returncode == 0, done.stderr
    assert "explore.html leaves out fc-tiny-s0: it has no checkpoint" in done.stderr
    titles = [
        model["title"] for model in data_of((root / "here" / "explore.html").read_text(encoding="utf-8"))["models"]
    ]
    assert [title.split(",")[0] for title in titles] == ["conv"]


def test_without_the_images_there_is_no_page_and_the_reason_is_said(
    swept: tuple[Path, str], tmp_path: Path, command: Callable
) -> None:
    root = tmp_path / "copied"
    shutil.copytree(swept[0], root)
    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    for run in client.search_runs(["1"], "tags.vae_sweep.role = 'run'"):
        path = root / "mlruns" / run.info.run_id / "artifacts" / "checkpoint.pt"
        content = torch.load(path, weights_only=True)
        content["config"]["dataset"] = {"_target_": "somebodys.Images", "name": "theirs"}
        torch.save(content, path)
    (root / "here").mkdir()
    (root / "here" / "explore.html").write_text("of an earlier time", encoding="utf-8")
    done = command("sweep=last", "out=here", cwd=root, module="vae_sweep.compare")
    assert done.returncode == 0, done.stderr
    assert "explore.html leaves out fc-tiny-s0" in done.stderr
    assert "somebodys.Images" in done.stderr
    assert done.stdout.splitlines()[-1] == str(root / "here" / "report.html")
    assert not (root / "here" / "explore.html").exists()


def test_nothing_is_downloaded_for_it(tmp_path: Path) -> None:
    target = "vae_sweep.datasets.cifar10.Cifar10"
    dataset = {"_target_": target, "name": "c", "root": "data", "download": True, "val_fraction": 0.1}
    config = {"dataset": dataset, "paths": {"root": str(tmp_path), "data": "data"}}
    with pytest.raises(UserError, match=r"dataset\.download=false"):
        sweeps_explore._images(config, "1", tmp_path)
    assert dataset["download"]


def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no memory\nleft")

    monkeypatch.setattr(sweeps_explore, "explore", fail)
    assert sweeps_explore.attempt(None, None, Path()) is None  # type: ignore[arg-type]
    assert [record.getMessage() for record in caplog.records] == [
        "explore.html could not be made (RuntimeError: no memory)"
    ]
    assert caplog.records[0].exc_info is None


def test_no_module_is_imported_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "somebodys.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert sweeps_explore._imported("somebodys.VAE", VAE) is None
    assert "somebodys" not in sys.modules
    assert sweeps_explore._imported("decoders.Softmax", VAE) is decoders.Softmax  # named by whoever imported it
    with pytest.raises(UserError, match=r"os\.path\.join"):
        sweeps_explore._imported("os.path.join", VAE)


PIXELS = """(index) => {
  const canvas = document.querySelectorAll(".picture")[index], {width, height} = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
  copy.drawImage(canvas, 0, 0);
  return [width, height, [...copy.getImageData(0, 0, width, height).data]];
}"""
NAMES = """[...document.querySelectorAll("input, button, select")]
  .map(e => e.labels[0]?.textContent || e.getAttribute("aria-label") || e.textContent)"""
SET = """([selector, index, value]) => {
  const input = document.querySelectorAll(selector)[index];
  input.value = value;
  input.dispatchEvent(new Event("input", {bubbles: true}));
}"""


class Shown:
    """The page in a browser's frame."""

    def __init__(self, frame: Any) -> None:
        self.frame = frame
        frame.wait_for_selector("html[data-ready]")

    def picture(self, index: int) -> np.ndarray:
        """(C, H, W)."""
        width, height, values = self.frame.evaluate(PIXELS, index)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3].transpose(2, 0, 1)

    def slide(self, selector: str, value: float, index: int = 0) -> None:
        self.frame.evaluate(SET, [selector, index, value])

    def is_decoded(self, index: int, model: VAE, z: Any, levels: int = 2) -> None:
        expected = decoded(model, z)[0].astype(int)
        assert np.abs(self.picture(index) - expected).max() <= levels


def frames_of(page: Any, path: Path, text: str, sandboxed: bool) -> Any:
    """The page's frame, opened from disk, or in the kind of frame that MLflow's artifact viewer has."""
    path.write_text(text, encoding="utf-8")
    if sandboxed:
        frame = f'<iframe sandbox="allow-scripts" width="1200" height="900" srcdoc="{html.escape(text)}"></iframe>'
        path = path.with_name("viewer.html")
        path.write_text(f'<!DOCTYPE html><link rel="icon" href="data:,"><title>viewer</title>{frame}', encoding="utf-8")
    page.goto(path.as_uri(), wait_until="load")
    return page.frames[-1]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("sandboxed", [False, True], ids=["from disk", "in a sandboxed frame"])
def test_a_browser_decodes_what_the_models_do(tmp_path: Path, sandboxed: bool) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    nasty = f"</script>{NASTY}"
    given = [subject(decoders.Everything, nasty), subject(small_conv, "conv"), subject(decoders.Softmax, "own")]
    made = explorer(nasty, given)
    live, conv, pictured = data_of(made.html)["models"]
    problems: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=BROWSER, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        frame = frames_of(page, tmp_path / "explore.html", made.html, sandboxed)
        shown = Shown(frame)
        assert frame.locator(".title").all_text_contents() == [nasty, "conv"]
        # At first, and at the end of the walk: two test images.
        for t, images in ((0, [0]), (0.5, [0, 1]), (1, [1])):
            shown.slide("#walk", t)
            for index, (model, known) in enumerate(((given[0].model, live), (given[1].model, conv))):
                shown.is_decoded(index, model, np.mean([known["walk"][image] for image in images], axis=0))
        # Sliders.
        frame.click("#reset")
        z = np.zeros(decoders.LATENTS)
        shown.is_decoded(0, given[0].model, z)
        for j, value in ((0, 2.5), (7, -3)):
            shown.slide(".panel:first-child .sliders input", value, j)
            z[live["top"][j]["latent"]] = value
            shown.is_decoded(0, given[0].model, z)
        frame.locator(".panel:first-child .sliders input").first.press("ArrowLeft")
        z[live["top"][0]["latent"]] = 2.45
        shown.is_decoded(0, given[0].model, z)
        assert frame.locator(".panel:first-child .sliders .value").first.text_content() == "2.45"
        shown.is_decoded(1, given[1].model, np.zeros(6))  # the other model did not move
        # The map, with the mouse and the keyboard.
        canvas = frame.locator(".panel:nth-child(2) .map")
        box = canvas.bounding_box()
        assert box is not None
        canvas.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
        extent, axes, center = conv["map"]["extent"], np.array(conv["map"]["axes"]), np.array(conv["map"]["center"])
        shown.is_decoded(1, given[1].model, center + extent / 2 * axes[0], levels=4)  # the click is rounded to a pixel
        before = shown.picture(1)
        for _ in range(5):
            canvas.press("ArrowUp")
        assert (shown.picture(1) != before).any()
        shown.is_decoded(1, given[1].model, center + np.array([extent / 2, extent / 4]) @ axes, levels=4)
        # Prior draws, other ones each time, of both models.
        drawn = []
        for _ in range(3):
            frame.click("#prior")
            drawn += [shown.picture(0), shown.picture(1)]
        assert all((drawn[i] != drawn[i + 2]).any() for i in range(4))
        # Another image of the walk, another model, one that is shown by pictures.
        frame.click("#to")
        shown.is_decoded(1, given[1].model, conv["walk"][2])
        frame.locator(".panel:nth-child(2) select").select_option(index=2)
        frame.wait_for_function("document.querySelectorAll('.title')[1].textContent === 'own'")
        shown.is_decoded(1, given[2].model, pictured["walk"][2])
        frame.click("#reset")
        shown.is_decoded(1, given[2].model, np.zeros(decoders.LATENTS), levels=0)
        shown.slide(".panel:nth-child(2) .sliders input", 1.5, 3)
        shown.is_decoded(1, given[2].model, 1.5 * np.eye(decoders.LATENTS)[pictured["top"][3]["latent"]], levels=0)
        assert "softmax" in (frame.locator(".panel:nth-child(2) .why").text_content() or "")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 900})
            wide = frame.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0
        names = frame.evaluate(NAMES)
        browser.close()
    assert len(names) > 20
    assert [name for name in names if not name.strip()] == []
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "about:"))] == []
