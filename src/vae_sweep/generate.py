"""Figures from a trained model: ``python -m vae_sweep.generate run=<run id or checkpoint> what=samples``."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_sweep import api
from vae_sweep.base.errors import UserError, escaped
from vae_sweep.base.system import resolve_path
from vae_sweep.config.options import option, run_command

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from vae_sweep.models import VAE
    from vae_sweep.report.latents import Images

WHAT = {  # the images or rows that are drawn unless n= says otherwise, and the most
    "samples": (64, 2048),
    "reconstructions": (64, 2048),
    "interpolation": (8, 256),
    "traversal": (8, 256),
    "encode": (10_000, 10_000_000),
}
ANIMATED = (".gif", ".webp")
FRAMES = 24  # of an animation, there and back
FRAME_SIDE = 256  # pixels of an animation, at least
RANKED = 1000  # test images that the KL of a latent is averaged over


@dataclass
class Options:
    """Draw images from a trained model, or encode images with it."""

    run: str = option(
        "id of a finished run, as the table's last column shows it; its name in the last sweep, such as conv-p1; last; "
        "or path of a checkpoint.pt"
    )
    what: str = option(", ".join(WHAT), "samples")
    n: int | None = option("images; rows of an interpolation; latents of a traversal; null: some", None)
    input: str | None = option(
        "your images, with commas, or a folder of them: to reconstruct or encode, the ends of an interpolation, the "
        "start of a traversal; null: test images, draws from the prior, the prior's mean",
        None,
    )
    seed: int = option("draws the latents, or chooses the test images", 0)
    temperature: float = option("standard deviation of the draws from the prior, whose own is 1", 1.0)
    columns: int = option("images in a row of samples or reconstructions", 8)
    out: str | None = option(
        "the file: .png; .gif or .webp for a moving interpolation or traversal; .csv or .npy of what=encode; "
        "null: in outputs/generated",
        None,
    )
    array: bool = option("true: also the raw uint8 array of the images, beside the figure as .npy", False)
    uri: str | None = option("tracking store of a run id; null: as in training, seen from this folder", None)
    model: str | None = option("the model's class where it is not vae_sweep's own, such as my_vae.MyVAE", None)
    dataset: str | None = option("likewise the data source's class, where test images are needed", None)


def check(options: Options) -> None:
    """Check what types cannot express.

    Raises:
        UserError: for the first bad value.
    """
    if options.what not in WHAT:
        raise UserError(f"what={options.what}: must be one of {', '.join(WHAT)}")
    most = WHAT[options.what][1]
    if options.n is not None and not 1 <= options.n <= most:
        raise UserError(f"n={options.n}: must be a whole number from 1 to {most:,} with what={options.what}")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: must be a whole number from 0 to 2^63 - 1")
    if not 0 <= options.temperature <= 100:
        raise UserError(f"temperature={options.temperature:g}: must be a number from 0 to 100")
    if not 1 <= options.columns <= 256:
        raise UserError(f"columns={options.columns}: must be a whole number from 1 to 256")
    draws = options.what == "samples" or (options.what == "interpolation" and options.input is None)
    if options.temperature != 1 and not draws:
        raise UserError(
            f"temperature={options.temperature:g}: only draws from the prior have one, those of what=samples and of "
            "what=interpolation without input="
        )
    if options.array and options.what == "encode":
        raise UserError("array=true: the table of what=encode holds all; out=<file>.npy writes it as an array")
    if options.what == "samples" and options.input is not None:
        raise UserError(f"input={options.input}: samples are drawn from the prior; give what=reconstructions")
    endings = {"encode": (".csv", ".npy"), "interpolation": (".png", *ANIMATED)}
    allowed = endings | {"traversal": endings["interpolation"]}
    known = allowed.get(options.what, (".png",))
    if options.out and not options.out.lower().endswith(known):
        raise UserError(f"out={options.out}: must end in {' or '.join(known)} with what={options.what}")


def generate(options: Options, root: Path) -> list[Path]:
    """Draw the figure, or encode the images; return the files written.

    Raises:
        UserError: for a run or checkpoint that cannot be read, or a folder that cannot be written.
    """
    check(options)
    model, content = api.open_checkpoint(options.run, root, options.uri, options.model)
    print(api.name_of(content), file=sys.stderr)
    import torch

    from vae_sweep.training.evaluation import inference

    job = _Job(options, root, model, content["config"], content["facts"]["name"], content.get("tags", {}))
    path = _path(options, content, root)
    with torch.no_grad(), inference(torch.device("cpu")):
        made = DRAW[options.what](job)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return made.write(path, options.array)
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}); give another out=") from error


@dataclass
class _Job:
    """What a figure is made of."""

    options: Options
    root: Path
    model: VAE
    config: dict[str, Any]
    name: str
    tags: dict[str, str]  # of a stored run

    @property
    def n(self) -> int:
        return WHAT[self.options.what][0] if self.options.n is None else self.options.n

    @property
    def title(self) -> str:
        return f"{self.name} on {self.config['dataset']['name']}"

    @property
    def facts(self) -> dict[str, bool]:
        """Whether the model knows pixels in a shuffled order."""
        from vae_sweep.datasets.permuted import PERMUTED

        return {PERMUTED: self.config["dataset"].get("permute_pixels", False)}

    def steps(self, still: int) -> int:
        """Images in a row: more where they are the frames of an animation."""
        return FRAMES if str(self.options.out).lower().endswith(ANIMATED) else still

    def shown(self, images: Images) -> Images:
        """Images of any leading shape, unshuffled."""
        from vae_sweep.datasets.permuted import unshuffle

        return unshuffle(images.reshape(-1, *images.shape[-3:]), self.facts).reshape(images.shape)

    @property
    def hot(self) -> str:
        """The temperature in words, where it is not the prior's own."""
        given = self.options.temperature
        return "" if given == 1 else f" of standard deviation {given:g}"

    def images(self, n: int) -> tuple[Images, list[str]]:
        """The images of ``input``, or else ``n`` test images, as the model takes them, and their names."""
        if self.options.input is not None:
            return self._given(self.options.input)
        import numpy as np

        from vae_sweep.report.model_figures import some_of

        options = self.options
        dataset = api.dataset_of(self.config, options.run, self.root, options.dataset)
        api.check_unchanged(dataset, options.run, self.tags)
        if options.n is not None and options.what != "traversal" and n > len(dataset.test):
            raise UserError(f"n={n}: {dataset.name} has {len(dataset.test)} test images; give at most that many")
        if dataset.image_shape != self.model.image_shape:
            raise UserError(
                f"run={options.run}: the model takes images of {self.model.image_shape}, and those of {dataset.name} "
                f"are now {dataset.image_shape}; give input=<your images>"
            )
        numbers = np.arange(len(dataset.test))
        chosen = some_of(numbers, n, options.seed)
        return dataset.test.images[chosen], [f"test image {i}" for i in chosen]

    def _given(self, given: str) -> tuple[Images, list[str]]:
        """Files or folders, with commas: upright, the centre square, resized, as dataset=folder reads them."""
        from vae_sweep.datasets.images import Fit, decode_files, endings
        from vae_sweep.datasets.permuted import pixel_order, reorder

        channels, height, width = self.model.image_shape
        if channels != 3 or height != width:
            raise UserError(
                f"input={given}: the model takes images of {self.model.image_shape}, not square colour ones"
            )
        files: list[tuple[Path, str]] = []  # with their names
        for word in given.split(","):
            path = resolve_path(self.root, word, "input")
            inside = sorted(f for f in path.rglob("*") if f.suffix.lower() in endings()) if path.is_dir() else [path]
            if not inside or not (path.is_dir() or path.is_file()):
                raise UserError(f"input={word}: no {'images in this folder' if path.is_dir() else 'such file'}")
            files += [(file, file.relative_to(path).as_posix() if path.is_dir() else file.name) for file in inside]
        rows = self.options.what == "interpolation"  # between two images each
        most = WHAT[self.options.what][1] + rows if self.options.what != "traversal" else len(files)
        if self.options.n is not None and self.options.what != "traversal":
            files = files[: self.options.n + rows]
        if len(files) > most:
            raise UserError(f"input={given}: {len(files):,} images, at most {most:,}; give n= or fewer")
        images, broken = decode_files([file for file, _ in files], Fit(width), self.model.image_shape, "input images")
        if broken:
            raise UserError(f"input={escaped(broken[0][0])}: {broken[0][1]}; give images that an image viewer opens")
        if any(self.facts.values()):
            images = reorder(images, pixel_order(height, width))
        return images, [escaped(name) for _, name in files]


