from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from vae_sweep.config import schema
from vae_sweep.datasets import Source
from vae_sweep.datasets.celeba import CelebA
from vae_sweep.datasets.cifar10 import Cifar10
from vae_sweep.datasets.folder import Folder
from vae_sweep.datasets.shapes import Shapes

CONF = Path(__file__).parents[2] / "conf" / "dataset"
PAIRS = [
    (schema.Cifar10Dataset, Cifar10),
    (schema.CelebADataset, CelebA),
    (schema.FolderDataset, Folder),
    (schema.ShapesDataset, Shapes),
]


def fields(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(cls) if field.name != "_target_"}


@pytest.mark.parametrize(("schema", "source"), PAIRS)
def test_schema_yaml_and_source_agree(schema: Any, source: type[Source]) -> None:
    assert fields(schema).keys() == fields(source).keys() | {
        "permute_pixels",
        "max_images",
    }  # which every source can have
    values = yaml.safe_load((CONF / f"{schema.name}.yaml").read_text())
    assert values.pop("defaults") == [f"/schema/dataset/{schema.name}@_here_", "_self_"]
    assert values.pop("_target_") == schema._target_ == f"{source.__module__}.{source.__name__}"
    assert values.pop("max_images") is fields(schema)["max_images"] is None
    assert values.pop("permute_pixels") is fields(schema)["permute_pixels"] is False
    assert values.keys() == fields(source).keys()
    for key in values.keys() - {"root", "path"}:
        assert values[key] == fields(schema)[key] == fields(source)[key], key
