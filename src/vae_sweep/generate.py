"""Pictures from a trained model: ``python -m vae_sweep.generate run=<run id or checkpoint> what=samples``."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_sweep.errors import UserError
from vae_sweep.messages import one_line

WHAT = ("samples", "interpolation", "reconstructions")
USAGE = f"""\
usage: python -m vae_sweep.generate run=<run id or path of a checkpoint.pt> [key=value ...]

  what=samples      {", ".join(WHAT)}
  n=64              images; for interpolation, rows of 10 steps
  seed=0            draws the latents, or chooses the test images
  out=null          where the PNG goes; null: outputs/generated/<name>-<what>-<seed>.png
  array=false       true: also the raw uint8 array (n, C, H, W), beside the PNG as .npy
  uri=null          tracking store of a run id; null: as in training, seen from this folder
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


def parse(arguments: list[str]) -> Options:
    """Return the options of a command line.

    Raises:
        UserError: for a key, a type or a value that does not exist.
    """
    known = ", ".join(f.name for f in fields(Options))
    for argument in arguments:
        key, separator, _ = argument.partition("=")
        if not separator or key not in known.split(", "):
            raise UserError(f"{argument}: not an option; write key=value with a key of: {known}")
    try:
        options: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_dotlist(arguments))
        )
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {error.msg}") from error
    if options.run is None:
        raise UserError("run= is missing; give a run id (the table's last column, or `mlflow ui`) or a checkpoint.pt")
    if options.what not in WHAT:
        raise UserError(f"what={options.what}: no such picture; available: {', '.join(WHAT)}")
    if not 1 <= options.n <= 4096:
        raise UserError(f"n={options.n}: must be a whole number from 1 to 4096")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: must be a whole number from 0 to 2^63 - 1")
    return options


def generate(options: Options, root: Path) -> list[Path]:
    """Make the picture; return the files written.

    Raises:
        UserError: for a run or checkpoint that cannot be read, or a folder that cannot be written.
    """
    import numpy as np
    import torch

    from vae_sweep import figures
    from vae_sweep.evaluation import interpolate, to_float, to_uint8
    from vae_sweep.pictures import INTERPOLATIONS, SAMPLES
    from vae_sweep.training import generator

    assert options.run is not None
    model, content = _load(options, root)
    name = content["facts"]["name"]
    where = f"{name} on {content['config']['dataset']['name']}, seed {options.seed}"
    with torch.no_grad():
        if options.what == "samples":
            images = to_uint8(model.sample(options.n, generator(options.seed, SAMPLES)))
            figure = figures.samples(images, f"{where}: samples from the prior")
        elif options.what == "interpolation":
            images = to_uint8(interpolate(model, options.n, generator=generator(options.seed, INTERPOLATIONS)))
            figure = figures.interpolations(images, f"{where}: between two prior draws")
        else:
            originals = _test_images(content["config"], options, root)
            images = to_uint8(model.reconstruct(to_float(torch.from_numpy(originals))))
            figure = figures.reconstructions(originals, images, f"{where}: test images and their reconstructions")
            images = np.stack([originals, images], 1)  # (n, 2, C, H, W)
    source = (
        f"-{options.run[:8]}" if re.fullmatch(r"[0-9a-f]+", options.run) else ""
    )  # a run id tells equal names apart
    label = re.sub(r"[^\w.=-]+", "_", f"{name}{source}-{options.what}-{options.seed}")
    default = root / "outputs" / "generated" / f"{label}.png"
    path = root / Path(options.out).expanduser() if options.out else default
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
    from vae_sweep import checkpoint
    from vae_sweep.stores import store_uri
    from vae_sweep.tracking import Store

    assert options.run is not None
    local = root / Path(options.run).expanduser()
    if local.exists() or local.suffix == ".pt":
        return checkpoint.load(local / "checkpoint.pt" if local.is_dir() else local)
    uri = store_uri(options.uri, root)
    if uri.startswith("sqlite") and not Path(uri.partition("://")[2][1:]).is_file():
        raise UserError(f"run={options.run}: no checkpoint of that name, and no runs are stored here ({uri})")
    store = Store(uri, "")
    run = store.get(options.run)
    with store.artifact(run.run_id, "checkpoint.pt") as path:
        if path is None:
            raise UserError(
                f"run={options.run}: {run.name} is {run.status} and has no checkpoint; give the id of a finished run "
                "(a sweep's own run has none: its table lists those that do)"
            )
        return checkpoint.load(path)


def _test_images(config: dict[str, Any], options: Options, root: Path) -> Any:
    import numpy as np

    from vae_sweep.preparation import prepare

    trained_in = Path(config["paths"]["root"])  # relative data paths meant this folder
    dataset, _ = prepare(OmegaConf.create(config), trained_in if trained_in.is_dir() else root)
    test = dataset.test.images
    if options.n > len(test):
        raise UserError(f"n={options.n}: {dataset.name} has {len(test)} test images; give at most that many")
    return test[np.sort(np.random.default_rng(options.seed).permutation(len(test))[: options.n])]


def main() -> None:
    """Entry point of ``python -m vae_sweep.generate``."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    arguments = sys.argv[1:]
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE)
        sys.exit(0 if arguments else 2)
    try:
        for path in generate(parse(arguments), Path.cwd()):
            print(path)
    except Exception as error:
        message = one_line(error)
        if message is None:
            raise
        sys.exit(message)


if __name__ == "__main__":
    main()