def _samples(job: _Job) -> _Drawn:
    """Images (n, C, H, W) decoded from prior draws."""
    import torch

    from vae_sweep.report import run_figures
    from vae_sweep.training.evaluation import to_uint8
    from vae_sweep.training.randomness import Stream, generator

    options, source = job.options, generator(job.options.seed, Stream.SAMPLES)
    if options.temperature == 1:
        drawn = job.model.sample(job.n, source)
    else:
        drawn = job.model.decode(options.temperature * torch.randn(job.n, job.model.latent_dim, generator=source))
    images = job.shown(to_uint8(drawn))
    title = f"{job.title}, seed {options.seed}: samples from the prior{job.hot}"
    return _Drawn(run_figures.samples(images, title, options.columns), images)


def _reconstructions(job: _Job) -> _Drawn:
    """Pairs (n, 2, C, H, W) of images and their reconstructions."""
    import numpy as np
    import torch

    from vae_sweep.report import run_figures
    from vae_sweep.training.evaluation import to_float, to_uint8

    images, _ = job.images(job.n)
    decoded = to_uint8(job.model.reconstruct(to_float(torch.from_numpy(images))))
    pairs = job.shown(np.stack([images, decoded], 1))
    whose = "your images" if job.options.input else f"seed {job.options.seed}: test images"
    title = f"{job.title}, {whose} and their reconstructions"
    return _Drawn(run_figures.reconstructions(pairs[:, 0], pairs[:, 1], title, job.options.columns), pairs)


