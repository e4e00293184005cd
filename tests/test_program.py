"""A decoder's list of operations gives the decoder's images, or is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pytest
import torch

import decoders
from vae_sweep.config.schema import config_dir
from vae_sweep.datasets.permuted import PERMUTED, unshuffle
from vae_sweep.models.conv import ConvVAE
from vae_sweep.models.conv_dct import FrequencyConvVAE
from vae_sweep.models.conv_res import ResidualConvVAE
from vae_sweep.models.fc import FCVAE
from vae_sweep.models.fc_dct import FrequencyFCVAE
from vae_sweep.models.fc_matched import MatchedFCVAE
from vae_sweep.models.fc_res import ResidualFCVAE
from vae_sweep.models.fc_skip import SkipFCVAE
from vae_sweep.models.linear import LinearVAE
from vae_sweep.models.vae import VAE
from vae_sweep.training.evaluation import to_uint8
from vae_sweep.training.program import RUN, NotExportable, record, run

COLOUR, GREY = (3, 16, 8), (1, 16, 16)
SHIPPED: dict[str, Callable[[], VAE]] = {
    "fc": lambda: FCVAE(COLOUR, 6, [40, 20]),
    "fc_matched": lambda: MatchedFCVAE(GREY, 5, [4, 8]),
    "fc_skip": lambda: SkipFCVAE(COLOUR, 6, [40, 20]),
    "fc_res": lambda: ResidualFCVAE(GREY, 6, 24, 2),
    "linear": lambda: LinearVAE(COLOUR, 7),
    "conv": lambda: ConvVAE(COLOUR, 6, [4, 8, 16]),
    "conv_res": lambda: ResidualConvVAE(COLOUR, 6, [4, 8], 24, 2),
    "fc_dct": lambda: FrequencyFCVAE(GREY, 6, 24, 2),
    "conv_dct": lambda: FrequencyConvVAE(COLOUR, 6, [4, 8], 24, 2),
}


def trained(make: Callable[[], VAE]) -> VAE:
    """With weights as none is at the start: no layer is zero, and images are far from grey."""
    torch.manual_seed(0)
    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model.eval()


def latents(model: VAE, n: int = 12, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, model.latent_dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("make", [*SHIPPED.values(), decoders.Everything], ids=[*SHIPPED, "every operation"])
@pytest.mark.parametrize("permuted", [False, True])
def test_it_gives_the_images_of_the_model(make: Callable[[], VAE], permuted: bool) -> None:
    model, facts = trained(make), {PERMUTED: permuted}
    program = record(model, latents(model), facts)
    z = latents(model, 40, seed=2)  # others than those that it was checked with
    with torch.no_grad():
        expected = unshuffle(to_uint8(model.decode(z)), facts).reshape(len(z), -1)
    found = to_uint8(run(program, z))
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert expected.std(0).mean() > 2  # or any image would do
    assert program.weights.dtype == np.float16


def test_every_architecture_is_among_them() -> None:
    assert sorted(path.stem for path in (config_dir() / "model").glob("*.yaml")) == sorted(SHIPPED)


def test_every_operation_is_used_and_the_page_has_them_all() -> None:
    program = record(trained(decoders.Everything), latents(trained(decoders.Everything)), {})
    used = {operation["f"] for operation in program.operations}
    assert used == set(RUN)
    script = files("vae_sweep.report").joinpath("templates/explore.js").read_text(encoding="utf-8")
    table = re.search(r"const RUN = \{(.*?)\n\};", script, re.DOTALL)
    assert table is not None
    assert set(RUN) <= set(re.findall(r"\b\w+\b", table[1]))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (decoders.Softmax, "softmax"),
        (decoders.Branching, "levels"),
        (decoders.Huge, "levels"),
        (decoders.Constant, "latents"),
        (decoders.Grouped, "groups"),
    ],
)
def test_what_it_cannot_give_is_refused(make: Callable[[], VAE], why: str) -> None:
    model = trained(make)
    with pytest.raises(NotExportable, match=why):
        record(model, latents(model), {})


def test_it_draws_from_no_generator_and_leaves_the_model_as_it_was() -> None:
    model = trained(SHIPPED["conv"])
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    record(model, latents(model), {})
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
