"""Device and precision: what is promised is what computes, the same in training on every device, and recorded."""

from __future__ import annotations

import copy
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from running import BASIC
from vae_sweep import models
from vae_sweep.base.errors import UserError
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.vae import Posterior
from vae_sweep.training import device
from vae_sweep.training.device import choose_precision, computes_in, numerics, resolve_device
from vae_sweep.training.loop import TrainSettings, fit
from vae_sweep.training.randomness import seed_weights

SHAPE = (3, 8, 8)
SETTINGS = {"batch_size": 16, "lr": 3e-3, "seed": 0, "max_epochs": 2, "patience": 9, "min_delta": 0.0}
NEWER = hasattr(torch.backends.cudnn, "conv")  # a switch for each operation, from PyTorch 2.9 on


def switches() -> tuple[bool, bool, bool, bool]:
    """TF32 in matrix products and in cuDNN; cuDNN deterministic, and choosing algorithms by their time."""
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark


def images(n: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


class Watching(FCVAE):
    """Notes the switches of each forward and backward pass, and whether it was trained in it."""

    def __init__(self) -> None:
        super().__init__(SHAPE, 4, [8])
        self.seen: set[tuple] = set()

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, Posterior]:
        reconstruction, posterior = super().forward(x, noise)
        self.seen.add((self.training, *switches()))
        if self.training:
            reconstruction.register_hook(lambda gradient: self.seen.add(("backward", *switches())))
        return reconstruction, posterior


@pytest.fixture(autouse=True)
def other_switches() -> Iterator[None]:
    """Each test starts from switches that a user may have set, and leaves PyTorch as it was."""
    backends = torch.backends
    before = switches()
    backends.cuda.matmul.allow_tf32 = backends.cudnn.allow_tf32 = backends.cudnn.benchmark = True
    yield
    matmul, convolutions, backends.cudnn.deterministic, backends.cudnn.benchmark = before
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = matmul, convolutions


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_fit_computes_in_the_precision_that_is_asked_for_and_evaluates_in_float32(precision: str, tf32: bool) -> None:
    model = Watching()
    for _epoch in fit(model, images(40, 0), images(20, 1), TrainSettings(**SETTINGS, precision=precision)):
        assert switches() == (True, True, False, True)  # between epochs, and after them, they are the user's
    training = (tf32, tf32, True, False)
    assert model.seen == {(True, *training), ("backward", *training), (False, False, False, True, False)}


@pytest.mark.skipif(not NEWER, reason="this PyTorch has no switch for each operation")
@pytest.mark.parametrize("name", ["cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv"])
def test_switches_of_the_newer_kind_are_obeyed_and_restored(name: str) -> None:
    """PyTorch raises where a program has used both kinds and an older switch is read."""
    area, operation = name.split(".")
    switch = getattr(getattr(torch.backends, area), operation)
    before = switch.fp32_precision
    for users in ("ieee", "tf32"):
        switch.fp32_precision = users
        with numerics("float32"):
            assert switch.fp32_precision == "ieee"
            assert switches() == (False, False, True, False)
        assert switch.fp32_precision == users
    switch.fp32_precision = before


