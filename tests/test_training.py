"""The loop: early stopping on scripted curves, best weights, reproducibility, divergence, averages over images."""

from __future__ import annotations

import copy
import itertools
import math
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from vae_sweep import models
from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE, Posterior
from vae_sweep.training import batches, loop
from vae_sweep.training.adam import Adam, one_cycle
from vae_sweep.training.device import memory_format_of, resolve_device
from vae_sweep.training.evaluation import Averages, evaluate, for_inference, to_float, to_uint8
from vae_sweep.training.loop import EpochMetrics, TrainSettings, fit
from vae_sweep.training.objective import Objective
from vae_sweep.training.randomness import Stream, generator, seed_weights
from vae_sweep.training.stopping import EarlyStopping

FC: dict[str, object] = {"_target_": "vae_sweep.models.fc.FCVAE", "name": "fc", "hidden_dims": [16]}
CONV: dict[str, object] = {"_target_": "vae_sweep.models.conv.ConvVAE", "channels": [4, 8]}
SHAPE = (3, 8, 8)


def pictures(n: int, seed: int = 0) -> torch.Tensor:
    low = torch.randint(0, 256, (n, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return low.repeat_interleave(4, 2).repeat_interleave(4, 3)


def train(n: int = 100, seed: int = 0, node: dict[str, object] = FC, **options) -> tuple[VAE, list[EpochMetrics]]:
    seed_weights(seed)
    model = models.create(node, SHAPE, 4)
    settings = {"batch_size": 16, "lr": 3e-3, "max_epochs": 4, "patience": 99, "min_delta": 0.0} | options
    return model, list(fit(model, pictures(n), pictures(30, 1), TrainSettings(seed=seed, **settings)))


def weights(model: VAE) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def scripted(losses: list[float], patience: int = 5, min_delta: float = 0.5) -> tuple[int, EarlyStopping]:
    """Feed a curve; return the epoch it stops in (0: never)."""
    stopping = EarlyStopping(patience, min_delta)
    for epoch, loss in enumerate(losses, 1):
        stopping.update(epoch, loss)
        if stopping.should_stop(epoch):
            return epoch, stopping
    return 0, stopping


def test_a_trained_model_is_in_evaluation_mode_also_where_nothing_was_left_to_train() -> None:
    model, epochs = train(max_epochs=1)
    assert not model.training
    again = models.create(FC, SHAPE, 4)
    settings = TrainSettings(16, 3e-3, 0, 1, 99, 0.0)
    assert list(fit(again, pictures(100), pictures(30, 1), settings, snapshot=epochs[0].snapshot())) == []
    assert not again.training
    assert torch.equal(weights(again), weights(model))


def test_early_stopping_on_a_flat_curve() -> None:
    stopped, stopping = scripted([90.0, 80.0, *[80.0] * 9])
    assert (stopped, stopping.best_epoch, stopping.best) == (7, 2, 80.0)


def test_gains_below_min_delta_do_not_postpone_the_stop_but_their_best_is_kept() -> None:
    """80.0 counts at epoch 2; 79.6 at epoch 5 is the lowest, though it gained less than 0.5."""
    stopped, stopping = scripted([90.0, 80.0, 79.9, 79.8, 79.6, 79.7, 79.7, 79.7])
    assert (stopped, stopping.best_epoch, stopping.best) == (7, 5, 79.6)


def test_a_slow_descent_goes_on() -> None:
    """0.2 a epoch gains 0.6 in three epochs, which counts within a patience of five."""
    stopped, stopping = scripted([80 - 0.2 * i for i in range(40)])
    assert stopped == 0
    assert stopping.best_epoch == 40


def test_min_delta_must_be_exceeded() -> None:
    assert scripted([80.0, 79.5, 79.5, 79.5], patience=3)[0] == 4
    assert scripted([80.0, 79.49, 79.49, 79.49], patience=3)[0] == 0


class Drifting(VAE):
    """Its validation loss follows a script: the decoder returns one value, moved by every update of the optimizer."""

    def __init__(self) -> None:
        super().__init__((1, 1, 1), 1)
        self.level = nn.Parameter(torch.tensor(0.0))

    def encode(self, x: torch.Tensor) -> Posterior:
        return Posterior(torch.zeros(len(x), 1), torch.zeros(len(x), 1))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.level.expand(len(z), 1, 1, 1)


def test_best_weights_are_restored() -> None:
    """Training pulls the level to 1, validation wants 0.5: the best epoch is in the middle, and its weights return."""
    model = Drifting()
    one, half = torch.full((4, 1, 1, 1), 255, dtype=torch.uint8), torch.full((4, 1, 1, 1), 128, dtype=torch.uint8)
    settings = {"batch_size": 4, "lr": 0.05, "seed": 0, "max_epochs": 18, "patience": 99, "min_delta": 0.0}
    levels, losses = [], []
    for metrics in fit(model, one, half, TrainSettings(**settings)):
        levels.append(model.level.item())
        losses.append(metrics.val.loss)
        assert metrics.improved == (metrics.val.loss == min(losses))
    best = losses.index(min(losses))
    assert 3 < best < 15
    assert model.level.item() == levels[best]
    assert evaluate(model, half).loss == losses[best]


def test_fit_stops_by_patience() -> None:
    _, epochs = train(max_epochs=50, patience=3, min_delta=1e9)
    assert [e.epoch for e in epochs] == [1, 2, 3, 4]  # the first epoch counts, then three without a gain of 1e9


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    a, first = train(seed=0)
    b, second = train(seed=0)
    c, other = train(seed=1)
    assert torch.equal(weights(a), weights(b))
    assert [(e.train, e.val) for e in first] == [(e.train, e.val) for e in second]
    assert not torch.equal(weights(a), weights(c))
    assert first[0].val != other[0].val


def test_numbers_do_not_depend_on_global_random_state() -> None:
    a, _ = train()
    seed_weights(0)
    model = models.create(FC, SHAPE, 4)
    settings = {"batch_size": 16, "lr": 3e-3, "max_epochs": 4, "patience": 99, "min_delta": 0.0}
    for _epoch in fit(model, pictures(100), pictures(30, 1), TrainSettings(seed=0, **settings)):
        torch.manual_seed(torch.seed())
    assert torch.equal(weights(a), weights(model))


def test_random_streams_are_functions_of_seed_stream_and_epoch() -> None:
    draws = {
        (seed, stream, epoch): torch.randn(4, generator=generator(seed, stream, epoch)).tolist()
        for seed, stream, epoch in itertools.product((0, 1, 2**40), Stream, range(3))
    }
    assert len({tuple(d) for d in draws.values()}) == len(draws)
    assert torch.randn(4, generator=generator(1, 2, 2)).tolist() == draws[1, Stream.NOISE, 2]


def test_progress_counts_images_and_updates() -> None:
    _, epochs = train(n=100, max_epochs=3)
    assert [e.images_seen for e in epochs] == [100, 200, 300]
    assert [e.step for e in epochs] == [7, 14, 21]  # six batches of 16 and one of 4


def test_averages_are_over_images_not_over_batches() -> None:
    """503 images: a mean of batch means would give the last three images the weight of five hundred."""
    seed_weights(3)
    model = models.create(FC, SHAPE, 4)
    dark = torch.zeros(500, *SHAPE, dtype=torch.uint8)
    bright = torch.full((3, *SHAPE), 255, dtype=torch.uint8)
    both = evaluate(model, torch.cat([dark, bright]))
    # A direct average over the same images, one forward pass, the noise of each position drawn the same way.
    source = torch.Generator().manual_seed(20131220)
    noise = torch.cat([torch.randn(500, 4, generator=source), torch.randn(500, 4, generator=source)])[:503]
    x = torch.cat([dark, bright]).float() / 255
    with torch.no_grad():
        reconstruction, posterior = model(x, noise)
    recon = (reconstruction - x).square().flatten(1).sum(1).double().mean().item()
    assert both.recon == pytest.approx(recon, rel=1e-6)
    assert both.kl == pytest.approx(posterior.kl().double().mean().item(), rel=1e-5)
    assert both.loss == pytest.approx(both.recon + both.kl, rel=1e-6)


def test_evaluation_noise_is_fixed() -> None:
    model, _ = train()
    assert evaluate(model, pictures(50)) == evaluate(model, pictures(50))


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_rate() -> None:
    seed_weights(0)
    model = models.create(FC, SHAPE, 4)
    settings = {"batch_size": 16, "lr": 1e-3, "seed": 0, "max_epochs": 5, "patience": 9, "min_delta": 0.0}
    epochs = fit(model, pictures(100), pictures(30, 1), TrainSettings(**settings))
    next(epochs)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(UserError, match=r"training loss became nan in epoch 2 at step 8 with params\.lr=0\.001"):
        next(epochs)


def test_images_survive_the_way_to_float_and_back() -> None:
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert to_float(x).min() == 0
    assert to_float(x).max() == 1
    assert (to_uint8(to_float(x)) == x.numpy()).all()
    assert to_uint8(torch.tensor([-0.5, 1.5])).tolist() == [0, 255]


def test_device_that_is_not_there() -> None:
    assert resolve_device("cpu").type == "cpu"
    n = torch.cuda.device_count()
    with pytest.raises(UserError, match=rf"training\.device=cuda:{n}: PyTorch sees {n} CUDA devices here"):
        resolve_device(f"cuda:{n}")


def test_improvement_is_what_the_checkpointed_weights_are() -> None:
    """The weights after fit are those of the epoch that was last marked as improved."""
    seed_weights(0)
    model = models.create(FC, SHAPE, 4)
    kept = None
    settings = {"batch_size": 16, "lr": 0.05, "seed": 0, "max_epochs": 12, "patience": 99, "min_delta": 0.0}
    for metrics in fit(model, pictures(64), pictures(30, 1), TrainSettings(**settings)):
        if metrics.improved:
            kept = copy.deepcopy(weights(model))
    assert kept is not None
    assert torch.equal(weights(model), kept)


def test_averages_are_named() -> None:
    assert Averages._fields == ("loss", "recon", "kl")


class Recording(Drifting):
    """Remembers by how much each update moved its level."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[float] = []

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Posterior]:
        self.levels.append(self.level.item())
        return super().forward(x, noise)


def test_one_cycle_rises_and_falls_along_cosines_and_is_not_stopped_early() -> None:
    """Adam moves a parameter whose gradient keeps its sign and size by the learning rate: level tells the schedule."""
    model, steps, top = Recording(), 40, 1e-5
    white = torch.full((8, 1, 1, 1), 255, dtype=torch.uint8)
    settings = {"batch_size": 4, "lr": top, "seed": 0, "max_epochs": steps // 2, "patience": 1, "min_delta": 1e9}
    epochs = list(fit(model, white, white, TrainSettings(schedule="one_cycle", **settings)))
    assert len(epochs) == steps // 2
    levels = [level for i, level in enumerate(model.levels) if i % 3 < 2]  # every third look is the evaluation's
    found = [(b - a) / top for a, b in itertools.pairwise(levels)]
    rise = 0.3 * steps - 1  # the step with the highest rate
    for i, rate in enumerate(found):
        if i <= rise:
            expected = 1 + (1 / 25 - 1) * (1 + math.cos(math.pi * i / rise)) / 2
        else:
            expected = (1 + math.cos(math.pi * (i - rise) / (steps - 1 - rise))) / 2
        assert rate == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 33])
def test_adam_and_one_cycle_are_pytorchs_to_the_bit(steps: int) -> None:
    """The last layer has no gradient at first; half way each side goes on from the other's state."""
    seed_weights(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2), nn.Linear(2, 2))
    ours.to(memory_format=torch.channels_last)
    theirs, x = copy.deepcopy(ours), torch.rand(5, 3, 8, 8)
    mine, reference = Adam(ours.parameters()), torch.optim.Adam(theirs.parameters(), lr=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(reference, 1e-2, steps, pct_start=0.3, cycle_momentum=False)
    for step in range(steps):
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model[: 3 if step < steps // 2 else 4](x).square().sum().backward()
        assert one_cycle(step, 1e-2, steps) == reference.param_groups[0]["lr"]
        mine.step(one_cycle(step, 1e-2, steps))
        reference.step()
        schedule.step()
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
        if step == steps // 2:
            known = copy.deepcopy(reference.state_dict())
            for state in known["state"].values():  # as of a device that has the default memory format
                state["exp_avg"] = state["exp_avg"].contiguous()
            reference.load_state_dict(known | copy.deepcopy(mine.state_dict()))
            mine.load_state_dict(known)


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3, 5, 10])
def test_a_cycle_may_be_as_short_as_one_update(steps_per_epoch: int) -> None:
    _, epochs = train(n=16 * steps_per_epoch, max_epochs=1, schedule="one_cycle")
    assert [e.step for e in epochs] == [steps_per_epoch]


def test_half_of_the_images_are_mirrored_others_every_epoch() -> None:
    """Each image is seen as it is or mirrored, about as often, and not the same ones in every epoch."""
    model = Drifting()
    images = torch.arange(240, dtype=torch.uint8).view(60, 1, 1, 4)
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _module, inputs: seen.append((inputs[0] * 255).round().to(torch.uint8)))
    settings = {"batch_size": 15, "lr": 0.01, "seed": 0, "max_epochs": 2, "patience": 9, "min_delta": 0.0}
    list(fit(model, images, images[:1], TrainSettings(mirror=True, **settings)))
    known = {tuple(image.flatten().tolist()) for image in images}
    epochs = []
    for first in (0, 5):  # four batches, then the evaluation's one
        rows = [tuple(image.flatten().tolist()) for batch in seen[first : first + 4] for image in batch]
        assert {row if row in known else row[::-1] for row in rows} == known
        epochs.append({row[::-1] for row in rows if row not in known})
        assert 18 <= len(epochs[-1]) <= 42
    assert epochs[0] != epochs[1]


