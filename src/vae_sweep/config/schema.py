"""The schema of every configuration: one field a line, with its meaning, unit and special values.

Values live in ``conf/``; these dataclasses stand first in its defaults list, so a misspelled key or a value
of the wrong type is refused while the configuration is composed, before any job starts. Ranges, which types
cannot express, are checked by :func:`vae_sweep.config.validation.validate`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from vae_sweep.base.system import available_cores


@dataclass
class Params:
    """One hyperparameter set: only what makes a set differ."""

    name: str = MISSING  # shown in tables and run names
    batch_size: int = MISSING  # images per optimizer update
    lr: float = MISSING  # Adam's learning rate; with one_cycle the peak
    latent_dim: int = MISSING  # size of z
    schedule: str = "constant"  # of the learning rate: constant, until early stopping | one_cycle, over `epochs`
    mirror: bool = False  # mirror a random half of the training images, drawn anew every epoch
    epochs: int | None = None  # length of one_cycle, which is not stopped early; training.max_epochs may shorten it


@dataclass
class FCModel:
    _target_: str = "vae_sweep.models.fc.FCVAE"
    name: str = "fc"  # in tables and run names
    baseline: str | None = "conv"  # what it is compared with; closed_form: only the linear VAE; null: the common one
    hidden_dims: list[int] = field(default_factory=lambda: [512, 256])  # encoder widths; the decoder mirrors


@dataclass
class ConvModel:
    _target_: str = "vae_sweep.models.conv.ConvVAE"
    name: str = "conv"
    baseline: str | None = "conv"
    channels: list[int] = field(default_factory=lambda: [32, 64, 128])  # each layer halves height and width


@dataclass
class FCMatchedModel:
    _target_: str = "vae_sweep.models.fc_matched.MatchedFCVAE"
    name: str = "fc_matched"
    baseline: str | None = "fc"
    channels: list[int] = field(default_factory=lambda: [32, 64, 128])  # of the ConvVAE whose weights are counted


@dataclass
class FCSkipModel:
    _target_: str = "vae_sweep.models.fc_skip.SkipFCVAE"
    name: str = "fc_skip"
    baseline: str | None = "fc"
    hidden_dims: list[int] = field(default_factory=lambda: [512, 256])  # as of FCModel


@dataclass
class FCResModel:
    _target_: str = "vae_sweep.models.fc_res.ResidualFCVAE"
    name: str = "fc_res"
    baseline: str | None = "fc"
    width: int = 512  # units of every hidden layer
    blocks: int = 2  # residual blocks in the encoder, and as many in the decoder


@dataclass
class ConvResModel:
    _target_: str = "vae_sweep.models.conv_res.ResidualConvVAE"
    name: str = "conv_res"
    baseline: str | None = "conv"
    channels: list[int] = field(default_factory=lambda: [32, 64, 128])  # as of ConvModel
    width: int = 512  # as of FCResModel
    blocks: int = 2


@dataclass
class FCDctModel(FCResModel):
    _target_: str = "vae_sweep.models.fc_dct.FrequencyFCVAE"
    name: str = "fc_dct"
    baseline: str | None = "fc_res"


@dataclass
class ConvDctModel(ConvResModel):
    _target_: str = "vae_sweep.models.conv_dct.FrequencyConvVAE"
    name: str = "conv_dct"
    baseline: str | None = "conv_res"


@dataclass
class LinearModel:
    _target_: str = "vae_sweep.models.linear.LinearVAE"
    name: str = "linear"
    baseline: str | None = "closed_form"


@dataclass
class Objective:
    beta: float = 1.0  # weight of the KL term; 1 = the ELBO
    reduction: str = "sum"  # squared error over an image's values: sum or mean
    variance: Any = 0.5  # of the Gaussian decoder: a number | optimal (of each batch) | learned (a parameter)
    warmup: float = 0.0  # epochs in which the weight of the KL term rises from 0 to beta


@dataclass
class Training:
    max_epochs: int = 100  # upper bound; early stopping usually ends a run before
    patience: int = 5  # epochs without improvement before a run stops
    min_delta: float = 0.5  # nats/image of the summed loss; a smaller gain of val/loss does not count
    device: str = "auto"  # auto (cuda, else mps, else cpu) | cpu | cuda | cuda:N | mps
    threads: int = 1  # CPU threads of one run; 1 keeps its numbers the same however many run beside it
    channels_last: bool | str = "auto"  # memory format of convolutions in training: auto (on a CPU) | true | false
    compile: bool | str = False  # torch.compile the model in training: false | true | a mode of torch.compile
    clip_grad_norm: float | None = None  # norm of the gradient, at most; null: any
    precision: str = "float32"  # matmul precision in training: float32 | tf32 (NVIDIA GPUs) | bfloat16 | auto


@dataclass
class Evaluation:
    noise_draws: int = 1  # posterior draws per image, from fixed noise
    n_samples: int = 64  # prior samples in the figure
    n_interpolations: int = 6  # rows of latent interpolations, 10 steps each


@dataclass
class Metrics:
    """Held-out metrics beside the loss. They are not part of a run's identity: changed ones are measured again."""

    iwae_samples: int = 100  # posterior draws per image of the importance-weighted bound; 0 leaves it out
    iwae_images: int = 500  # test images that its gain is computed on, at most; and at most a fifth of them
    gmm_components: int = 10  # of the Gaussian mixture fitted to the latents; 0 leaves it out
    factors: bool = False  # MIG, SAP and DCI, where the factors of the images are known: dataset=shapes
    ssim_images: int = 2000  # test images that the structural similarity is averaged over, at most; 0 leaves it out
    features: str = "auto"  # network of distribution distances: auto | inception | efficientnet_lite0 | none
    feature_images: int = 5000  # images on each side of such a distance, at most
    inception_weights: str | None = None  # file of torch-fidelity's Inception; null: its cache


