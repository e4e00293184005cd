"""CIFAR-10 as a folder of JPEG files: ``python -m vae_sweep.datasets.jpeg data cifar10-jpeg``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from PIL import Image

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.cifar10 import Cifar10

QUALITY = 75  # Pillow's default


def write(root: Path, folder: Path) -> int:
    """Write ``folder``/train|test/<class>/<number>.jpg from the CIFAR-10 in ``root``; return how many images.

    The number is the image's place in its split. The folder appears when it is complete.

    Raises:
        UserError: where CIFAR-10 is not there and cannot be downloaded, or ``folder`` exists or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder}: exists; give the name of a folder that does not")
    train, test, classes = Cifar10(root=str(root)).read()
    unfinished, n = folder.with_name(f"{folder.name}.tmp"), 0
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        for name, split in (("train", train), ("test", test)):
            for label in classes:
                (unfinished / name / label).mkdir(parents=True)
            for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
                path = unfinished / name / classes[label] / f"{i:05d}.jpg"
                Image.fromarray(image.transpose(1, 2, 0)).save(path, quality=QUALITY)
                n += 1
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); give another folder") from error
    return n


def main() -> None:
    """Entry point of ``python -m vae_sweep.datasets.jpeg``."""
    parser = argparse.ArgumentParser(description=f"CIFAR-10 as JPEG files of quality {QUALITY}, a folder a class.")
    parser.add_argument("root", nargs="?", default="data", help="where CIFAR-10 is, or is downloaded to (data)")
    parser.add_argument("folder", nargs="?", default="cifar10-jpeg", help="where to write (cifar10-jpeg)")
    given = parser.parse_args()
    try:
        print(f"{write(Path(given.root), Path(given.folder)):,} images in {given.folder}")
    except UserError as error:
        sys.exit(f"vae_sweep: {error}")


if __name__ == "__main__":
    main()
