"""The slider page ``explore.html``: models decode in the browser what its sliders, its map and its walk ask for.

One file without a network. A decoder that :func:`vae_sweep.training.program.record` takes runs in the page; of any
other one the page holds pictures, decoded beforehand.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch.nn import functional as F

from vae_sweep.base.errors import UserError, first_line
from vae_sweep.datasets import Split
from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.metrics.latents import encode, kl_per_latent
from vae_sweep.models.vae import VAE
from vae_sweep.report import style
from vae_sweep.training.evaluation import to_uint8
from vae_sweep.training.program import NotExportable, Program, record

N_IMAGES = 300  # test images on the map
N_WALK = 6  # of them, between which one walks
N_SLIDERS = 8  # latents, those of most KL
REACH = 3.0  # sliders go from -3 to 3: the prior has standard deviation 1
STEPS = 9  # pictures on a slider, on a walk and on each side of the map, where they are decoded beforehand
N_PRIOR = 16  # prior draws decoded beforehand
MAX_LIVE = 8_000_000  # bytes of one decoder's weights as float16
MAX_PAGE = 25_000_000  # characters of the page
MAX_SIDE = 64  # pixels of a picture decoded beforehand, and of a test image

Floats = NDArray[np.float64]
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """A trained model, and the test images that it is explored with."""

    title: str
    loss: str  # below its pictures
    data: str  # name of the dataset
    model: VAE
    test: Split
    facts: Mapping[str, Any]  # of the dataset


@dataclass(frozen=True)
class Explorer:
    """The page, and what it holds in words."""

    html: str
    models: int
    said: str
    complete: bool = True  # it shows all models that it was asked for


def explorer(title: str, subjects: Iterable[Subject], total: int = 0) -> Explorer:
    """Return the page; models that it cannot show are left out, and named in ``said`` with the reason.

    ``total``: how many models there are; the page says where it shows fewer.
    """
    pictures: dict[str, dict[str, Any]] = {}  # what models share: test images and their classes
    models: list[dict[str, Any]] = []
    left_out, room = [], MAX_PAGE - 100_000  # its script and style
    for subject in subjects:
        try:
            shared = _pictures(subject)
            key = shared["src"] + json.dumps(shared["labels"])
            found = _model(subject, room - (0 if key in pictures else len(key)))
        except Exception as error:  # whatever a user's own model raises, the others are shown
            left_out.append(f"{subject.title} ({_reason(error)})")
            continue
        room -= len(json.dumps(found)) + (0 if key in pictures else len(key))
        pictures.setdefault(key, shared)
        models.append(found | {"pictures": list(pictures).index(key)})
    data = {"pictures": list(pictures.values()), "models": models}
    environment = Environment(loader=PackageLoader("vae_sweep.report"), autoescape=True, undefined=StrictUndefined)
    html = environment.get_template("explore.html.jinja").render(
        title=style.printable(title), data=data, shown=len(models), total=total
    )
    live = sum("program" in model for model in models)
    said = f"{live} decoded live, {len(models) - live} from pictures, {len(html.encode()) / 1e6:.1f} MB"
    said += f"; left out: {', '.join(left_out)}" if left_out else ""
    return Explorer(html, len(models), said, complete=len(models) >= total)


def _model(subject: Subject, room: int) -> dict[str, Any]:
    """What the page knows of a model: where its latents lie, and its decoder or pictures of it.

    Raises:
        UserError: where that takes more than ``room`` characters, or where its latents are not finite.
    """
    model, chosen = subject.model, _chosen(subject.test)
    with np.errstate(all="ignore"):  # what is not finite is refused below
        codes = encode(model, torch.from_numpy(subject.test.images[chosen]))
        kl = kl_per_latent(codes)
    if not (np.isfinite(codes.mean).all() and np.isfinite(kl).all()):
        raise UserError("its latents are not finite")
    walk = codes.mean[_walk(subject.test.labels[chosen])]
    top = np.argsort(-kl, kind="stable")[:N_SLIDERS]
    center, axes, share = _principal(codes.mean)
    points = (codes.mean - center) @ axes.T
    extent = max(1.0, 1.1 * float(np.abs(points).max()))
    found = {
        "title": style.printable(subject.title),
        "loss": style.printable(subject.loss),
        "shape": model.image_shape,
        "latents": model.latent_dim,
        "top": [{"latent": int(k), "kl": round(float(kl[k]), 3)} for k in top],
        "map": {"center": _short(center), "axes": _short(axes), "points": _short(points), "extent": extent}
        | {"share": round(share, 3)},
        "walk": _short(walk),
    }
    frames = _Frames(top, walk, center, axes, extent, model.latent_dim)
    latents = torch.from_numpy(np.concatenate([frames.latents[:: len(frames.latents) // 40], walk])).float()
    reason = "its decoder is too large for this page"
    try:
        program = record(model, latents, subject.facts)
        live = found | {"program": _program(program)}
        if program.weights.nbytes <= MAX_LIVE and len(json.dumps(live)) <= room:
            return live
    except Exception as error:  # a user's own may refuse to be recorded in any way
        reason = _reason(error)
    found |= {"frames": {"reason": style.printable(reason), **frames.pictures(subject)}}
    if len(json.dumps(found)) > room:
        raise UserError("no room")
    return found


def _reason(error: Exception) -> str:
    known = isinstance(error, (UserError, NotExportable))
    return str(error) if known else f"{type(error).__name__}: {first_line(error)}"


class _Frames:
    """The latents of the pictures that stand for a decoder, (N, L), in the order that the page's script knows.

    For each slider ``STEPS`` values, the other latents 0; for each pair of images ``STEPS`` steps between them;
    ``STEPS`` rows of the map, the lowest first; draws from the prior; 0.
    """

    def __init__(
        self, top: NDArray[np.intp], walk: Floats, center: Floats, axes: Floats, extent: float, latent_dim: int
    ) -> None:
        t = np.linspace(0, 1, STEPS)[:, None]
        places = np.linspace(-extent, extent, STEPS)
        self.top = top
        self.latents = np.concatenate(
            [
                np.concatenate([np.linspace(-REACH, REACH, STEPS)[:, None] * row for row in np.eye(latent_dim)[top]]),
                *((1 - t) * a + t * b for a, b in itertools.combinations(walk, 2)),
                np.array([center + x * axes[0] + y * axes[1] for y in places for x in places]),
                np.random.default_rng(0).standard_normal((N_PRIOR, latent_dim)),
                np.zeros((1, latent_dim)),
            ]
        )
        self.at = (self.latents - center) @ axes.T

    @torch.no_grad()
    def pictures(self, subject: Subject) -> dict[str, Any]:
        """All of them in one PNG, and the values of the sliders and the place on the map that belong to each."""
        batches = torch.from_numpy(self.latents).float().split(64)
        images = [_small(unshuffle(to_uint8(subject.model.decode(z)), subject.facts)) for z in batches]
        known = {"sliders": _short(self.latents[:, self.top]), "at": _short(self.at)}
        return known | {"steps": STEPS, "prior": N_PRIOR, **_sheet(np.concatenate(images))}


def _pictures(subject: Subject) -> dict[str, Any]:
    """The test images of a model as one PNG, their classes, and between which of them one walks."""
    chosen = _chosen(subject.test)
    labels = subject.test.labels[chosen]
    classes = [style.printable(str(name)) for name in subject.facts.get("classes", [])]
    known = len(classes) > 0 and labels.min() >= 0 and labels.max() < len(classes)
    return {
        "name": style.printable(subject.data),
        **_sheet(_small(unshuffle(np.asarray(subject.test.images[chosen]), subject.facts))),
        "labels": labels.tolist() if known else [],
        "classes": classes if known else [],
        "walk": _walk(labels),
    }


def _chosen(test: Split) -> NDArray[np.intp]:
    """Indices of at most :data:`N_IMAGES` of the test images, the same ones for every model."""
    return np.sort(np.random.default_rng(0).permutation(len(test))[:N_IMAGES])


def _walk(labels: NDArray[np.int64]) -> list[int]:
    """Indices of :data:`N_WALK` images or fewer, of different classes first."""
    first = np.unique(labels, return_index=True)[1].tolist()
    return list(dict.fromkeys([*sorted(first), *range(len(labels))]))[:N_WALK]


def _principal(means: Floats) -> tuple[Floats, Floats, float]:
    """Mean (L,), first two principal axes (2, L) and their share of the variance of points (N, L)."""
    center = means.mean(0)
    variances, columns = np.linalg.eigh(np.atleast_2d(np.cov(means, rowvar=False, bias=True)))  # ascending
    axes = np.zeros((2, means.shape[1]))
    axes[: len(variances)] = columns.T[:-3:-1]
    total = float(variances.sum())
    return center, axes, float(variances[-2:].sum()) / total if total else 0.0


def _program(program: Program) -> dict[str, Any]:
    weights = base64.b64encode(program.weights.astype("<f2").tobytes()).decode()
    return {"operations": program.operations, "weights": weights}


def _sheet(images: Images) -> dict[str, Any]:
    """Images (N, C, H, W) as one PNG: ``columns`` in a row, of ``width`` x ``height`` pixels each."""
    n, c, height, width = images.shape
    columns = min(16, n)
    grid = style.mosaic(images, columns, gap=0)
    out = io.BytesIO()
    Pillow.fromarray(grid[..., 0] if c == 1 else grid).save(out, format="PNG")
    src = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    return {"src": src, "n": n, "columns": columns, "width": width, "height": height}


def _small(images: Images) -> Images:
    """Images (N, C, H, W) with sides of at most :data:`MAX_SIDE` pixels."""
    shrink = max(images.shape[2:]) / MAX_SIDE
    if shrink <= 1:
        return images
    size = [max(1, round(side / shrink)) for side in images.shape[2:]]
    return F.interpolate(torch.from_numpy(images).float(), size, mode="area").round().byte().numpy()


def _short(values: Floats) -> list[Any]:
    return np.round(values, 4).tolist()
