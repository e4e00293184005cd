"""The same training in other frameworks' loops: ``python benchmarks/peers.py`` (``pip install -e ".[bench]"`` first).

Our modules, one batch size, learning rate and set of pictures, trained for an epoch by

- notebook: PIL pictures made from an array, ToTensor, DataLoader, Adam as it comes, ``loss.item()`` added up each step,
  as tutorials do; without worker processes and with two
- lightning: its Trainer over a TensorDataset of floats, without checkpoints, logger and progress bar
- pythae 0.1.2: its BaseTrainer and its VAE around our encoder and decoder, over a tensor of floats, with its own loss
  (half the squared error) and without its progress bar
- vae_sweep: ``training.fit``

Only the epoch's updates are timed, the start of worker processes among them; set-up, validation and checkpoints are
left out everywhere, as is the first round. One thread in every process. Core time includes the worker processes.

What follows the options are overrides for ours alone: ``python benchmarks/peers.py --models conv
training.precision=bfloat16``.

pythae 0.1.2 runs on a current PyTorch as it is. It asks for the package ``dataclasses``, a copy of a module that Python
itself has; the copy is never imported.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TQDM_DISABLE"] = "1"  # pythae's bar has no switch of its own

import itertools
import logging
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch.utils.data import DataLoader, TensorDataset

import common
from common import Cost, clock
from notebook import Pictures, array, loss_of, notebook_epoch
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import to_float

PEERS = {"notebook": "notebook", "notebook2": "notebook, 2 workers", "lightning": "Lightning", "pythae": "pythae 0.1.2"}
OURS = "vae_sweep"


def notebook(cfg: DictConfig, images: torch.Tensor, workers: int) -> Callable[[], Cost]:
    model = common.built(cfg)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.params.lr)
    pictures = Pictures(array(images))
    loader = DataLoader(pictures, cfg.params.batch_size, shuffle=True, num_workers=workers)
    return lambda: common.timed(lambda: notebook_epoch(model, loader, optimizer))


def lightning(cfg: DictConfig, images: torch.Tensor) -> Callable[[], Cost]:
    import lightning as L

    class Module(L.LightningModule):
        def __init__(self, vae: VAE) -> None:
            super().__init__()
            self.vae = vae

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            loss = loss_of(self.vae, batch[0])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=cfg.params.lr)

    class Clock(L.Callback):
        def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            self.before = clock()

        def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
            self.cost = clock() - self.before

    module = Module(common.built(cfg))
    loader = DataLoader(TensorDataset(to_float(images)), cfg.params.batch_size, shuffle=True)

    def epoch() -> Cost:
        watch = Clock()
        trainer = L.Trainer(
            **{"accelerator": "cpu", "devices": 1, "max_epochs": 1, "callbacks": [watch], "logger": False},
            **{"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False},
        )
        trainer.fit(module, loader)
        return watch.cost

    return epoch


def pythae(cfg: DictConfig, images: torch.Tensor) -> Callable[[], Cost]:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self, vae: VAE) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, x: torch.Tensor) -> Any:
            posterior = self.vae.encode(x)
            return ModelOutput(embedding=posterior.mean, log_covariance=posterior.logvar)

    class Decoder(BaseDecoder):
        def __init__(self, vae: VAE) -> None:
            super().__init__()
            self.vae = vae

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.vae.decode(z))

    vae = common.built(cfg)
    model = PythaeVAE(
        VAEConfig(input_dim=common.SHAPE, latent_dim=cfg.params.latent_dim), encoder=Encoder(vae), decoder=Decoder(vae)
    )
    data = BaseDataset(to_float(images), torch.zeros(len(images)))

    def epoch() -> Cost:
        with tempfile.TemporaryDirectory() as folder:
            settings = BaseTrainerConfig(
                **{"output_dir": folder, "num_epochs": 1, "no_cuda": True},
                **{"per_device_train_batch_size": cfg.params.batch_size, "learning_rate": cfg.params.lr},
            )
            trainer = BaseTrainer(model, data, training_config=settings)
            trainer.prepare_training()
            return common.timed(lambda: trainer.train_step(1))

    return epoch


def way(name: str, cfg: DictConfig, images: torch.Tensor, epochs: int) -> Callable[[], Cost]:
    """Return a function each call of which trains for an epoch in the way ``name`` and returns what it took."""
    if name == OURS:
        switches = {"channels_last": cfg.training.channels_last, "precision": cfg.training.precision}
        return common.epochs_of(cfg, images, images[:1], epochs, **switches)
    if name == "lightning":
        return lightning(cfg, images)
    if name == "pythae":
        return pythae(cfg, images)
    return notebook(cfg, images, workers=2 if name == "notebook2" else 0)


def main() -> None:
    parser = common.arguments(__doc__, repetitions=7)
    parser.add_argument("--images", type=int, default=9000, help="of an epoch; default 9000")
    parser.add_argument("--models", type=common.names, default=["fc", "conv"])
    parser.add_argument("--params", type=common.names, default=["p1"])
    parser.add_argument("--peers", type=common.names, default=[*PEERS], help=f"of {','.join(PEERS)}")
    options, given = parser.parse_known_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    images = common.pictures(options.images)
    rows = []
    for cell in itertools.product(options.models, options.params):
        cfg, ours = common.cell(*cell), common.cell(*cell, *given)
        ways = {name: way(name, cfg, images, options.repetitions + 1) for name in options.peers}
        ways = {OURS: way(OURS, ours, images, options.repetitions + 1), **ways}
        costs = common.interleaved(ways, options.repetitions)
        for name in options.peers:
            share = common.ratio(costs[OURS], costs[name])
            both = [common.median(costs[which]) / len(images) for which in (OURS, name)]
            shown = [f"{1e6 * value:.0f}" for cost in both for value in (cost.core, cost.wall)]
            rows.append([f"{cfg.model.name} {cfg.params.name}", PEERS[name], f"{share.core:.2f}", f"{share.wall:.2f}"])
            rows[-1] += shown
    if given:
        print(f"Ours with {' '.join(given)}, theirs as they come.")
    print(f"Times in us per training image; epochs of {len(images):,} images, one thread.\n")
    times = [f"{who}, {kind}" for who in ("ours", "theirs") for kind in ("core", "wall")]
    common.table(["cell", "against", "ours / theirs, core", "ours / theirs, wall", *times], rows)
    common.closing(*(name for name in ("lightning", "pythae") if name in options.peers))


if __name__ == "__main__":
    main()