def _interpolation(job: _Job) -> _Drawn:
    """Images (rows, steps, C, H, W) between the given ones, or between prior draws."""
    from vae_sweep.report import latents, run_figures
    from vae_sweep.training.evaluation import interpolate, to_uint8
    from vae_sweep.training.randomness import Stream, generator

    options = job.options
    steps = job.steps(10)
    if options.input is None:
        source = generator(options.seed, Stream.INTERPOLATIONS)
        grid = job.shown(to_uint8(interpolate(job.model, job.n, steps, source, options.temperature)))
        title = f"{job.title}, seed {options.seed}: between two prior draws{job.hot}"
    else:
        images, names = job.images(0)
        if len(images) < 2:
            raise UserError(
                f"input={options.input}: an interpolation needs two images or more, such as input=a.png,b.png"
            )
        grid = job.shown(latents.between(job.model, images, steps))
        title = f"{job.title}: between {' and '.join(names) if len(names) == 2 else f'{len(names)} images'}"
    return _Drawn(run_figures.interpolations(grid, title), grid)


def _traversal(job: _Job) -> _Drawn:
    """Images (latents, steps, C, H, W): one latent moves in each row, those of most KL first."""
    from vae_sweep.report import latents, run_figures

    options = job.options
    images, _ = job.images(RANKED)
    order, kl = latents.by_kl(job.model, images)
    start = images[:1] if options.input else None
    grid, values = latents.traversal(job.model, order[: job.n], start, job.steps(9))
    grid = job.shown(grid)
    rows = [f"latent {i} ({nats:.2f} nats)" for i, nats in zip(order[: job.n], kl, strict=False)]
    title = f"{job.title}: one latent moves in each row"
    return _Drawn(run_figures.image_grid(grid, title, [f"{value:+.3g}" for value in values], rows), grid)


def _encode(job: _Job) -> _Codes:
    from vae_sweep.report import latents

    images, names = job.images(job.n)
    return _Codes(latents.encode(job.model, images).mean.cpu().numpy(), names)


DRAW: dict[str, Callable[[_Job], _Drawn | _Codes]] = {
    "samples": _samples,
    "reconstructions": _reconstructions,
    "interpolation": _interpolation,
    "traversal": _traversal,
    "encode": _encode,
}


@dataclass
class _Drawn:
    figure: Figure
    images: Images  # that it shows

    def write(self, path: Path, array: bool) -> list[Path]:
        """Write the figure, or an animation, and the images beside it; return the files."""
        if path.suffix.lower() in ANIMATED:
            _animate(self.images, path)
        else:
            self.figure.savefig(path, dpi=150)
        if not array:
            return [path]
        import numpy as np

        np.save(path.with_suffix(".npy"), self.images)
        return [path, path.with_suffix(".npy")]


@dataclass
class _Codes:
    means: NDArray[np.float32]  # (n, L), of the posterior
    names: list[str]  # of the images

    def write(self, path: Path, array: bool) -> list[Path]:
        """Write the means as a table or as an array; return the file."""
        if path.suffix.lower() == ".npy":
            import numpy as np

            np.save(path, self.means)
        else:
            import pandas as pd

            table = pd.DataFrame(self.means, columns=[f"z{i}" for i in range(self.means.shape[1])])
            table.insert(0, "image", self.names)
            table.to_csv(path, index=False)
        return [path]


def _animate(grid: Images, path: Path) -> None:
    """All rows (R, T, C, H, W) at once, from the first step to the last and back, without end."""
    import numpy as np
    from PIL import Image

    from vae_sweep.report.style import GAP, mosaic

    columns = math.ceil(math.sqrt(len(grid)))
    frames = []
    for step in [*range(grid.shape[1]), *range(grid.shape[1] - 2, 0, -1)]:
        frame = mosaic(grid[:, step], columns)[:-GAP]
        larger = np.repeat(np.repeat(frame, -(-FRAME_SIDE // frame.shape[1]), 0), -(-FRAME_SIDE // frame.shape[1]), 1)
        frames.append(Image.fromarray(np.broadcast_to(larger, (*larger.shape[:2], 3))))
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=80, loop=0, lossless=True)


def _path(options: Options, content: dict[str, Any], root: Path) -> Path:
    """Return where the file goes; the default names the options that it was made with."""
    if options.out:
        return resolve_path(root, options.out, "out")
    own = {"n": options.n, "temperature": options.temperature, "columns": options.columns, "input": options.input}
    more = [f"{key}={value}"[:100] for key, value in own.items() if value != Options.__dataclass_fields__[key].default]
    label = api.file_name(content, options.what, str(options.seed), *more)
    return root / "outputs" / "generated" / f"{label}.{'csv' if options.what == 'encode' else 'png'}"


def main() -> None:
    """Entry point of ``python -m vae_sweep.generate``."""

    def work(options: Options) -> None:
        print("\n".join(map(str, generate(options, Path.cwd()))))

    run_command("generate", Options, work)


if __name__ == "__main__":
    main()