def test_images_that_do_not_fit_the_device_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    a, epochs = train()
    monkeypatch.setattr(batches, "fits", lambda images, device: False)
    b, others = train()
    assert torch.equal(weights(a), weights(b))
    assert [(e.train, e.val) for e in epochs] == [(e.train, e.val) for e in others]


def test_bfloat16_trains_nearly_the_same_and_is_evaluated_in_float32() -> None:
    exact, epochs = train(max_epochs=3)
    rounded, others = train(max_epochs=3, precision="bfloat16")
    assert not torch.equal(weights(exact), weights(rounded))
    assert all(p.dtype == torch.float32 for p in rounded.parameters())
    for a, b in zip(epochs, others, strict=True):
        assert b.val.loss == pytest.approx(a.val.loss, rel=0.02)
        assert b.train.recon + b.train.kl == pytest.approx(b.train.loss, rel=1e-5)  # summed in float32
    assert evaluate(rounded, pictures(30, 1)).loss == min(e.val.loss for e in others)


def test_another_memory_format_changes_only_the_rounding() -> None:
    seed_weights(0)
    conv = models.create(CONV, SHAPE, 4)
    faster, memory_format = for_inference(conv)
    x = to_float(pictures(30, 1))
    assert memory_format == torch.channels_last
    with torch.no_grad():
        assert torch.allclose(faster.reconstruct(x.to(memory_format=memory_format)), conv.reconstruct(x), atol=1e-5)
    assert all(p.is_contiguous() for p in conv.parameters())  # the model itself is left alone


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="this processor cannot flush denormal numbers")
def test_averages_of_dead_units_do_not_become_denormal(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would slow training down; without them the weights are the same to the last bit."""

    def trained() -> tuple[torch.Tensor, int]:
        seed_weights(0)
        model = models.create(FC, SHAPE, 4)
        settings = {"batch_size": 1, "lr": 1e-3, "seed": 0, "max_epochs": 11, "patience": 99, "min_delta": 0.0}
        for epoch in fit(model, pictures(100), pictures(9, 1), TrainSettings(**settings)):
            if epoch.epoch == 1:
                with torch.no_grad():
                    model.encoder[1].bias[:8] = -100.0  # half of the units die, and never have a gradient again
            averages = [average["exp_avg"] for average in epoch.snapshot()["optimizer"]["state"].values()]
        tiny = torch.finfo(torch.float32).tiny
        return weights(model), sum(int(((a != 0) & (a.abs() < tiny)).sum()) for a in averages)

    flushed, none = trained()
    monkeypatch.setattr(loop, "denormals_flushed", nullcontext)
    kept, many = trained()
    assert (none, many > 1000) == (0, True)
    assert torch.equal(flushed, kept)
    assert float(torch.full((1,), 1e-40) * 1.0) != 0.0  # nothing else of this process is concerned


@pytest.mark.parametrize(
    ("device", "asked", "expected"),
    [
        ("cpu", "auto", True),
        ("cuda", "auto", False),
        ("mps", "auto", False),
        ("cpu", False, False),
        ("cuda", True, True),
    ],
)
def test_the_memory_format_follows_the_device(device: str, asked: bool | str, expected: bool) -> None:
    """On GPUs channels last was wrong in some versions of PyTorch; there only who asks for it has it."""
    conv = models.create(CONV, SHAPE, 4)
    found = memory_format_of(conv, torch.device(device), asked)
    assert found == (torch.channels_last if expected else torch.contiguous_format)


def test_convolutions_train_the_same_in_either_memory_format_but_for_rounding() -> None:
    (first, firsts), (last, lasts), (default, _) = (
        train(max_epochs=2, node=CONV, channels_last=asked) for asked in (False, True, "auto")
    )
    assert torch.equal(weights(last), weights(default))
    assert all(p.is_contiguous() for p in default.parameters())  # what is made of it does not depend on its training
    assert not torch.equal(weights(first), weights(last))  # the switch does something
    assert torch.allclose(weights(first), weights(last), atol=1e-4)
    assert [e.val.loss for e in lasts] == pytest.approx([e.val.loss for e in firsts], rel=1e-5)


def test_the_memory_format_is_nothing_to_a_model_without_convolutions() -> None:
    """Not even the rounding, so that one switch can stand for a whole sweep."""
    model, _ = train(max_epochs=1)
    same, _ = train(max_epochs=1, channels_last=False)
    assert torch.equal(weights(model), weights(same))
    assert for_inference(model) == (model, torch.contiguous_format)


def test_variance_v_trains_as_beta_2v() -> None:
    """Adam divides a gradient by its own size, so a loss scaled by 1 / (2 v) gives the same weights."""
    given, of_given = train(objective=Objective(variance=0.05))
    weighted, of_weighted = train(objective=Objective(beta=0.1))
    torch.testing.assert_close(weights(given), weights(weighted), rtol=1e-3, atol=1e-4)
    assert of_given[-1].val.loss * 0.1 == pytest.approx(of_weighted[-1].val.loss, rel=1e-4)
    assert of_given[-1].val.kl == pytest.approx(of_weighted[-1].val.kl, rel=1e-3)


def test_evaluation_takes_the_best_variance_of_all_images() -> None:
    model, epochs = train(objective=Objective(variance="optimal"))
    squared_error, kl = evaluate(model, pictures(30, 1))[1:]
    found = evaluate(model, pictures(30, 1), Objective(variance="optimal"))
    assert found.recon == pytest.approx(96 * (math.log(2 * math.pi * squared_error / 192) + 1))
    assert found == (pytest.approx(found.recon + kl), found.recon, kl)
    assert found == min((epoch.val for epoch in epochs), key=lambda val: val.loss)


def test_a_learned_variance_moves_to_the_best_one() -> None:
    seed_weights(0)
    model, images = models.create(FC, SHAPE, 4), pictures(100)
    settings = TrainSettings(16, 1e-2, 0, 60, 99, 0.0, objective=Objective(variance="learned"))
    epochs = list(fit(model, images, images, settings))
    squared_error = evaluate(model, images).recon
    assert model.decoder_log_variance is not None
    assert model.decoder_log_variance.exp().item() == pytest.approx(squared_error / 192, rel=0.05)
    assert epochs[0].val.loss > epochs[-1].val.loss + 50


def test_a_warm_up_raises_beta_update_by_update(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    warmed = loop._State.warmed
    monkeypatch.setattr(loop._State, "warmed", lambda *args: (seen.append(warmed(*args)), seen[-1])[1])
    _, epochs = train(objective=Objective(beta=2.0), warmup=1.5, max_epochs=3)  # 7 updates an epoch
    assert seen[:10] == pytest.approx([(i + 1) / 10.5 for i in range(10)])
    assert set(seen[10:]) == {1.0}
    for epoch in epochs:  # what is shown is the whole loss
        assert epoch.train.loss == pytest.approx(epoch.train.recon + 2 * epoch.train.kl, rel=1e-5)
    seen.clear()
    train(max_epochs=1)
    assert set(seen) == {1.0}
    monkeypatch.setattr(loop._State, "warmed", lambda *_: 0.5)
    half, _ = train(objective=Objective(beta=2.0), warmup=1.0, max_epochs=1)
    monkeypatch.undo()
    whole, _ = train(objective=Objective(beta=1.0), max_epochs=1)
    assert torch.equal(weights(half), weights(whole))
    _, free = train(objective=Objective(beta=50.0), warmup=1e9, max_epochs=4)
    _, bound = train(objective=Objective(beta=50.0), max_epochs=4)
    assert free[-1].train.kl > 5 * bound[-1].train.kl  # KL costs nothing yet


def test_early_stopping_waits_for_the_end_of_a_warm_up() -> None:
    stopping = EarlyStopping(3, 0.5, warmup=4.0)
    stops = []
    for epoch in range(1, 9):
        stopping.update(epoch, 90.0 + epoch)
        stops.append(stopping.should_stop(epoch))
    assert stops == [False] * 6 + [True] * 2


def test_a_gradient_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    class Watched(Adam):
        def step(self, lr: float) -> None:
            norms.append(float(torch.cat([p.grad.flatten() for p in self.parameters]).norm()))
            super().step(lr)

    monkeypatch.setattr(loop, "Adam", Watched)
    plain, _ = train(max_epochs=1)
    largest = max(norms)
    assert largest > 2
    norms.clear()
    clipped, _ = train(max_epochs=1, clip_grad_norm=2.0)
    assert max(norms) == pytest.approx(2.0, rel=1e-4)
    assert not torch.equal(weights(clipped), weights(plain))
    loose, _ = train(max_epochs=1, clip_grad_norm=2 * largest)
    assert torch.equal(weights(loose), weights(plain))