@dataclass
class Paths:
    root: str = MISSING  # absolute; everything below is made here: the directory the command was typed in
    data: str = MISSING  # downloads, archives and the cache of prepared arrays


@dataclass
class Tracking:
    uri: str | None = None  # null: MLFLOW_TRACKING_URI if set, else SQLite at <root>/mlflow.db
    experiment: str = "vae_sweep"  # MLflow experiment name
    retry_seconds: float = 300.0  # how long the start and the end of a run retry requests to a failing store
    images: bool = True  # images of each model after epochs 1, 2, 4, 8, ... and the best one, for the UI's image grid


@dataclass
class Sweep:
    name: str | None = None  # identity of the sweep; null: the set of its runs is


@dataclass
class Cifar10Dataset:
    _target_: str = "vae_sweep.datasets.cifar10.Cifar10"
    name: str = "cifar10"  # of the prepared arrays and of the runs
    root: str = MISSING  # holds cifar-10-python.tar.gz or cifar-10-batches-py/; a download lands here
    download: bool = True  # fetch the archive when it is not there
    fraction: float = 1.0  # share of the training images to use, drawn once with split_seed
    val_fraction: float = 0.1  # share of those held out for validation
    split_seed: int = 0  # draws subset and validation split; independent of `seed`
    max_images: int | None = None  # of each split, at most, the same ones every time; null: all
    permute_pixels: bool = False  # control: one fixed shuffle of the pixels of every image


@dataclass
class CelebADataset:
    _target_: str = "vae_sweep.datasets.celeba.CelebA"
    name: str = "celeba"
    root: str = MISSING  # holds celeba/img_align_celeba/ or img_align_celeba/, and list_eval_partition.txt|csv
    image_size: int = 32  # height and width after resizing, pixels
    crop_size: int = 148  # side of the centre crop, pixels of the image; 148 is meant for 178x218
    fraction: float = 0.3  # share of the official training partition, drawn once with split_seed
    max_val: int = 5000  # validation images, drawn from the official validation partition; 0 = all
    split_seed: int = 0
    max_images: int | None = None  # of each split, at most, the same ones every time; null: all
    permute_pixels: bool = False  # control: one fixed shuffle of the pixels of every image
    strict: bool = False  # true: a broken image ends the run; false: it is named, counted and left out


