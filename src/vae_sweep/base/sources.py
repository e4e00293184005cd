"""The source code of a user's own model or dataset: the module of its class, and what that imports from beside it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

OURS = __name__.partition(".")[0]
INSTALLED = ("site-packages", "dist-packages")  # folders of installed packages: of the system, an environment or a user


def own_sources(*nodes: Mapping[str, Any]) -> dict[str, str]:
    """Return module name -> code for the classes that the nodes' ``_target_`` name, without vae_sweep's own classes.

    Imported modules below the same folder are included, directly or through others; for an installed package, those of
    the package. Imports are read from the code, so a module imported at run time by name is not found. Comments and
    layout are left out, since they change no number.
    """
    found: dict[str, str] = {}
    for node in nodes:
        module = str(node.get("_target_", "")).rpartition(".")[0]
        top = module.partition(".")[0]
        if module and top != OURS:
            _collect(module, _folder(top), top, found)
    return dict(sorted(found.items()))


def _folder(top: str) -> Path | None:
    """The folder in which the module or package ``top`` lies."""
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).parent
    return Path(spec.origin).parent if spec.has_location and spec.origin else None


def _collect(module: str, folder: Path | None, top: str, found: dict[str, str]) -> None:
    if folder is None or module in found:
        return
    path = folder.joinpath(*module.split("."))
    file = next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
    if file is None:
        return
    tree = ast.parse(file.read_bytes())
    found[module] = ast.unparse(tree)
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for name in _imported(tree, package):
        if folder.name not in INSTALLED or name.partition(".")[0] == top:
            _collect(name, folder, top, found)


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Names that may be modules, and their packages."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package) if node.level else ""
            base = base or node.module or ""
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
