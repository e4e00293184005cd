"""Pictures from a trained model: ``python -m vae_sweep.generate run=<run id or checkpoint> what=samples``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.arguments import options_of
from vae_sweep.config.messages import run_command

WHAT = {"samples": 2048, "interpolation": 256, "reconstructions": 2048}  # and the most that one picture holds
USAGE = f"""\
usage: python -m vae_sweep.generate run=<run id or path of a checkpoint.pt> [key=value ...]

  what=samples      {", ".join(WHAT)}
  n=64              images; for interpolation, rows of 10 steps
  seed=0            draws the latents, or chooses the test images
  out=null          where the PNG goes; null: outputs/generated/<name>-<what>-<seed>.png
  array=false       true: also the raw uint8 array (n, C, H, W), beside the PNG as .npy
  uri=null          tracking store of a run id; null: as in training, seen from this folder
  model=null        the model's class where it is not vae_sweep's own, such as my_vae.MyVAE; its module is imported
  dataset=null      likewise the data source's class, for what=reconstructions
"""


@dataclass
class Options:
    """What to make, from which model."""

    run: str | None = None
    what: str = "samples"
    n: int = 64
    seed: int = 0
    out: str | None = None
    array: bool = False
    uri: str | None = None
    model: str | None = None
    dataset: str | None = None


def parse(arguments: list[str]) -> Options:
    """Return the options of a command line.

    Raises:
        UserError: for a key, a type or a value that does not exist.
    """
    known = [f.name for f in fields(Options)]
    options = Options()
    for key, value in options_of(arguments, known):
        setattr(options, key, _value(key, value))  # as it stands: a run id may look like a number
    if not options.run:
        raise UserError("run= is missing; give a run id (the table's last column, or `mlflow ui`) or a checkpoint.pt")
    if options.what not in WHAT:
        raise UserError(f"what={options.what}: no such picture; available: {', '.join(WHAT)}")
    if not 1 <= options.n <= WHAT[options.what]:
        raise UserError(
            f"n={options.n}: must be a whole number from 1 to {WHAT[options.what]:,} with what={options.what}"
        )
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: must be a whole number from 0 to 2^63 - 1")
    return options


def _value(key: str, text: str) -> str | int | bool | None:
    if key in ("n", "seed"):
        if not re.fullmatch(r"-?\d{1,30}", text, re.ASCII):
            raise UserError(f"{key}={text}: must be a whole number")
        return int(text)
    if key == "array":
        if text.lower() not in ("true", "false"):
            raise UserError(f"{key}={text}: must be true or false")
        return text.lower() == "true"
    return None if text in ("", "null") else text


def generate(options: Options, root: Path) -> list[Path]:
    """Make the picture; return the files written.

    Raises:
        UserError: for a run or checkpoint that cannot be read, or a folder that cannot be written.
    """
    assert options.run is not None
    model, content = _load(options, root)
    import numpy as np
    import torch

    from vae_sweep.datasets.permuted import PERMUTED, unshuffle
    from vae_sweep.report import run_figures
    from vae_sweep.training.evaluation import inference, interpolate, to_float, to_uint8
    from vae_sweep.training.randomness import Stream, generator

    name = content["facts"]["name"]
    where = f"{name} on {content['config']['dataset']['name']}, seed {options.seed}"
    permuted = content["config"]["dataset"].get("permute_pixels", False)

    def shown(images: Any) -> Any:
        return unshuffle(images, {PERMUTED: permuted})

    with torch.no_grad(), inference(torch.device("cpu")):
        if options.what == "samples":
            images = shown(to_uint8(model.sample(options.n, generator(options.seed, Stream.SAMPLES))))
            figure = run_figures.samples(images, f"{where}: samples from the prior")
        elif options.what == "interpolation":
            grid = to_uint8(interpolate(model, options.n, generator=generator(options.seed, Stream.INTERPOLATIONS)))
            images = shown(grid.reshape(-1, *model.image_shape)).reshape(grid.shape)
            figure = run_figures.interpolations(images, f"{where}: between two prior draws")
        else:
            originals = _test_images(content["config"], options, root)
            if originals.shape[1:] != model.image_shape:
                raise UserError(
                    f"run={options.run}: the model takes images of {model.image_shape}, and those of "
                    f"{content['config']['dataset']['name']} are now {originals.shape[1:]}; give what=samples"
                )
            images = shown(to_uint8(model.reconstruct(to_float(torch.from_numpy(originals)))))
            originals = shown(originals)
            figure = run_figures.reconstructions(originals, images, f"{where}: test images and their reconstructions")
            images = np.stack([originals, images], 1)  # (n, 2, C, H, W)
    # A run id tells equal names apart.
    source = f"-{options.run[:8]}" if re.fullmatch(r"[0-9a-f]+", options.run) else ""
    label = re.sub(r"[^\w.=-]+", "_", f"{name}{source}-{options.what}-{options.seed}")
    default = root / "outputs" / "generated" / f"{label}.png"
    path = resolve_path(root, options.out, "out") if options.out else default
    if path.suffix.lower() != ".png":
        raise UserError(f"out={options.out}: must end in .png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        written = [path]
        if options.array:
            np.save(path.with_suffix(".npy"), images)
            written.append(path.with_suffix(".npy"))
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}); give another out=") from error
    return written


def _load(options: Options, root: Path) -> Any:
    assert options.run is not None
    local = resolve_path(root, options.run, "run")
    is_file = local.suffix == ".pt" or os.path.exists(local)
    if not is_file and not re.fullmatch(r"[0-9a-f]{1,32}", options.run):
        raise UserError(f"run={options.run}: no such file, and no run id, which is up to 32 of the signs 0-9 and a-f")
    from vae_sweep.base import plugins
    from vae_sweep.models import VAE
    from vae_sweep.training import checkpoint

    model_class = plugins.find(options.model, VAE, "model") if options.model else None
    if is_file:
        return checkpoint.load(local / "checkpoint.pt" if os.path.isdir(local) else local, model_class)
    from vae_sweep.tracking.store import Store

    missing = f"run={options.run}: no checkpoint of that name, and no runs are stored here"
    store = Store.existing(options.uri, root, missing)
    run = store.get(options.run)
    with store.artifact(run.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(
                f"run={options.run}: {run.name} is {run.status} and has no checkpoint; give the id of a finished run "
                "(a sweep's own run has none: its table lists those that do)"
            )
        return checkpoint.load(path, model_class)


def _test_images(config: dict[str, Any], options: Options, root: Path) -> Any:
    import numpy as np

    from vae_sweep import datasets
    from vae_sweep.base import plugins
    from vae_sweep.sweeps.preparation import source

    try:
        trained_in = Path(config["paths"]["root"])  # relative data paths meant this folder
        home = trained_in if trained_in.is_dir() else root
        node = config["dataset"] | ({"_target_": options.dataset} if options.dataset else {})
        if not options.dataset:
            plugins.require_ours(node, "dataset")
        images = source(node, home)
        cache = home / config["paths"]["data"] / "cache"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"run={options.run}: its configuration does not say what images it was trained on "
            f"({type(error).__name__}: {error}); give what=samples"
        ) from error
    # Another folder's cache is read where there is one; otherwise nothing is written outside of this folder.
    dataset = datasets.load(images, cache if cache.is_dir() else root / "data" / "cache")
    test = dataset.test.images
    if options.n > len(test):
        raise UserError(f"n={options.n}: {dataset.name} has {len(test)} test images; give at most that many")
    return test[np.sort(np.random.default_rng(options.seed).permutation(len(test))[: options.n])]


def main() -> None:
    """Entry point of ``python -m vae_sweep.generate``."""

    def work(arguments: list[str]) -> None:
        for path in generate(parse(arguments), Path.cwd()):
            print(path)

    run_command(USAGE, work)


if __name__ == "__main__":
    main()
