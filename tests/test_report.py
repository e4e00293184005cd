"""The report: whole, honest about what is missing, safe from names, and readable in a browser without a network."""

from __future__ import annotations

import base64
import html
import io
import re
import shutil
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evidence_examples as examples
from vae_sweep.comparison.evidence import Evidence
from vae_sweep.comparison.sentences import answer
from vae_sweep.report import page as report
from vae_sweep.report import presentation as show
from vae_sweep.report import publish

VOID = {"br", "hr", "img", "link", "meta", "source"}
NAN = float("nan")


class Page(HTMLParser):
    """Tags with their attributes, texts by the tag they stand in, and whether every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data + " "

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    def text(self) -> str:
        return " ".join(data for tag, data in self.texts if tag != "style")


POOR = examples.poor()
SMALL = examples.full(("shapes",), sets=("p1",), seeds=(0, 1), side=8)


@cache
def poor_page(name: str) -> Page:
    return Page(report.html(POOR[name]))


@pytest.fixture(scope="module")
def full() -> Evidence:
    return examples.mixed()


@pytest.fixture(scope="module")
def written(full: Evidence) -> str:
    return report.html(full, {"test/kl": "KL(q(z|x) || N(0, I)), summed over latents"})


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


def test_one_file_without_network_or_script(written: str, page: Page) -> None:
    assert len(written.encode()) < 8e6
    assert not page.of("script")
    assert not page.of("iframe")
    for tag, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")], tag
        for key in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(key) or "data:").startswith("data:"), tag
    style = "".join(text for tag, text in page.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style


def test_images_are_whole_and_have_a_text(page: Page) -> None:
    images = page.of("img")
    assert len(images) > 20
    narrow = page.of("source")
    assert len(narrow) > 10
    for source in (*(image["src"] for image in images), *(image["srcset"] for image in narrow)):
        kind, _, data = (source or "").partition(";base64,")
        assert kind == "data:image/png"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()
    assert all(len(attributes["alt"] or "") > 10 for attributes in images)


def pixels(page: Page, alt: str) -> np.ndarray:
    """The first image with this text."""
    found = next(a["src"] or "" for a in page.of("img") if a["alt"] == alt)
    return np.array(Image.open(io.BytesIO(base64.b64decode(found.partition(",")[2]))))


def test_samples_are_those_of_the_lowest_seed_pixel_by_pixel(full: Evidence, page: Page) -> None:
    mosaic = pixels(page, "samples from the prior of fc, p1, seed 0")
    images = full.samples["fc-p1-s0 cifar10-jpeg"]
    assert (mosaic[:32, :32, :3] == images[0].transpose(1, 2, 0)).all()
    assert (mosaic[33:65, 33:65, :3] == images[9].transpose(1, 2, 0)).all()
    assert (mosaic[:, 32, 3] == 0).all()
    assert mosaic.shape[:2] == (2 * 33 - 1, 8 * 33 - 1)  # 16 images in rows that fill


def test_real_images_and_the_linear_vae_stand_beside_samples_and_above_reconstructions(
    full: Evidence, page: Page
) -> None:
    alts = [a["alt"] for a in page.of("img")]
    pairs = full.reconstructions["conv-p2-s0 cifar10-jpeg"]
    samples = alts.index("samples from the prior of fc, p1, seed 0")
    assert alts[samples - 2 : samples] == ["real test images", "linear (closed form)"]
    strips = [
        "test images",
        "reconstructions by linear (closed form)",
        "reconstructions of the same images by fc, p1, seed 0",
    ]
    assert alts[alts.index("test images") :][:3] == strips
    first = pairs[0].transpose(0, 2, 3, 1)
    assert (pixels(page, "real test images")[:32, :32, :3] == first[0]).all()
    assert (pixels(page, "test images")[:, :32, :3] == first[0]).all()
    made = pixels(page, "reconstructions of the same images by conv, p2, seed 0")
    assert (made[:, :32, :3] == first[1]).all()
    linear = pixels(page, "linear (closed form)")
    assert (linear[:32, :32, :3] == full.linear_samples["cifar10-jpeg"][0].transpose(1, 2, 0)).all()
    linear = pixels(page, strips[1])
    assert (linear[:, :32, :3] == full.linear_reconstructions["cifar10-jpeg"][0].transpose(1, 2, 0)).all()


def test_runs_that_kept_no_reconstructions_leave_that_part_out() -> None:
    older = Page(report.html(replace(SMALL, reconstructions={}, linear_samples={}, linear_reconstructions={})))
    assert "Reconstructions" not in [text for tag, text in older.texts if tag == "h3"]
    assert "samples from the prior of fc, p1, seed 0" in [a["alt"] for a in older.of("img")]


def test_the_answer_comes_first_then_pictures_then_numbers(full: Evidence, written: str, page: Page) -> None:
    headings = [text for tag, text in page.texts if tag in ("h2", "h3")]
    parts = ["Samples", "Reconstructions", "Interpolations", "Curves", "Results"]
    first, second = examples.DATASETS
    assert headings[:13] == [first, *parts, second, *parts, "Details"]
    assert {tag for tag, text in page.texts if text.startswith("Statistics: ")} == {"summary"}
    assert not [attributes for attributes in page.of("details") if "open" in attributes]
    before = written[: written.index("<details>")]
    for contrast in full.contrasts:
        if contrast.metric.primary:
            said = html.escape(answer(contrast, show.level(full, contrast)), quote=False).replace("'", "&#39;")
            assert said in before
    assert not re.search(r"\bp = |Holm|d_z", before)  # no test before the folds


def test_every_primary_sentence_stands_in_the_statistics(full: Evidence, written: str) -> None:
    folded = html.unescape(written[written.index("<details>") :])
    primary = [contrast for contrast in full.contrasts if contrast.metric.primary]
    assert len(primary) == 4
    for contrast in primary:
        assert f"<p>{contrast.sentence}</p>" in folded
        assert f">{contrast.b} against {contrast.a}: {contrast.verdict}</span>" in folded
    assert not [c for c in full.contrasts if not c.metric.primary and c.sentence in written]


def test_pairs_that_no_baseline_asks_for_stand_in_the_table_alone() -> None:
    other = replace(SMALL.contrasts[0], a="fc_skip", b="fc_res", planned=False, sentence="Nobody asked.")
    told = replace(SMALL, contrasts=(*SMALL.contrasts, other))
    text = html.unescape(report.html(told))
    assert f": fc_skip − fc_res on {other.dataset}" in text
    assert "Nobody asked." not in text + "".join(publish.verdicts(told))
    assert "fc_skip" not in text[: text.index("<details>")]
    assert publish.brief_verdicts(told) == publish.brief_verdicts(SMALL)


def test_where_no_baseline_asks_all_pairs_are_answered(full: Evidence) -> None:
    told = replace(full, contrasts=tuple(replace(c, planned=False) for c in full.contrasts))
    assert len(told.questions) == len(full.questions) == 4


def test_the_description_of_a_sweep_holds_verdicts_and_runs(full: Evidence) -> None:
    """Each verdict is bold by itself; many leave room for the table."""
    several = publish.note(full)
    lead = several[: several.index(publish.PICTURES)].strip().split("\n\n")
    assert [line[:2] + line[-2:] for line in lead] == ["****"] * len(publish.brief_verdicts(full))
    many = publish.note(replace(full, contrasts=full.contrasts * 20))
    assert len(many) <= 8000
    assert re.search(r"\.\.\. and \d+ more: see report.html", many)
    assert publish.PICTURES in many
    assert "\n| --- |" in many


def test_one_seed_is_said_once_and_empty_columns_are_left_out() -> None:
    page = poor_page("one seed")
    text = page.text()
    assert len(re.findall("(?i)one seed", text)) == 1
    assert "One seed per cell: differences may be noise; add seed=0,1,2." in text
    heads = [[" ".join(cell.split()) for cell in row] for row in page.rows if "Pairs" in " ".join(row)]
    assert heads[0] == ["Set", "Pairs", "Mean difference", "SD", "p", "Holm p", "Smallest p", "d_z", "P(b better)"]
    assert "Status" not in {cell.strip() for row in page.rows for cell in row}
    assert "status FINISHED" in text  # once, below the table of runs


def test_the_caption_counts_the_epochs_above_the_axis(full: Evidence, page: Page) -> None:
    said = re.findall(r"Above the axis, [a-z ]+: (\d+) of the (\d+) epochs", page.text())
    epochs = [sum(len(y) for name, (_, y) in full.histories.items() if name.endswith(d)) for d in examples.DATASETS]
    assert [int(n) for _, n in said] == epochs
    assert all(0 < int(above) < int(n) / 2 for above, n in said)


def test_a_missing_primary_metric_and_the_time_are_said() -> None:
    told = replace(SMALL, missing="install vae-sweep[fd]", when="Sweep 05480f90: 2026-11-26 01:33 UTC, 21 s.")
    text = report.html(told)
    before = text[: text.index("<h3>Samples")]
    assert "(the kernel distance, KD) was not measured: install vae-sweep[fd]." in before
    assert "2026-11-26 01:33 UTC, 21 s." in before
    assert publish.brief_verdicts(told)[-1].endswith(" was not measured: install vae-sweep[fd].")
    assert publish.brief_verdicts(told)[:-1] == publish.brief_verdicts(SMALL)


def test_tables_hold_every_group(full: Evidence, page: Page) -> None:
    cells = {re.sub(r"\s+", " ", cell.replace("−", "-")).strip() for row in page.rows for cell in row}
    for metric in full.metrics:
        for group in full.groups[metric.key]:
            d = metric.digits
            said = f"{group.mean:.{d}f} ± {group.sd:.{d}f} [{group.low:.{d}f}, {group.high:.{d}f}]"
            said = re.sub(r"-(0\.0*)(?!\d)", r"\1", said)
            assert [cell for cell in cells if cell.startswith(said)], (metric.key, said)


def test_paired_differences_are_the_numbers_of_the_contrasts(full: Evidence, page: Page) -> None:
    head = next(row for row in page.rows if "d_z" in " ".join(row))
    assert [cell.strip() for cell in head[6:9]] == ["p", "Holm p", "Smallest p"]
    lines = [[cell.replace("−", "-").strip() for cell in row] for row in page.rows]
    overall = [line for line in lines if line[:1] == ["all sets"]]
    ordered = sorted(full.contrasts, key=lambda c: not c.metric.primary)  # the table of primary metrics comes first
    assert len(overall) == len(ordered) == 24
    for line, c in zip(overall, ordered, strict=True):
        d = c.metric.digits
        assert line[1:4] == [str(c.n), f"{c.mean:+.{d}f}", f"{c.sd:.{d}f}"]
        assert line[4] == re.sub(r"-(0\.0*)(?!\d)", r"\1", f"[{c.low:.{d}f}, {c.high:.{d}f}]")
        assert float(line[6]) == pytest.approx(c.p, rel=0.05)
        assert float(line[-3]) == pytest.approx(c.p_least, rel=0.05)
        assert len(line) == (11 if c.metric.primary else 10)  # others have no Holm p, and no column of it
    sets = [line for line in lines if line[:1] == ["p1"] and len(line) in (len(head), len(head) - 1)]
    assert len(sets) == 24
    assert [line[1] for line in sets[:2]] == ["3", "3"]  # of five pairs, one run failed and one was killed


def test_every_seed_of_every_run_can_be_read(full: Evidence, page: Page) -> None:
    by_name: dict[str, list[str]] = {}  # in the table of facts, then in those of metrics
    for row in page.rows:
        by_name.setdefault(row[0].strip(), []).extend(cell.replace("−", "-").strip() for cell in row)
    assert len(full.rows) == 61
    for row in full.rows:
        line = by_name[row.name]
        assert line[1].startswith(row.status)
        for metric in full.metrics:
            value = row.metrics.get(metric.key)
            assert value is None or f"{value:.{metric.digits}f}" in line
    assert "UserError: the disk is full" in " ".join(by_name["fc-p1-s3 cifar10-jpeg"])


def test_the_linear_reference_ends_every_table_and_fills_its_columns(full: Evidence, page: Page) -> None:
    lines = [row for row in page.rows if row and "linear (closed form)" in row[0]]
    tables = len(page.of("table")) - 3  # paired differences, in two tables, and the facts of runs have none
    assert len(lines) == tables * 2 - 2  # two datasets; each has its own main table
    assert all("128 or 256 latents" in row[0] for row in lines)
    said = " ".join(" ".join(row) for row in lines)
    for metric in full.metrics:
        if metric.key in examples.LINEAR:
            assert said.count(f"{examples.LINEAR[metric.key]:.{metric.digits}f}") >= 4, metric.key


def test_partners_are_side_by_side_and_networks_are_not_merged(page: Page) -> None:
    heads = [" ".join(row) for row in page.rows if "higher is better" in " ".join(row)]
    assert [head for head in heads if re.search(r"precision\s+higher is better\s+recall\s+higher", head)]
    assert [head for head in heads if re.search(r"density\s+higher is better\s+coverage\s+higher", head)]
    assert [row for row in page.rows if "(fd/effnet)" in " ".join(row) and "(fd/inception)" in " ".join(row)]


def test_what_did_not_finish_is_counted(page: Page) -> None:
    text = page.text()
    assert "61 runs: 58 finished, 1 failed, 1 killed, 1 pending." in text
    assert "3 of 5: 1 FAILED, 1 KILLED" in text
    assert "0 of 1: 1 PENDING" in text
    assert "4 of 5 runs" in text  # the metric that one run lacks


def test_meanings_notes_and_versions_end_the_page(full: Evidence, page: Page) -> None:
    text = page.text()
    end = text[text.rindex("What each metric means") :]
    for metric in full.metrics:
        assert metric.key in end
    for said in (*full.notes, *full.facts, *full.facts.values(), *full.sweeps, "summed over latents. nats/image"):
        assert said in end


@pytest.mark.parametrize("name", POOR)
def test_poor_evidence_makes_a_page(name: str) -> None:
    page = poor_page(name)
    said = {
        "no run": "No run is known.",
        "nothing finished": "No run has finished yet",
        "one run": "Only fc has finished runs: a comparison needs two models.",
        "one model": "Only fc has finished runs: a comparison needs two models.",
        "one seed": "It is open which of conv and fc reconstructs and compresses better",
    }
    assert said[name] in page.text()
    assert ("One seed per cell: differences may be noise" in page.text()) == (name in ("one run", "one seed"))
    assert bool(page.of("img")) == (name not in ("no run", "nothing finished"))


def test_numbers_that_are_not_finite_are_shown_as_such() -> None:
    poor = POOR["one seed"]
    rows = [replace(row, metrics=row.metrics | {"test/loss": NAN}) for row in poor.rows[:1]] + list(poor.rows[1:])
    group = replace(poor.groups["test/loss"][0], values=(NAN,), mean=NAN)
    changed = replace(
        poor, rows=tuple(rows), groups=poor.groups | {"test/loss": (group, *poor.groups["test/loss"][1:])}
    )
    assert "nan" in [cell.split()[0] for row in Page(report.html(changed)).rows for cell in row if cell.strip()]


def test_hostile_names_stay_text() -> None:
    hostile, nasty = examples.hostile()
    hostile = replace(hostile, controls=(nasty,), data={nasty: (nasty,)})
    text = report.html(hostile, {"test/loss": nasty})
    page = Page(text)
    text.encode()
    assert "<img src=x" not in text
    assert not [a for a in page.of("img") if not (a["src"] or "").startswith("data:")]
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert page.text().count(examples.NASTY) > 20
    assert "\x00" not in text
    assert "\u202e" not in text


def test_equal_words_for_two_sets_stay_two_cells() -> None:
    poor = POOR["one seed"]
    longer = {
        key: tuple(replace(g, params=g.params + " [batch 64]") if g.params == "p1" else g for g in groups)
        for key, groups in poor.groups.items()
    }
    text = Page(report.html(replace(poor, groups=longer))).text()
    assert "p1 [batch 64]" in text
    assert "0 of" not in text  # each run is in its group's row, none is left over


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed")
@pytest.mark.parametrize("sandboxed", [False, True], ids=["from disk", "in a sandboxed frame"])
def test_a_browser_shows_it_from_disk(written: str, tmp_path: Path, sandboxed: bool) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    name = tmp_path / "report.html"
    name.write_text(written, encoding="utf-8")
    if sandboxed:  # as MLflow's artifact viewer shows a page
        name = tmp_path / "viewer.html"
        frame = f'<iframe sandbox="allow-scripts" width="800" height="500" srcdoc="{html.escape(written)}"></iframe>'
        name.write_text(f'<!DOCTYPE html><link rel="icon" href="data:,"><title>viewer</title>{frame}', encoding="utf-8")
    problems: list[str] = []
    requests: list[str] = []
    with playwright.sync_playwright() as started:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=BROWSER, args=flags)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(name.as_uri(), wait_until="load")
        frame = page.frames[-1]
        frame.wait_for_selector("h1")
        widths = frame.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
        wide = frame.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        title = frame.evaluate("document.querySelector('h1').textContent")
        browser.close()
    assert title == "fc against conv"
    assert problems == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "about:"))] == []
    assert len(widths) > 20
    assert min(widths) > 0
    assert wide <= 0  # tables scroll by themselves, the page does not
