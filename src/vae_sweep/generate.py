"""Figures from a trained model: ``python -m vae_sweep.generate run=<run id or checkpoint> what=samples``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vae_sweep import api
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.options import option, run_command

if TYPE_CHECKING:
    from vae_sweep.datasets import ImageDataset
    from vae_sweep.models import VAE

WHAT = {"samples": 2048, "interpolation": 256, "reconstructions": 2048}  # and the most that one figure holds


@dataclass
class Options:
    """Draw images from a trained model."""

    run: str = option("id of a finished run, as the table's last column shows it, or path of a checkpoint.pt")
    what: str = option(", ".join(WHAT), "samples")
    n: int = option("images; for interpolation, rows of 10 steps", 64)
    seed: int = option("draws the latents, or chooses the test images", 0)
    out: str | None = option("the PNG; null: outputs/generated/<name>-<what>-<seed>.png", None)
    array: bool = option("true: also the raw uint8 array (n, C, H, W), beside the PNG as .npy", False)
    uri: str | None = option("tracking store of a run id; null: as in training, seen from this folder", None)
    model: str | None = option("the model's class where it is not vae_sweep's own, such as my_vae.MyVAE", None)
    dataset: str | None = option("likewise the data source's class, for what=reconstructions", None)


def check(options: Options) -> None:
    """Check what types cannot express.

    Raises:
        UserError: for the first bad value.
    """
    if options.what not in WHAT:
        raise UserError(f"what={options.what}: must be one of {', '.join(WHAT)}")
    most = WHAT[options.what]
    if not 1 <= options.n <= most:
        raise UserError(f"n={options.n}: must be a whole number from 1 to {most:,} with what={options.what}")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: must be a whole number from 0 to 2^63 - 1")
    if options.out and not options.out.lower().endswith(".png"):
        raise UserError(f"out={options.out}: must end in .png")


def generate(options: Options, root: Path) -> list[Path]:
    """Draw the figure; return the files written.

    Raises:
        UserError: for a run or checkpoint that cannot be read, or a folder that cannot be written.
    """
    check(options)
    model, content = api.open_checkpoint(options.run, root, options.uri, options.model)
    import numpy as np
    import torch

    from vae_sweep.datasets.permuted import PERMUTED
    from vae_sweep.report.model_figures import FIGURES, Trained, some_of
    from vae_sweep.training.evaluation import inference

    config, name = content["config"], content["facts"]["name"]
    originals = None
    if options.what == "reconstructions":
        dataset = api.dataset_of(config, options.run, root, options.dataset)
        _check_images(dataset, model, options)
        originals = some_of(dataset.test.images, options.n, options.seed)
    trained = Trained(
        model,
        f"{name} on {config['dataset']['name']}, seed {options.seed}",
        options.seed,
        n_samples=options.n,
        n_interpolations=options.n,
        originals=originals,
        facts={PERMUTED: config["dataset"].get("permute_pixels", False)},
    )
    with torch.no_grad(), inference(torch.device("cpu")):
        drawn = FIGURES[{"interpolation": "interpolations"}.get(options.what, options.what)](trained)
    path = _path(options, name, root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.figure.savefig(path, dpi=150)
        if options.array and drawn.images is not None:
            np.save(path.with_suffix(".npy"), drawn.images)
    except OSError as error:
        raise UserError(f"out={path}: cannot be written ({error.strerror}); give another out=") from error
    return [path, *([path.with_suffix(".npy")] if options.array else [])]


def _check_images(dataset: ImageDataset, model: VAE, options: Options) -> None:
    n_test = len(dataset.test)
    if options.n > n_test:
        raise UserError(f"n={options.n}: {dataset.name} has {n_test} test images; give at most that many")
    if dataset.image_shape != model.image_shape:
        raise UserError(
            f"run={options.run}: the model takes images of {model.image_shape}, and those of {dataset.name} are now "
            f"{dataset.image_shape}; give what=samples"
        )


def _path(options: Options, name: str, root: Path) -> Path:
    """Return where the PNG goes; the default names the run id, since several runs may share a name."""
    if options.out:
        return resolve_path(root, options.out, "out")
    run = f"-{options.run[:8]}" if re.fullmatch(r"[0-9a-f]+", options.run) else ""
    label = re.sub(r"[^\w.=-]+", "_", f"{name}{run}-{options.what}-{options.seed}")
    return root / "outputs" / "generated" / f"{label}.png"


def main() -> None:
    """Entry point of ``python -m vae_sweep.generate``."""

    def work(options: Options) -> None:
        print("\n".join(map(str, generate(options, Path.cwd()))))

    run_command("generate", Options, work)


if __name__ == "__main__":
    main()
