"""HTML in which text is escaped unless it was made here, and pictures as part of the page."""

from __future__ import annotations

import base64
import html
import io
import warnings

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from vae_sweep.report.style import printable

_VOID = frozenset({"br", "hr", "img", "link", "meta"})


class Html(str):
    """Text that is markup already."""


def text(value: object) -> Html:
    """The value with &, <, > and quotes escaped; control characters and changes of direction are replaced."""
    return value if isinstance(value, Html) else Html(html.escape(printable(str(value))))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element: `class_` is `class`, `data_x` is `data-x`; None leaves an attribute out, True gives it no value."""
    said = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is not None and value is not False:
            said.append(key if value is True else f'{key}="{text(value)}"')
    inner = "".join(text(child) for child in children)
    return Html(f"<{' '.join(said)}>" + ("" if name in _VOID else f"{inner}</{name}>"))


def plot(figure: Figure, alt: str, small: bool = False) -> Html:
    """The figure as an image of 256 colours at most, about a third of a full-colour one's bytes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a box is drawn
        figure.savefig(out, format="png")
    picture = Image.open(out).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
    scale = figure.dpi / 100  # a figure's inch is 100 CSS pixels
    size = {"width": round(picture.width / scale), "height": round(picture.height / scale)}
    return tag("img", src=_uri(picture), alt=alt, class_="plot small" if small else "plot", **size)


def mosaic(images: NDArray[np.uint8], columns: int, alt: str, gap: int = 1) -> Html:
    """Pictures (n, 1 or 3, H, W), n > 0, row by row in their own pixels, transparent between them."""
    n, _, h, w = images.shape
    rows = -(-n // columns)
    canvas = np.zeros((rows * (h + gap) - gap, columns * (w + gap) - gap, 4), np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (h + gap), (i % columns) * (w + gap)
        canvas[top : top + h, left : left + w, :3] = image.transpose(1, 2, 0)  # one channel spreads over three
        canvas[top : top + h, left : left + w, 3] = 255
    size = {"width": canvas.shape[1], "height": canvas.shape[0]}
    return tag("img", src=_uri(Image.fromarray(canvas)), alt=alt, class_="mosaic", **size)


def _uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