def test_matrix_products_of_a_cpu_are_float32_too() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")  # oneDNN may then round factors to bfloat16
    try:
        with numerics("float32"):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None = None) -> None:
    """Let PyTorch report one GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.version, "hip", hip)


@pytest.mark.parametrize(
    ("capability", "hip", "possible"),
    [
        ((7, 5), None, {"float32"}),
        ((8, 0), None, {"float32", "tf32", "bfloat16"}),
        ((9, 0), None, {"float32", "tf32", "bfloat16"}),
        ((9, 0), "6.2", {"float32", "bfloat16"}),
    ],
)
@pytest.mark.parametrize("name", ["auto", "cuda:0"])
def test_a_precision_that_the_gpu_has_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, capability: tuple[int, int], hip: str | None, possible: set[str]
) -> None:
    gpu(monkeypatch, capability, hip)
    for precision in ("float32", "tf32", "bfloat16"):
        if precision in possible:
            assert resolve_device(name, precision).type == "cuda"
        else:
            with pytest.raises(UserError, match=rf"training\.precision={precision}: cuda.* \(Some GPU\).*; give float"):
                resolve_device(name, precision)


@pytest.mark.parametrize(
    ("capability", "hip", "chosen"),
    [((7, 5), None, "float32"), ((8, 0), None, "bfloat16"), ((9, 0), "6.2", "bfloat16")],
)
def test_auto_is_bfloat16_where_the_gpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], hip: str | None, chosen: str
) -> None:
    gpu(monkeypatch, capability, hip)
    found, why = choose_precision(resolve_device("auto"))
    assert found == chosen
    assert "Some GPU" in why


@pytest.mark.parametrize("flags", [set(), {"avx512f"}, {"avx512f", "amx_bf16"}, {"avx512_bf16"}])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch, flags: set[str]) -> None:
    monkeypatch.setattr(device, "cpu_flags", lambda: flags)
    found, why = choose_precision(torch.device("cpu"))
    has = flags & {"amx_bf16", "avx512_bf16"}
    assert found == ("bfloat16" if has else "float32")
    assert all(flag in why for flag in has)


def test_auto_is_recorded_as_what_it_chose(command, project: Path) -> None:
    chosen, why = choose_precision(torch.device("cpu"))
    asked = ["params=tiny", "experiment=smoke", "training.device=cpu", BASIC]
    done = command("-m", "model=linear", *asked, "training.precision=auto", cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"training.precision=auto: {chosen}, since {why}" in done.stdout
    again = command("-m", "model=linear", *asked, f"training.precision={chosen}", cwd=project)  # the same run
    assert "is already finished, as run" in again.stdout
    with sqlite3.connect(project / "mlflow.db") as store:
        values = store.execute("SELECT value FROM params WHERE key = 'training.precision'").fetchall()
    assert values == [(chosen,)]


def no_autocast(device_type: str, *arguments: object, **options: object) -> None:
    raise RuntimeError(f"User specified an unsupported autocast device_type '{device_type}'")  # as PyTorch 2.4 does


def test_bfloat16_on_an_apple_gpu_whose_pytorch_has_no_autocast_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch, "autocast", no_autocast)
    assert resolve_device("mps").type == "mps"
    with pytest.raises(UserError, match=r"bfloat16: mps \(Apple GPU\) with PyTorch \S+ does not .*; give float32$"):
        resolve_device("mps", "bfloat16")


def test_float32_needs_no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", no_autocast)
    seed_weights(0)
    model = models.create({"_target_": "vae_sweep.models.fc.FCVAE", "hidden_dims": [8]}, SHAPE, 4)
    assert len(list(fit(model, images(40, 0), images(20, 1), TrainSettings(**SETTINGS)))) == 2


def test_an_autocast_that_turns_itself_off_is_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)  # as on MPS in PyTorch 2.5
    assert not computes_in("bfloat16", torch.device("cpu"))


def test_a_precision_that_the_device_has_not_ends_the_command_before_the_first_run(command, tmp_path: Path) -> None:
    asked = ["experiment=smoke", "params=tiny", "training.device=cpu", "training.precision=tf32"]
    for arguments in (asked, ["-m", *asked, "model=fc,conv"]):
        done = command(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "vae_sweep: training.precision=tf32: cpu (" in done.stderr
        assert "does not compute in it; give float32 or bfloat16" in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert not (tmp_path / "mlflow.db").exists()


def test_what_the_compiler_of_pytorch_needs_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert resolve_device("cpu").type == "cpu"
    with pytest.raises(UserError, match=r"compile=true: .*C\+\+ compiler \(no-such-compiler\) for cpu.*compile=false"):
        resolve_device("cpu", compiled=True)
    gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(device, "find_spec", lambda name: object())
    assert resolve_device("cuda", compiled="reduce-overhead").type == "cuda"
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"training\.compile=reduce-overhead: .*needs Triton for cuda"):
        resolve_device("cuda", compiled="reduce-overhead")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="PyTorch's compiler needs g++")
@pytest.mark.parametrize("mode", [True, "reduce-overhead"])
def test_a_compiled_model_trains_as_a_plain_one_and_continues_to_the_bit(mode: bool | str) -> None:
    def train(compiled: bool | str, snapshot: dict | None = None) -> tuple[list, models.VAE, dict]:
        seed_weights(0)
        model = FCVAE(SHAPE, 4, [8])
        settings = TrainSettings(**SETTINGS, compile=compiled)
        epochs = fit(model, images(40, 0), images(20, 1), settings, snapshot=copy.deepcopy(snapshot))
        found = [(epoch.val.loss, copy.deepcopy(epoch.snapshot())) for epoch in epochs]  # the last batch is smaller
        return [loss for loss, _ in found], model, found[0][1]

    plain, _, _ = train(False)
    losses, model, after_one = train(mode)
    assert losses == pytest.approx(plain, rel=1e-5)
    continued, again, _ = train(mode, after_one)
    assert continued == losses[1:]
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
