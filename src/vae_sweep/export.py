"""A trained model for other programs: ``python -m vae_sweep.export run=<run id or checkpoint> format=onnx``."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_sweep import __version__, api
from vae_sweep.base.errors import UserError
from vae_sweep.base.system import resolve_path
from vae_sweep.config.options import option, run_command
from vae_sweep.metrics.losses import equation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from vae_sweep.models import VAE

FORMATS = {  # packages beside PyTorch that each needs
    "pt2": (),
    "onnx": ("onnx", "onnxruntime"),
    "safetensors": ("safetensors",),
}
TOLERANCE = 1e-4  # of images, means and log variances, or of weights; of a pixel in [0, 1] a 40th of an 8-bit level
CHECKED = (1, 5)  # images at once: a program may use batches of any size


@dataclass
class Options:
    """Write a trained model's encoder and decoder for other programs, and check that they give the same images."""

    run: str = option("id of a finished run, its name in the last sweep, last, or path of a checkpoint.pt")
    format: str = option(
        "onnx (ONNX Runtime and others), pt2 (torch.export.load) or safetensors (the weights alone, for this class)",
        "onnx",
    )
    out: str | None = option("folder; null: one of the run's name and id in outputs/exported", None)
    license: str | None = option("of the weights, for the card beside them, such as cc-by-4.0", None)
    uri: str | None = option("tracking store of a run id; null: as in training, seen from this folder", None)
    model: str | None = option("the model's class where it is not vae_sweep's own, such as my_vae.MyVAE", None)


def main() -> None:
    """Entry point of ``python -m vae_sweep.export``."""

    def work(options: Options) -> None:
        files, difference = export(options, Path.cwd())
        print("\n".join(map(str, files)))
        compared = "weights" if options.format == "safetensors" else "images, means and log variances"
        print(f"checked: the largest difference from the trained model is {difference:.1g} (of {compared})")

    run_command("export", Options, work)


def export(options: Options, root: Path) -> tuple[list[Path], float]:
    """Write the files; return them, and their largest difference from the model.

    It is that of images, means and log variances, on prior draws and noise; of weights for safetensors.

    Raises:
        UserError: for a run that cannot be read, a format whose packages are missing, a model that PyTorch cannot
            export, or files that give other images.
    """
    if options.format not in FORMATS:
        raise UserError(f"format={options.format}: must be one of {', '.join(FORMATS)}")
    missing = [name for name in FORMATS[options.format] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"format={options.format}: needs {', '.join(missing)}; pip install 'vae-sweep[export]'")
    model, content = api.open_checkpoint(options.run, root, options.uri, options.model)
    print(api.name_of(content), file=sys.stderr)
    import torch

    label = api.file_name(content, options.format)
    folder = resolve_path(root, options.out, "out") if options.out else root / "outputs" / "exported" / label
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch's exporters about themselves
            files, difference = (
                _safetensors(model, content, folder)
                if options.format == "safetensors"
                else _programs(model, options.format, folder)
            )
        card = folder / "README.md"
        if difference <= TOLERANCE:
            card.write_text(_card(content, options, model, files, difference), encoding="utf-8")
        else:
            _remove(files, folder)
    except OSError as error:
        raise UserError(f"out={folder}: cannot be written ({error.strerror}); give another out=") from error
    if not difference <= TOLERANCE:
        raise UserError(
            f"format={options.format}: the exported model differs by {difference:.2g} from the trained one, more than "
            f"{TOLERANCE:g}; use another format"
        )
    return [*files, card], difference


def _remove(files: list[Path], folder: Path) -> None:
    """Delete what was written, with the weights that ONNX may keep beside, and the folder if it is empty."""
    for file in files:
        for part in folder.glob(f"{file.name}*"):
            part.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _programs(model: VAE, kind: str, folder: Path) -> tuple[list[Path], float]:
    """Encoder (images to posterior mean and log variance) and decoder (latents to images), each a file."""
    import torch

    source = torch.Generator().manual_seed(0)
    examples = {
        "decoder": torch.randn(max(CHECKED), model.latent_dim, generator=source),
        "encoder": torch.rand(max(CHECKED), *model.image_shape, generator=source),
    }
    files: list[Path] = []
    differences: list[float] = []
    for part, example in examples.items():
        module = _part(model, part)
        path = folder / f"{part}.{kind}"
        try:
            run = (_onnx if kind == "onnx" else _pt2)(module, example, path)
        except OSError:
            raise
        except Exception as error:  # of many kinds, and many lines
            _remove([*files, path], folder)
            reason = next(iter(str(error).strip().splitlines()), "")
            raise UserError(
                f"format={kind}: PyTorch cannot export the {part} of {type(model).__name__} "
                f"({type(error).__name__}: {reason[:200]}); format=safetensors writes the weights alone"
            ) from error
        for n in CHECKED:
            pairs = zip(run(example[:n]), _outputs(module(example[:n])), strict=True)
            differences += [float((found - wanted).abs().max()) for found, wanted in pairs]
        files.append(path)
    return files, max(differences)


