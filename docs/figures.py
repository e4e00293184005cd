"""The figures of the README and the site, made by one command from a real sweep, with Chromium and Playwright:

    python docs/figures.py --folder ../figures -m model=fc,conv params=p1,p2,p3 dataset=shapes

It trains the sweep in that folder; where it is finished there already, live-table.svg stays as it is.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from rich.console import Console

import vae_sweep as vs
from vae_sweep.sweeps import display
from vae_sweep.sweeps.status import Status, read

HERE = Path(__file__).resolve().parent
COLUMNS = 100  # of the terminal
WIDTH = 1280  # of a browser window, pixels
UI = 20_000  # ms that a page of the MLflow UI may take
LARGEST = 200_000  # bytes of a picture
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
TABLE = Path("live-table.svg")


def main() -> None:
    """Train, look while it trains, then photograph the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the sweep is trained, or was")
    parser.add_argument("--out", type=Path, default=HERE, help="where the figures go (default: docs)")
    options, overrides = parser.parse_known_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    train(overrides, options.folder.resolve(), out)
    os.chdir(options.folder)
    sweep = vs.load_sweep("last")
    Path("report.html").write_text(sweep.report, encoding="utf-8")
    with sweep.store.artifact(sweep.id, "explore.html") as explore:
        assert explore is not None, "the sweep has no explore.html"
        shutil.copy(explore, "explore.html")
    with opened_page() as page:
        photograph(page, Path("report.html").resolve().as_uri(), out / "report.png", 900)
        photograph(page, Path("explore.html").resolve().as_uri(), out / "explore.png")
    with user_interface() as addresses, opened_page() as page:
        save(stacked(mlflow_shots(page, *addresses)), out / "mlflow-ui.png")


def train(overrides: list[str], folder: Path, out: Path) -> None:
    """Run the sweep, and keep the last table of it in which at most half of the runs have ended."""
    process = subprocess.Popen([sys.executable, "-m", "vae_sweep", *overrides, "progress=none"], cwd=folder)
    try:
        while process.poll() is None:
            time.sleep(1)
            runs = statuses(folder)
            if any(run.state == "training" and run.val for run in runs) and 2 * sum(map(ended, runs)) <= len(runs):
                (out / TABLE.name).write_text(drawn(runs), encoding="utf-8")
    finally:
        process.terminate()
        process.wait()
    if process.returncode:
        sys.exit(f"the sweep ended with status {process.returncode}")


def ended(run: Status) -> bool:
    return run.ended > 0


def statuses(folder: Path) -> list[Status]:
    """Return what the runs of the sweep are doing; those that have not started come last."""
    runs = []
    for planned in sorted(folder.glob("outputs/state/*/*/config.yaml"), key=lambda file: file.stat().st_mtime):
        cfg = OmegaConf.load(planned)
        runs.append(read(planned.parent) or Status(f"{cfg.model.name}-{cfg.params.name}"))
    return sorted(runs, key=lambda run: run.started or time.time())


def drawn(runs: list[Status]) -> str:
    """Return the display of the runs as SVG, without the font that rich would load from another host."""
    console = Console(record=True, width=COLUMNS, height=24, force_terminal=True, file=io.StringIO())
    console.print(display.shown(runs, [], console))
    svg = console.export_svg(title="vae_sweep", clear=True)
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)


@contextmanager
def opened_page() -> Iterator[Page]:
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_page(viewport={"width": WIDTH, "height": 800})
        browser.close()


def shot(page: Page, address: str, height: int | None) -> Image.Image:
    """Return the first ``height`` pixels of a page, or all of it, once it has loaded."""
    page.set_viewport_size({"width": WIDTH, "height": height or 800})
    page.goto(address, wait_until="load")
    page.wait_for_timeout(1500)  # what scripts draw
    return Image.open(io.BytesIO(page.screenshot(full_page=height is None)))


def mlflow_shots(page: Page, runs: str, files: str) -> list[Image.Image]:
    """Return the page of the experiment's runs, with those of the sweep, and the sweep's figure of samples."""
    page.set_viewport_size({"width": WIDTH, "height": 530})
    page.goto(runs.partition("?")[0] + "?workflowType=machine_learning", wait_until="load", timeout=UI)
    page.wait_for_selector("text=Run Name", timeout=UI)
    for component in ("mlflow.assistant.chat_panel.close", "runnamecellrenderer"):  # leave that out, open the sweep
        for button in page.locator(f'[data-component-id*="{component}"]').all()[:1]:
            button.click()
    page.wait_for_timeout(3000)
    shots = [Image.open(io.BytesIO(page.screenshot()))]
    page.set_viewport_size({"width": WIDTH, "height": 620})
    page.goto(files, wait_until="load", timeout=UI)
    for name in ("figures", "samples.png"):
        page.get_by_text(name, exact=True).first.click(timeout=UI)
    page.wait_for_timeout(3000)
    return [*shots, Image.open(io.BytesIO(page.screenshot()))]


def photograph(page: Page, address: str, path: Path, height: int | None = None) -> None:
    save(shot(page, address, height), path)


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG of at most 200 kB, with as many colours as that allows."""
    for colours in (256, 128, 64, 32):
        image.convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    sys.exit(f"{path}: larger than {LARGEST:,} bytes with 32 colours")


def stacked(images: list[Image.Image]) -> Image.Image:
    """Return the images one above the other."""
    gap = 16
    whole = Image.new("RGB", (WIDTH, sum(image.height + gap for image in images) - gap), "white")
    for n, image in enumerate(images):
        whole.paste(image, (0, sum(above.height + gap for above in images[:n])))
    return whole


@contextmanager
def user_interface() -> Iterator[list[str]]:
    """Start the MLflow UI on this folder; yield the addresses of the sweep's runs and of its files."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vae_sweep", "ui", f"port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        assert process.stdout is not None
        printed = itertools.takewhile(lambda line: "Ctrl-C" not in line, process.stdout)
        addresses = re.findall(r"http\S.*", "".join(printed))
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield [addresses[0], addresses[-1]]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
