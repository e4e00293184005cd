"""Adam and the one-cycle schedule, to the bit as ``torch.optim`` has them, without its classes.

The first step of every optimizer of ``torch.optim`` imports PyTorch's compiler, which takes a second and 150 MB of each
process. The function that those classes call does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adam import adam

BETAS, EPS = (0.9, 0.999), 1e-8  # torch.optim.Adam's defaults


class Adam:
    """Adam (Kingma & Ba 2015) with PyTorch's defaults, fused where the device can.

    Parameters without a gradient stay as they are. The state has the format of ``torch.optim.Adam``.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self.parameters = list(parameters)
        self.fused = self.parameters[0].device.type in ("cpu", "cuda")
        self.state: dict[int, dict[str, torch.Tensor]] = {}  # by the parameter's position, once it has had a gradient

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the parameters by their gradients with learning rate ``lr``."""
        chosen = [(p, p.grad, self._state(i)) for i, p in enumerate(self.parameters) if p.grad is not None]
        adam(
            params=[p for p, _, _ in chosen],
            grads=[gradient for _, gradient, _ in chosen],
            exp_avgs=[state["exp_avg"] for _, _, state in chosen],
            exp_avg_sqs=[state["exp_avg_sq"] for _, _, state in chosen],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for _, _, state in chosen],
            fused=self.fused,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=lr,
            weight_decay=0.0,
            eps=EPS,
            maximize=False,
        )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _state(self, i: int) -> dict[str, torch.Tensor]:
        """The state of parameter ``i``, zeros at first."""
        if i not in self.state:
            p = self.parameters[i]
            step = torch.zeros((), dtype=torch.float32, device=p.device if self.fused else None)
            self.state[i] = {"step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        return self.state[i]

    def state_dict(self) -> dict[str, Any]:
        """Return the state: the tensors themselves, no copies."""
        return {"state": self.state}

    def load_state_dict(self, found: dict[str, Any]) -> None:
        """Take over a state of this class or of ``torch.optim.Adam``."""
        for i, state in found["state"].items():
            for key, own in self._state(i).items():  # which has the parameter's device and memory format
                own.copy_(state[key])


def one_cycle(step: int, lr: float, steps: int) -> float:
    """Return the learning rate of update ``step``, counted from 0, of ``steps``.

    It rises from lr / 25 to lr in 30 % of the steps, then falls to a ten-thousandth of where it began, both along a
    cosine (Smith & Topin 2018): ``OneCycleLR``'s defaults. Adam's betas stay what they are.
    """
    top, last, low = 0.3 * steps - 1, steps - 1, lr / 25
    if step <= top:
        return _cosine(low, lr, step / top)
    return _cosine(lr, low / 1e4, (step - top) / (last - top))


def _cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` as ``share`` goes from 0 to 1."""
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
