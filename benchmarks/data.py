"""Pictures from files, against torchvision's way: ``python benchmarks/data.py``.

Draws two sets of JPEG files: as many of 178x218 pixels as 30 % of CelebA's training pictures, soft colour fields with
noise whose files are about as large as CelebA's, and 60,000 of 32x32 pixels in class folders. Each is read

- by the project with nothing prepared: every picture decoded once, into one array
- by the project again, as every later start does: the files' names, sizes and times, and the array's checksum
- by torchvision's ImageFolder with the same crop and resizing and ToTensor, in a DataLoader without worker processes
  and with two: what a training loop over the files pays in every epoch

Times are of all pictures of the set; core time includes threads and worker processes. The files were just written, so
they come from memory rather than from a disk. PyTorch has one thread; the project decodes with as many as pay.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import itertools
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import common
from common import Cost
from vae_sweep import datasets
from vae_sweep.base.system import available_cores
from vae_sweep.sweeps.source import source

CELEBA = 48_831  # 30 % of the training pictures
CELEBA_SIZE = (178, 218)  # width and height, pixels
FIELD = (9, 11)  # points that a colour field is drawn from
NOISE = 5.0  # its standard deviation, of 255
PATTERNS = 64  # of noise that differ
QUALITY = 85  # of the large JPEGs
SMALL_QUALITY = 90
CLASSES = 10  # folders of the small ones
BATCH = 128  # pictures that a DataLoader hands on at once
CHUNK = 500  # pictures that a thread draws with one generator


def draw_celeba(root: Path, n: int) -> float:
    """Write ``n`` pictures in CelebA's layout and a partition of 80, 10 and 10 %; return a file's mean size in KB."""
    pictures = root / "celeba" / "img_align_celeba"
    pictures.mkdir(parents=True)
    width, height = CELEBA_SIZE
    noise = np.random.default_rng(0).normal(0, NOISE, (PATTERNS, height, width, 1)).astype(np.float32)

    def write(start: int) -> int:
        rng, size = np.random.default_rng([1, start]), 0
        for i in range(start, min(start + CHUNK, n)):
            field = Image.fromarray(rng.integers(0, 256, (FIELD[1], FIELD[0], 3), np.uint8))
            smooth = np.asarray(field.resize(CELEBA_SIZE, Image.Resampling.BICUBIC), np.float32)
            picture = (smooth + noise[rng.integers(PATTERNS)]).clip(0, 255).astype(np.uint8)
            path = pictures / f"{i + 1:06d}.jpg"
            Image.fromarray(picture).save(path, quality=QUALITY)
            size += path.stat().st_size
        return size

    with ThreadPoolExecutor(available_cores()) as pool:
        total = sum(pool.map(write, range(0, n, CHUNK)))
    codes = [0 if i < 0.8 * n else 1 if i < 0.9 * n else 2 for i in range(n)]
    lines = [f"{i + 1:06d}.jpg {code}" for i, code in enumerate(codes)]
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return total / n / 1e3


def draw_folder(root: Path, n: int) -> float:
    """Write ``n`` pictures of 32x32 pixels in class folders; return a file's mean size in KB."""
    for i in range(CLASSES):
        (root / f"class{i}").mkdir(parents=True)
    size = 0
    for i, picture in enumerate(common.pictures(n).permute(0, 2, 3, 1).numpy()):
        path = root / f"class{i % CLASSES}" / f"{i:06d}.jpg"
        Image.fromarray(picture).save(path, quality=SMALL_QUALITY)
        size += path.stat().st_size
    return size / n / 1e3


def ways(cfg: DictConfig, root: Path, caches: Path, files: Path, crop: int, n: int) -> dict[str, Callable[[], Cost]]:
    """Return the four ways to read the ``n`` pictures below ``files``, which hold folders of pictures."""
    count = itertools.count()

    def prepared(cold: bool) -> Cost:
        place = caches / f"{cfg.dataset.name}{next(count) if cold else ''}"
        found = []
        cost = common.timed(lambda: found.append(datasets.load(source(cfg.dataset, root), place)))
        assert sum(map(len, found[0].splits.values())) == n
        return cost

    square = [transforms.CenterCrop(crop)]
    if crop != cfg.dataset.image_size:
        square.append(transforms.Resize(cfg.dataset.image_size, transforms.InterpolationMode.BICUBIC))
    pictures = ImageFolder(files, transforms.Compose([*square, transforms.ToTensor()]))
    assert len(pictures) == n

    def read(workers: int) -> Cost:
        loader = DataLoader(pictures, BATCH, num_workers=workers)
        return common.timed(lambda: torch.stack([x.mean() for x, _ in loader]))

    prepared(cold=False)
    return {
        "vae_sweep, cached": lambda: prepared(cold=False),
        "vae_sweep, cold": lambda: prepared(cold=True),
        "ImageFolder": lambda: read(0),
        "ImageFolder, 2 workers": lambda: read(2),
    }


def main() -> None:
    parser = common.arguments(__doc__, repetitions=3)
    parser.add_argument("--large", type=int, default=CELEBA, help=f"pictures of 178x218; default {CELEBA}; 0: none")
    parser.add_argument("--small", type=int, default=60_000, help="pictures of 32x32; default 60000; 0: none")
    parser.add_argument("--folder", help="where the files are made; default: the system's temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as place:
        root = Path(place)
        sets: list[tuple[str, DictConfig, Path, int, int]] = []
        if options.large:
            label = f"{options.large:,} of 178x218, {draw_celeba(root, options.large):.1f} KB"
            cfg = common.composed("dataset=celeba", f"dataset.root={root}", "dataset.fraction=1", "dataset.max_val=0")
            sets.append((label, cfg, root / "celeba", cfg.dataset.crop_size, options.large))
        if options.small:
            label = f"{options.small:,} of 32x32, {draw_folder(root / 'small', options.small):.1f} KB"
            cfg = common.composed("dataset=folder", f"dataset.path={root / 'small'}")
            sets.append((label, cfg, root / "small", cfg.dataset.image_size, options.small))
        for name, cfg, files, crop, n in sets:
            costs = common.interleaved(ways(cfg, root, root / "caches", files, crop, n), options.repetitions, warm_up=0)
            for way, each in costs.items():
                share, cost = common.ratio(each, costs["ImageFolder"]), common.median(each)
                row = [name, way, f"{share.core:.4f}", f"{share.wall:.4f}", f"{cost.core:.2f}", f"{cost.wall:.2f}"]
                rows.append([*row, f"{1e6 * cost.wall / n:.1f}"])
    head = ["JPEG files", "way", "in units of ImageFolder, core", "wall", "core, s", "wall, s", "wall, us a picture"]
    common.table(head, rows)
    common.closing("torchvision", "pillow")


if __name__ == "__main__":
    main()
