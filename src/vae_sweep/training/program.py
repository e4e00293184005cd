"""A decoder as a short list of operations on its weights, which a web page can run without PyTorch.

``decode`` is run once under a ``TorchDispatchMode``, which sees every ATen operation whatever layers the model has.
Operations that only the weights enter are left out: their results are weights. Operations that only move values become
a ``gather``. The list is compared with the model before it is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vae_sweep.datasets.permuted import unshuffle
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import to_uint8

TOLERANCE = 1  # 8-bit level, at most, between the list and the model; the weights are rounded to float16

Operation = dict[str, Any]  # "f": its name; "x": the values that it takes, by index; and what :data:`RUN` reads
_UNARY = ("relu", "sigmoid", "tanh", "gelu", "silu")
_BINARY = ("add", "sub", "mul", "div")
_MOVES = (  # they change no value
    *("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "permute", "t", "transpose", "expand", "clone"),
    *("alias", "detach", "slice", "select", "index", "repeat", "flip", "roll", "pixel_shuffle", "upsample_nearest2d"),
)


class NotExportable(Exception):
    """Why a decoder has no list of operations that gives its images."""


@dataclass(frozen=True)
class Program:
    """``decode`` of one latent vector.

    Value 0 is the latents, (L,); operation i gives value i + 1; the last value is the image, flat. A weight is [offset,
    length] in ``weights``.
    """

    operations: list[Operation]
    weights: NDArray[np.float16]


class _Recorder(TorchDispatchMode):
    """Keeps what is computed from one latent vector ``z`` (1, L) while it is active."""

    def __init__(self, z: torch.Tensor) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.weights: list[torch.Tensor] = []
        self.known = {id(z): 0}  # tensor -> index of its value
        self.alive: list[Any] = [z]  # so that no id is used twice

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's own hook: here nothing is compiled, and importing its compiler takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(id(leaf) in self.known for leaf in tree_leaves(args)):
            out = result[0] if isinstance(result, tuple) else result
            self.known[id(out)] = self._record(func, args, kwargs or {}, out)
            self.alive.append(result)
        return result

    def finish(self, image: torch.Tensor, facts: Mapping[str, Any]) -> None:
        """Make ``image``, unshuffled, the last value."""
        if id(image) not in self.known:
            raise NotExportable("its images do not follow from the latents alone")
        order = np.arange(image.numel()).reshape(image.shape)
        self._gather(self.known[id(image)], torch.from_numpy(unshuffle(order, facts)))

    def _record(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: torch.Tensor) -> int:
        """Record one operation; return the index of its value."""
        name = func.overloadpacket.__name__.rstrip("_")  # relu_ works in place, and gives the same
        if name in _MOVES:
            positions = torch.arange(args[0].numel(), dtype=torch.float64).view(args[0].shape)
            return self._gather(self._value(args[0]), func(positions, *args[1:], **kwargs))
        if name in ("addmm", "mm"):
            return self._linear(*(args if name == "addmm" else (torch.zeros(out.shape[1]), *args)))
        if name == "convolution":
            return self._convolution(*args)
        if name == "native_batch_norm":
            return self._batch_norm(*args, shape=out.shape)
        if name == "leaky_relu":
            return self._leaky_relu(self._value(args[0]), args[1] if len(args) > 1 else 0.01)
        if name in _UNARY and kwargs.get("approximate", "none") == "none":
            return self._add(name, [self._value(args[0])])
        if name in _BINARY and kwargs.get("alpha", 1) == 1 and not kwargs.get("rounding_mode"):
            return self._binary(name, args[0], args[1], out.shape)
        raise NotExportable(f"its operation {name} is not one that the page can run")

    def _value(self, tensor: Any) -> int:
        if id(tensor) not in self.known:
            raise NotExportable("an operation takes weights where the page needs latents")
        return self.known[id(tensor)]

    def _weight(self, tensor: Any) -> list[int]:
        if id(tensor) in self.known:
            raise NotExportable("an operation takes latents where the page needs weights")
        start = sum(map(len, self.weights))
        self.weights.append(tensor.detach().flatten().half())
        return [start, tensor.numel()]

    def _add(self, name: str, taken: list[int], /, **more: Any) -> int:
        self.operations.append({"f": name, "x": taken, **more})
        return len(self.operations)

    def _gather(self, value: int, moved: torch.Tensor) -> int:
        """The values at positions ``moved``; no operation where nothing moves."""
        index = moved.flatten().long().tolist()
        is_last = value == len(self.operations)
        return value if is_last and index == list(range(len(index))) else self._add("gather", [value], index=index)

    def _linear(self, bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> int:
        if x.shape[0] != 1:
            raise NotExportable(f"a linear layer takes {x.shape[0]} vectors of one image")
        return self._add("linear", [self._value(x)], w=self._weight(weight.t()), b=self._weight(bias))

    def _convolution(self, *args: Any) -> int:
        x, weight, bias, stride, padding, dilation, transposed, more, groups = args
        if x.dim() != 4 or set(dilation) != {1} or groups != 1:
            raise NotExportable("a convolution is not over two dimensions, or has dilation or groups")
        bias = torch.zeros(weight.shape[1 if transposed else 0]) if bias is None else bias
        name = "conv_transpose" if transposed else "conv"
        sizes = {"in": list(x.shape[1:]), "kernel": list(weight.shape)}
        moves = {"stride": stride, "padding": padding, "more": more}
        return self._add(name, [self._value(x)], w=self._weight(weight), b=self._weight(bias), **sizes, **moves)

    # The arguments of ATen's native_batch_norm, in its order.
    def _batch_norm(self, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, *args: Any, shape: Any) -> int:
        scale = torch.rsqrt(variance + args[-1]) * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        channels = (-1, *[1] * (len(shape) - 2))
        scaled = self._binary("mul", x, scale.view(channels), shape)
        return self._add("add", [scaled], w=self._weight(shift.view(channels).expand(shape)))

    def _leaky_relu(self, x: int, slope: float) -> int:
        """slope * x + (1 - slope) * relu(x)."""
        parts = (x, slope), (self._add("relu", [x]), 1 - slope)
        return self._add("add", [self._add("mul", [value], w=self._weight(torch.tensor([by]))) for value, by in parts])

    def _binary(self, name: str, x: Any, y: Any, shape: torch.Size) -> int:
        """x op y, one of which may be weights; sub and div take weights as y alone."""
        if id(x) not in self.known and name in ("add", "mul"):
            x, y = y, x
        if id(y) in self.known:
            return self._add(name, [self._spread(x, shape), self._spread(y, shape)])
        constant = torch.as_tensor(y, dtype=torch.float32)
        constant = constant if constant.numel() == 1 else constant.expand(shape)
        return self._add(name, [self._spread(x, shape)], w=self._weight(constant))

    def _spread(self, tensor: Any, shape: torch.Size) -> int:
        value, positions = self._value(tensor), torch.arange(tensor.numel()).view(tensor.shape)
        return value if tensor.shape == shape else self._gather(value, positions.expand(shape))


@torch.no_grad()
def record(model: VAE, latents: torch.Tensor, facts: Mapping[str, Any]) -> Program:
    """Return the decoder of ``model``; it has been compared with ``decode(latents)``, latents being (N, L).

    Where the ``facts`` of the dataset say that its pixels are permuted, the program's image is unshuffled.

    Raises:
        NotExportable: for an operation that is not in the list, and for images more than :data:`TOLERANCE` apart.
    """
    z = latents[:1].clone()
    recorder = _Recorder(z)
    with recorder:
        image = model.decode(z)
    recorder.finish(image, facts)
    program = Program(recorder.operations, torch.cat(recorder.weights or [z[0, :0].half()]).numpy())
    expected = unshuffle(to_uint8(model.decode(latents)), facts).reshape(len(latents), -1)
    apart = int(np.abs(to_uint8(run(program, latents)).astype(int) - expected).max())
    if apart > TOLERANCE:
        raise NotExportable(f"its float16 operations give images {apart} levels of 255 from the model's")
    return program


def run(program: Program, latents: torch.Tensor) -> torch.Tensor:
    """Return the images of ``latents`` (N, L) as the web page computes them, each flat: (N, C*H*W)."""
    weights = torch.from_numpy(program.weights).float()
    values = [latents]
    for operation in program.operations:
        taken = [values[index] for index in operation["x"]]
        constants = {key: weights[at : at + n] for key in ("w", "b") if key in operation for at, n in [operation[key]]}
        values.append(RUN[operation["f"]](operation, *taken, **constants).flatten(1))
    return values[-1]


def _linear(_: Operation, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w.view(len(b), x.shape[1]), b)


def _convolution(operation: Operation, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    images, kernel = x.view(-1, *operation["in"]), w.view(operation["kernel"])
    return F.conv2d(images, kernel, b, operation["stride"], operation["padding"])


def _transposed(operation: Operation, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    images, kernel = x.view(-1, *operation["in"]), w.view(operation["kernel"])
    more = operation["more"]  # output padding
    return F.conv_transpose2d(images, kernel, b, operation["stride"], operation["padding"], more)


def _unary(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda _, x: function(x)


def _binary(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda operation, x, y=None, w=None: function(x, w if y is None else y)


RUN: dict[str, Callable[..., torch.Tensor]] = {  # each for values (N, ...); the script of the page has the same names
    "linear": _linear,
    "conv": _convolution,
    "conv_transpose": _transposed,
    "gather": lambda operation, x: x[:, operation["index"]],
    **{name: _unary(getattr(F, name) if hasattr(F, name) else getattr(torch, name)) for name in _UNARY},
    **{name: _binary(getattr(torch, name)) for name in _BINARY},
}
