"""The device and how it computes: precision, determinism, memory format, denormal numbers."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

import torch

from vae_sweep.base.errors import UserError
from vae_sweep.models.vae import VAE

T = TypeVar("T")

PRECISIONS = ("float32", "tf32", "bfloat16")  # of matrix products and convolutions in training
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}  # instructions that multiply bfloat16
AMPERE = (8, 0)  # compute capability of the first NVIDIA GPUs with TF32 and bfloat16
OPERATIONS = ("cuda.matmul", "cudnn.conv", "cudnn.rnn", "mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn")


def resolve_device(name: str, precision: str = "float32", compiled: bool | str = False) -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        UserError: where this machine does not have it, it does not compute in ``precision``, or the model is to be
            ``compiled`` and what PyTorch's compiler needs is missing.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and (not cuda or int(index or 0) >= torch.cuda.device_count()):
        raise UserError(
            f"training.device={name}: PyTorch sees {torch.cuda.device_count()} CUDA devices here; give auto or cpu"
        )
    if kind == "mps" and not mps:
        raise UserError("training.device=mps: PyTorch sees no Apple GPU here; give auto or cpu")
    device = torch.device(name)
    if not computes_in(precision, device):
        possible = [choice for choice in PRECISIONS if computes_in(choice, device)]
        raise UserError(
            f"training.precision={precision}: {device} ({device_name(device)}) with PyTorch {torch.__version__} does "
            f"not compute in it; give {' or '.join(possible)}"
        )
    if compiled and (missing := _compiler_lacks(device)):
        raise UserError(
            f"training.compile={str(compiled).lower()}: PyTorch's compiler needs {missing} for {device}, which is not "
            "here; install it, or give training.compile=false"
        )
    return device


def _compiler_lacks(device: torch.device) -> str | None:
    """Return what `torch.compile` generates code for or with, where this machine does not have it."""
    if device.type == "cpu":
        command = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
        return None if shutil.which(command) else f"a C++ compiler ({command})"
    return "Triton" if device.type == "cuda" and find_spec("triton") is None else None


def choose_precision(device: torch.device) -> tuple[str, str]:
    """Return what ``training.precision=auto`` stands for on ``device``, and why.

    bfloat16 where the hardware multiplies it, which saves a third of the time or more; else float32.
    """
    if device.type == "cuda" and computes_in("bfloat16", device):
        return "bfloat16", f"{device_name(device)} multiplies it in hardware"
    found = cpu_flags() & BFLOAT16_FLAGS if device.type == "cpu" else set()
    if found:
        return "bfloat16", f"this processor multiplies it in hardware ({', '.join(sorted(found))})"
    return "float32", f"{device_name(device)} is not known to multiply bfloat16 in hardware"


def cpu_flags() -> set[str]:
    """Return the instruction sets of this processor, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


def computes_in(precision: str, device: torch.device) -> bool:
    """Return whether ``device`` really computes in ``precision``; PyTorch falls back to another one silently."""
    if precision == "float32":
        return True
    if device.type == "cuda":
        amd = torch.version.hip is not None  # has bfloat16, and no TF32 to rely on
        return precision == "bfloat16" if amd else torch.cuda.get_device_capability(device) >= AMPERE
    return precision == "bfloat16" and _autocasts(device)


def _autocasts(device: torch.device) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.5 only warns that MPS has no bfloat16, and turns autocast off
            with torch.autocast(device.type, torch.bfloat16):
                return torch.is_autocast_enabled(device.type)
    except RuntimeError:  # PyTorch 2.4 has no autocast for MPS
        return False


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a model's matrix products have this ``precision``."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


@contextmanager
def _older_switches() -> Iterator[None]:
    """While inside, PyTorch 2.9 does not warn about the switches that other code, its own compiler too, still reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        yield


@contextmanager
def numerics(precision: str = "float32") -> Iterator[None]:
    """While inside, float32 matrix products round as ``precision`` says, the same in every run; then as before.

    By default PyTorch lets cuDNN round the factors of convolutions to TF32 (10 bits of mantissa) and leaves matrix
    products alone, so that a GPU would compute convolutional models less exactly than others. With "tf32" both are
    rounded, else neither. cuDNN takes deterministic algorithms, and the same ones each time.
    """
    tf32 = precision == "tf32"
    cudnn = torch.backends.cudnn
    # PyTorch 2.9 has a switch for each operation, and raises where those and the older two contradict each other.
    operations = [attrgetter(name)(torch.backends) for name in OPERATIONS] if hasattr(cudnn, "conv") else []
    matmul = _unless_mixed(torch.get_float32_matmul_precision)
    convolutions = _unless_mixed(lambda: cudnn.allow_tf32)
    before = [operation.fp32_precision for operation in operations]
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark

    @_older_switches()
    def switch(matmul: str | None, convolutions: bool | None, precisions: list[str]) -> None:
        if matmul is not None:
            torch.set_float32_matmul_precision(matmul)
        if convolutions is not None:
            cudnn.allow_tf32 = convolutions
        for operation, value in zip(operations, precisions, strict=True):
            operation.fp32_precision = value

    switch("high" if tf32 else "highest", tf32, ["tf32" if tf32 else "ieee"] * len(operations))
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        switch(matmul, convolutions, before)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark


@_older_switches()
def _unless_mixed(read: Callable[[], T]) -> T | None:
    """Return a switch of the older kind, or None where those of the newer kind contradict it."""
    try:
        return read()
    except RuntimeError:
        return None


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """While inside, this CPU thread, and threads that it starts, take numbers nearer to 0 than 1e-38 for 0.

    Adam's averages of the gradient of a dead unit shrink by a tenth with every update. After some 900 they would stay
    at the least that float32 can hold, and arithmetic with such denormal numbers is so slow that fc would train at a
    third of its speed. They are far too small to change a weight.
    """
    before = float(torch.full((1,), 1e-40) * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def memory_format_of(model: VAE, device: torch.device, channels_last: bool | str = "auto") -> torch.memory_format:
    """Return the memory format to compute in: with "auto", channels last for convolutions on a CPU.

    There it takes a quarter off their time without gradients, and 6 to 8 % with them. A model without convolutions
    would only lose by it, and on GPUs it is not always right (Apple's, PyTorch 2.5; compiled gradients of transposed
    convolutions).
    """
    wanted = device.type == "cpu" if channels_last == "auto" else channels_last
    has_convolutions = any(parameter.dim() == 4 for parameter in model.parameters())
    return torch.channels_last if wanted and has_convolutions else torch.contiguous_format


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type to add up losses in: Apple GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def device_name(device: torch.device) -> str:
    """Return what the device calls itself: ``NVIDIA H100``, or the CPU's kind and instructions: ``x86_64 AVX512``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else "Apple GPU"


def device_tags(device: torch.device, precision: str) -> dict[str, str]:
    """Return what a run records of where and how its numbers were computed."""
    return {
        "vae_sweep.device": str(device),
        "vae_sweep.device.name": device_name(device),
        "vae_sweep.numerics": f"training in {precision}, evaluation in float32; cuDNN deterministic",
    }
