"""Whatever a model draws from the global generators is a function of (seed, epoch): resumed equals uninterrupted."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch import nn

from running import rows, statuses
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.vae import Posterior
from vae_sweep.training import state
from vae_sweep.training.evaluation import evaluate
from vae_sweep.training.loop import TrainSettings, fit
from vae_sweep.training.randomness import Stream, generator, seed_weights

SHAPE = (3, 8, 8)


class Drawing(FCVAE):
    """Drops units with PyTorch's global generator, and the whole input with NumPy's and Python's."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 4, [16])
        self.encoder.append(nn.Dropout(0.5))

    def encode(self, x: torch.Tensor) -> Posterior:
        if self.training:
            x = x * (random.random() < 0.8) + 0.1 * float(np.random.rand())  # noqa: NPY002
        return super().encode(x)


class RandomInEvaluation(FCVAE):
    """Dropout that is never turned off."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 4, [16])

    def encode(self, x: torch.Tensor) -> Posterior:
        return super().encode(nn.functional.dropout(x))


def images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def trained(folder: Path, stop_after: int | None = None) -> tuple[list, dict[str, torch.Tensor]]:
    """Train from whatever state is in ``folder``; return what the epochs showed and the weights at the end."""
    seed_weights(0)
    model, saved, shown = Drawing(), state.load(folder), []
    settings = {"batch_size": 16, "lr": 0.01, "seed": 0, "max_epochs": 4, "patience": 9, "min_delta": 0.0}
    for metrics in fit(
        model, images(100, 0), images(40, 1), TrainSettings(**settings), snapshot=saved and saved["fit"]
    ):
        shown.append((metrics.epoch, metrics.train, metrics.val))
        state.save(folder, {"fit": metrics.snapshot()})
        if metrics.epoch == stop_after:
            break
    return shown, {key: value.clone() for key, value in model.state_dict().items()}


def test_a_model_with_dropout_is_continued_to_the_last_bit(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole, weights = trained(tmp_path / "whole")
    parts = []
    for epoch in range(1, len(whole) + 1):
        torch.manual_seed(epoch)  # what a new process brings along decides nothing
        random.seed(epoch)
        np.random.seed(epoch)  # noqa: NPY002
        parts += trained(tmp_path / "parts", stop_after=epoch)[0]
    assert parts == whole
    _, final = trained(tmp_path / "parts")
    assert all(torch.equal(final[key], weights[key]) for key in weights)


def global_states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_training_and_evaluation_leave_the_global_generators_as_they_were(tmp_path: Path) -> None:
    seed_weights(0)
    model, before = Drawing(), global_states()
    settings = {"batch_size": 16, "lr": 0.01, "seed": 0, "max_epochs": 2, "patience": 9, "min_delta": 0.0}
    list(fit(model, images(40, 0), images(40, 1), TrainSettings(**settings)))
    evaluate(model, images(40, 1))
    assert global_states() == before


def test_evaluation_of_a_model_that_draws_in_it_is_repeatable() -> None:
    seed_weights(0)
    model, found = RandomInEvaluation(), set()
    for seed in range(3):
        torch.manual_seed(seed)
        found.add(evaluate(model, images(40, 1)))
    assert len(found) == 1


def test_streams_do_not_share_a_number() -> None:
    """Which images are mirrored was once drawn from the same numbers as the samples of the figure."""
    first = [torch.rand(4, generator=generator(5, stream)).tolist() for stream in Stream]
    assert len({tuple(draw) for draw in first}) == len(Stream)
    assert (Stream.WEIGHTS, Stream.SHUFFLE, Stream.NOISE, Stream.SAMPLES, Stream.INTERPOLATIONS) == (0, 1, 2, 3, 4)
    assert (Stream.MIRROR, Stream.TRAINING, Stream.INFERENCE, Stream.LINEAR) == (5, 6, 7, 8)


MODEL = """\
    from torch import nn
    from vae_sweep.models.fc import FCVAE
    class MyVAE(FCVAE):
        def __init__(self, image_shape, latent_dim):
            super().__init__(image_shape, latent_dim, [16])
            self.encoder.append(nn.Dropout(0.5))
            self.encoder.append(nn.BatchNorm1d(16))
        def decode(self, z):
            return super().decode(nn.functional.dropout(z, 0.1))  # in evaluation, pictures and metrics, too
"""


@pytest.mark.slow
def test_a_killed_run_with_dropout_ends_with_the_numbers_of_one_left_alone(command, start, tmp_path: Path) -> None:
    for name in ("killed", "whole"):
        (tmp_path / name / "conf" / "model").mkdir(parents=True)
        (tmp_path / name / "conf" / "model" / "mine.yaml").write_text("_target_: my_vae.MyVAE\nname: mine\n")
        (tmp_path / name / "my_vae.py").write_text(dedent(MODEL))
    grid = ["--config-dir", "conf", "-m", "model=mine", "params=tiny", "experiment=smoke", "training.max_epochs=4"]
    grid += ["dataset.n_train=200", "training.patience=9", "hydra/launcher=basic"]
    process = start(*grid, cwd=tmp_path / "killed", until="epoch 2:")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for name in ("killed", "whole"):
        done = command(*grid, cwd=tmp_path / name)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("continues after epoch" in done.stdout) == (name == "killed")
        assert set(statuses(tmp_path / name).values()) == {"FINISHED"}
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole") != []
    samples = [np.load(next((tmp_path / name).glob("mlruns/**/samples.npy"))) for name in ("killed", "whole")]
    assert (samples[0] == samples[1]).all()