@dataclass
class FolderDataset:
    _target_: str = "vae_sweep.datasets.folder.Folder"
    name: str = "folder"
    path: str = MISSING  # the folder: train/ + test/ (with or without class folders), or images anywhere below
    image_size: int = 32  # height and width after centre crop to a square and resizing, pixels
    splits: str = "auto"  # folders taken for splits: auto (clear ones) | given (any called like one) | draw (none)
    value_range: list[float] | None = None  # [black, white] of images of more than 8 bits; null: all 16, others refused
    fraction: float = 1.0  # share of the training images to use, drawn once with split_seed
    val_fraction: float = 0.1  # share of those held out for validation
    test_fraction: float = 0.1  # share held out for test where the folder has no test/
    split_seed: int = 0
    max_images: int | None = None  # of each split, at most, the same ones every time; null: all
    permute_pixels: bool = False  # control: one fixed shuffle of the pixels of every image
    strict: bool = False  # true: a broken image ends the run; false: it is named, counted and left out


@dataclass
class ShapesDataset:
    _target_: str = "vae_sweep.datasets.shapes.Shapes"
    name: str = "shapes"
    n_train: int = 3200  # images, before the validation split
    n_test: int = 1000  # images
    image_size: int = 24  # pixels
    val_fraction: float = 0.1
    split_seed: int = 0  # draws the images and the validation split
    max_images: int | None = None  # of each split, at most, the same ones every time; null: all
    permute_pixels: bool = False  # control: one fixed shuffle of the pixels of every image


@dataclass
class Config:
    seed: int = 0  # draws weights, shuffling and training noise; 0 is a seed like any other
    model: Any = MISSING  # open to other architectures; the shipped ones are typed above
    dataset: Any = MISSING  # open to other sources, likewise
    params: Params = field(default_factory=Params)
    objective: Objective = field(default_factory=Objective)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    metrics: Metrics = field(default_factory=Metrics)
    paths: Paths = field(default_factory=Paths)
    tracking: Tracking = field(default_factory=Tracking)
    sweep: Sweep = field(default_factory=Sweep)
    resume: bool = True  # false: train again what is finished, and from the first epoch what is not
    register: str | None = None  # a name in MLflow's model registry: every run becomes a version of it, once
    progress: str = "auto"  # on the terminal: auto (table on a terminal, else plain) | table | plain | log | none
    fail_fast: bool = False  # true: the first failing cell stops the sweep; false: the others go on


SCHEMAS = {
    "model": {
        "fc": FCModel,
        "conv": ConvModel,
        "linear": LinearModel,
        "fc_matched": FCMatchedModel,
        "fc_skip": FCSkipModel,
        "fc_res": FCResModel,
        "conv_res": ConvResModel,
        "fc_dct": FCDctModel,
        "conv_dct": ConvDctModel,
    },
    "dataset": {
        "cifar10": Cifar10Dataset,
        "celeba": CelebADataset,
        "folder": FolderDataset,
        "shapes": ShapesDataset,
    },
}


def config_dir() -> Path:
    """Return the folder of the shipped configuration: inside the installed package, or in the checkout."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1] / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


def register() -> None:
    """Register the schema and the resolvers with Hydra; safe to call in every process, any number of times."""
    store = ConfigStore.instance()
    store.store(name="base_config", node=Config)
    for group, nodes in SCHEMAS.items():
        for name, node in nodes.items():
            store.store(group=f"schema/{group}", name=name, node=node)
    OmegaConf.register_new_resolver("vae_sweep.jobs", parallel_jobs, replace=True)
    OmegaConf.register_new_resolver("vae_sweep.help", _help, replace=True)
    OmegaConf.register_new_resolver("vae_sweep.token", lambda: secrets.token_hex(3), replace=True, use_cache=True)


def _help(*, _root_: DictConfig) -> str:
    from vae_sweep.config.help import help_text

    return help_text(_root_).replace("$", "$$")  # Hydra takes it for a template


def parallel_jobs(device: str, threads: int = 1) -> int:
    """Return how many runs a sweep trains at once: as many as fill the CPU cores, or one on a GPU.

    On a GPU one run at a time keeps memory and timings predictable.
    """
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return 1 if device != "cpu" else max(1, available_cores() // max(1, threads))