def _part(model: VAE, part: str) -> nn.Module:
    from torch import Tensor, nn

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vae = model

        def forward(self, latents: Tensor) -> Tensor:
            return self.vae.decode(latents)

    class Encoder(Decoder):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            posterior = self.vae.encode(images)
            return posterior.mean, posterior.logvar

    return (Decoder if part == "decoder" else Encoder)().eval()


def _outputs(found: Any) -> tuple[torch.Tensor, ...]:
    return found if isinstance(found, tuple) else (found,)


def _pt2(module: nn.Module, example: torch.Tensor, path: Path) -> Any:
    import torch

    batch = torch.export.Dim("batch", min=1)
    torch.export.save(torch.export.export(module, (example,), dynamic_shapes=({0: batch},)), path)
    loaded = torch.export.load(path).module()
    return lambda batch: _outputs(loaded(batch))


def _onnx(module: nn.Module, example: torch.Tensor, path: Path) -> Any:
    import onnxruntime
    import torch

    decodes = example.dim() == 2
    given, returned = ("latents", ["images"]) if decodes else ("images", ["mean", "logvar"])
    torch.onnx.export(
        module,
        (example,),
        str(path),
        dynamo=False,  # the exporter of all versions of PyTorch allowed; it needs no more than these models have
        input_names=[given],
        output_names=returned,
        dynamic_axes={name: {0: "batch"} for name in (given, *returned)},
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda batch: tuple(map(torch.from_numpy, session.run(None, {given: batch.numpy()})))


def _safetensors(model: VAE, content: dict[str, Any], folder: Path) -> tuple[list[Path], float]:
    """The weights by name, with the configuration in the file's metadata."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    # each a copy: tied weights share their memory
    state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}
    metadata = {"config": json.dumps(content["config"]), "image_shape": json.dumps(list(model.image_shape))}
    save_file(state, path, {**metadata, "latent_dim": str(model.latent_dim)})
    stored = load_file(path)
    differences = [(stored[name].double() - tensor.double()).abs() for name, tensor in state.items() if tensor.numel()]
    return [path], max([float(difference.max()) for difference in differences], default=0.0)


def _card(content: dict[str, Any], options: Options, model: VAE, files: list[Path], difference: float) -> str:
    """A model card: what it is, what it was trained on, its loss, how the files are used."""
    config, facts = content["config"], content["facts"]
    channels, height, width = model.image_shape
    test, objective = facts.get("test", {}), config.get("objective", {})
    known = {"loss", "recon", "kl"} <= test.keys() and "beta" in objective
    terms = {key: test[key] for key in ("loss", "recon", "kl")} if known else {}
    loss = (
        equation(**terms, beta=objective["beta"], reduction=objective.get("reduction", "sum")) if known else "unknown"
    )
    order = "in the fixed order of vae_sweep.datasets.permuted.pixel_order, in images and from the decoder"
    permuted = f"| pixels | {order} |\n" if config["dataset"].get("permute_pixels") else ""
    head = {"license": options.license or "unknown", "library_name": "pytorch", "tags": ["vae", "vae_sweep"]}
    how = {
        "onnx": "`onnxruntime.InferenceSession('decoder.onnx').run(None, {'latents': z})`",
        "pt2": "`torch.export.load('decoder.pt2').module()(z)`",
        "safetensors": "`safetensors.torch.load_file('model.safetensors')`; the metadata hold the configuration",
    }[options.format]
    return f"""---
{chr(10).join(f"{key}: {json.dumps(value)}" for key, value in head.items())}
---
# {facts["name"]}

A variational autoencoder ({type(model).__name__}, {model.latent_dim} latents) of images in [0, 1],
{channels}x{height}x{width}.

| | |
|---|---|
| data | {config["dataset"]["name"]}, seed {config.get("seed", "unknown")} |
{permuted}| hyperparameters | {", ".join(f"{key} {value}" for key, value in config.get("params", {}).items())} |
| test loss = recon + beta * kl | {loss} |
| license of the weights | {options.license or "not stated"} |
| license of the images | see the dataset |
| made by | vae_sweep {__version__} |

Files: {", ".join(file.name for file in files)}. To use them: {how}.
`z` is float32, (n, {model.latent_dim}), drawn from N(0, I).
Largest difference from the trained model: {difference:.1g}.
"""


if __name__ == "__main__":
    main()
