"""What MkDocs makes of files outside ``docs/``: pages, targets of links, and the generated parts of the reference.

Links in the documents are those of the repository, so that they work on any host that shows it; here they are rewritten
to the site's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from omegaconf import MISSING

from vae_sweep.config import options, schema
from vae_sweep.config.help import COMMANDS, comments

ROOT = Path(__file__).resolve().parents[1]
CONF = schema.config_dir()
PAGES = {  # of the repository -> of the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "benchmarks/README.md": "benchmarks.md",
    "notebooks/exercises.md": "exercises.md",
}
NOTEBOOKS = [f"notebooks/{file.name}" for file in sorted(ROOT.glob("notebooks/*.ipynb"))]  # the same on the site
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")  # to a file: [text](file.md#section)


@event_priority(100)  # before the plugin that reads notebooks
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside ``docs/``."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for uri in NOTEBOOKS:  # the plugin reads them only where they have a place of their own
        files.append(File(uri, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out the roles of Sphinx in docstrings, such as :func:."""
    return re.sub(r":(?:class|func|meth|mod|attr):(?=<code>)", "", content)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links, and fill in what is generated."""
    sources = {uri: source for source, uri in PAGES.items()}
    folder = Path(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def moved(link: re.Match[str]) -> str:
        path = os.path.normpath(folder / link[1])
        if not (ROOT / path).is_file():
            return link[1]
        ours = path.startswith("docs/") or path in NOTEBOOKS
        uri = PAGES.get(path) or (path.removeprefix("docs/") if ours else f"files/{path}")
        if uri not in files.src_uris:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
        return os.path.relpath(uri, Path(page.file.src_uri).parent)

    made = {"configuration": configuration, "commands": commands}
    generated = re.sub(r"<!-- generated: (\w+) -->", lambda found: made[found[1]](), markdown)
    return LINK.sub(moved, generated)


def commands() -> str:
    """Return a section for each command, with its ``--help``."""
    usages = {name: options.usage(name, import_module(f"vae_sweep.{name}").Options) for name in COMMANDS}
    return "\n\n".join(f"## {name}\n\n```text\n{text.strip()}\n```" for name, text in usages.items())


def configuration() -> str:
    """Return the choices of each group, and a table of keys for each section and choice.

    They are made of the fields of the schema, of the values in ``conf/``, and of the comments in both.
    """
    found = {name: section for name, section in vars(schema.Config()).items() if is_dataclass(section)}
    parts = [choices(), keys("Top level", schema.Config, "config.yaml", "")]
    parts += [keys(f"`{name}`", type(section), "config.yaml", f"{name}.") for name, section in found.items()]
    for group, kinds in schema.SCHEMAS.items():
        parts += [keys(f"`{group}={name}`", kind, f"{group}/{name}.yaml", f"{group}.") for name, kind in kinds.items()]
    return "\n\n".join(parts)


def choices() -> str:
    """Return a table of the YAML files of each group, with the first comment in each."""
    rows = []
    for group in ("model", "dataset", "params", "experiment", "hydra/launcher"):
        for file in sorted((CONF / group).glob("*.yaml")):
            comment = re.search(r"# (?!@)(.*)", file.read_text(encoding="utf-8"))
            rows.append((f"`{group}={file.stem}`", comment[1] if comment else ""))
    return table("Choices", ("choice", "what it is"), rows)


def keys(title: str, kind: type, file: str, prefix: str) -> str:
    """Return a table of the keys of the dataclass ``kind``, with the values that ``file`` gives them."""
    meanings = comments(kind)
    values = yaml_values(CONF / file)
    inside = prefix if file == "config.yaml" else ""  # a group's file has its keys at the top
    rows = []
    for f in fields(kind):
        if f.name in schema.SCHEMAS or is_dataclass(f.default_factory):
            continue
        default = f.default if isinstance(f.default, str) else json.dumps(f.default, default=str)
        value, why = values.get(f"{inside}{f.name}") or (default if default != MISSING else "", "")
        meaning = meanings.get(f.name, "")
        said = [meaning, f"*Default:* {why}"] if why and why not in meaning else [meaning]
        rows.append((f"`{prefix}{f.name}`", str(f.type), f"`{value}`" * bool(value), "<br>".join(filter(None, said))))
    return table(title, ("key", "type", "default", "meaning"), rows)


def yaml_values(file: Path) -> dict[str, tuple[str, str]]:
    """Return the value and the comment of each line of a YAML file, by its dotted key."""
    found, parent = {}, ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"( *)(\w+):(?: (.*?))?(?: *# (.*))?", line):
            indent, key, value, comment = match.groups(default="")
            parent = parent if indent else f"{key}."
            found[f"{parent}{key}" if indent else key] = (value, comment)
    return found


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a section with a table in Markdown."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    drawn = "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)])
    return re.sub(r"docs/([\w-]+)\.md", r"[\1](\1.md)", drawn)
