"""Turns a config node with a `_target_` into an object, for the two seams that users extend: models and datasets."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from vae_sweep.errors import UserError

T = TypeVar("T")


def instantiate(node: Mapping[str, Any], base: type[T], where: str, **arguments: Any) -> T:
    """Return the object that ``node`` describes, built from its other keys and ``arguments``.

    Nothing is called unless ``_target_`` names a subclass of ``base``. ``name`` labels the choice in tables and is
    not passed on.

    Raises:
        UserError: for a class that does not exist or is of another kind, and for arguments it does not take.
    """
    target = str(node.get("_target_", ""))
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{where}._target_={target!r}: cannot be imported ({error}); give the dotted path of a class, "
            f"such as my_module.My{base.__name__}"
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise UserError(
            f"{where}._target_={target!r}: must be a subclass of {base.__module__}.{base.__name__}, "
            "nothing else is called"
        )
    given = {key: value for key, value in node.items() if key not in ("_target_", "name")} | arguments
    try:
        inspect.signature(cls).bind(**given)
    except TypeError as error:
        raise UserError(f"{where}: {target} does not fit its configuration ({error})") from error
    return cls(**given)
