"""Builds the object that a config node with a `_target_` describes: a model or a data source, ours or a user's own."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from vae_sweep.base.errors import FULL, UserError, first_line

T = TypeVar("T")

TRACEBACK = f"{FULL}=1 shows where"
NOT_PASSED = ("_target_", "name", "baseline")
OURS = ("vae_sweep.models.", "vae_sweep.datasets.")  # where the classes are that any file may name


def instantiate(node: Mapping[str, Any], base: type[T], where: str, **arguments: Any) -> T:
    """Return the object that ``node`` describes: :func:`find`, then :func:`build`."""
    return build(find(str(node.get("_target_", "")), base, f"{where}._target_"), node, where, **arguments)


def require_ours(node: Mapping[str, Any], where: str) -> None:
    """Refuse a node of a file that may be anybody's, unless its class is one of vae_sweep's; nothing is imported.

    Raises:
        UserError: that says how the class is given by whoever trusts it.
    """
    target = str(node.get("_target_", ""))
    if not target.startswith(OURS):
        raise UserError(
            f"{where}._target_={target[:200]!r}: not a class of vae_sweep, so its module is not imported; "
            f"if you trust it, give {where}=<dotted path of the class>"
        )


def find(target: str, base: type[T], key: str) -> type[T]:
    """Return the subclass of ``base`` at the dotted path ``target``, the value of ``key``; its module is imported.

    Raises:
        UserError: for a class that does not exist or is of another kind.
    """
    module_name, _, class_name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"{key}={target!r}: cannot be imported ({first_line(error)}); give the dotted path of a class, "
            f"such as my_module.My{base.__name__}"
        ) from error
    except Exception as error:  # of the module itself
        raise UserError(f"{key}={target!r}: its module cannot be imported ({_reason(error)}); {TRACEBACK}") from error
    if not (inspect.isclass(cls) and issubclass(cls, base)):
        raise UserError(f"{key}={target!r}: must be a subclass of {base.__module__}.{base.__name__}")
    return cls


def build(cls: type[T], node: Mapping[str, Any], where: str, **arguments: Any) -> T:
    """Return an object of ``cls``, built from the keys of ``node`` and ``arguments``.

    ``name`` and ``baseline`` say how tables show the choice, and are not passed on.

    Raises:
        UserError: as :func:`check` and the constructor do, and for an error in the constructor of a user's own class.
    """
    given = check(cls, node, where, **arguments)
    try:
        return cls(**given)
    except (UserError, NotImplementedError, RuntimeError, MemoryError):  # ours, PyTorch's
        raise
    except Exception as error:
        raise UserError(f"{where}: {_named(cls)}.__init__ failed ({_reason(error)}); {TRACEBACK}") from error


def check(cls: type, node: Mapping[str, Any], where: str, **arguments: Any) -> dict[str, Any]:
    """Return what :func:`build` hands to ``cls``: the keys of ``node`` and ``arguments``.

    Raises:
        UserError: for arguments that the class does not take, or that one of its ``checks`` refuses.
    """
    given = {key: value for key, value in node.items() if key not in NOT_PASSED} | arguments
    signature = inspect.signature(cls)
    try:
        signature.bind(**given)
    except TypeError as error:
        known = [name for name in signature.parameters if name not in arguments]
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
        unknown = [] if takes_all else [key for key in given if key not in signature.parameters]
        reason = f"it has no argument {', '.join(unknown)}" if unknown else error
        raise UserError(
            f"{where}: {_named(cls)} does not fit its configuration ({reason}); "
            f"its arguments: {', '.join(known) or 'none'}"
        ) from error
    for key, check_value in getattr(cls, "checks", {}).items():
        if key in given:
            check_value(key, given[key])
    return given


def _named(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
