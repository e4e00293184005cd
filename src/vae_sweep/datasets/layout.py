"""Splits and classes of the images in a folder, by the names of their folders."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.base import SPLITS

File = tuple[str, str]  # (relative name, class; "" where there are none)

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DEEPEST = 2  # folders above train/ and test/, at most

ANOTHER = "*"  # rest of a name that is an unusual word for a split: eval, trainset

_WORDS = {**SPLIT_OF, **dict.fromkeys(("eval", "evaluation"), "val"), "holdout": "test"}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:set)?(?![a-z])")


@dataclass(frozen=True)
class Layout:
    """The splits that were found in a folder."""

    given: dict[str, list[File]]  # split -> its images; all images as "train" where there are no splits
    origins: dict[str, str]  # split -> its folders, such as "archive/Train"
    unused: int = 0  # images outside the splits
    unclassed: dict[str, list[str]] = field(default_factory=dict)  # split without classes -> those that have no folder


@dataclass(frozen=True)
class _Role:
    """The split that a folder's name means."""

    split: str
    rest: str  # of the name: "2017" of train2017

    @property
    def is_exact(self) -> bool:
        return not self.rest


def arrange(names: Sequence[str], splits: str = "auto") -> Layout:
    """Return the layout of images with these relative names; splits may be below one or two outer folders.

    `splits`: "auto" takes folders whose meaning is clear for splits, "given" also the others, "draw" none.

    Raises:
        UserError: where the meaning is not clear, or no folder is a split; the text lacks the folder's path.
    """
    parts = [name.split("/") for name in names]
    levels = [{part[depth] for part in parts if len(part) > depth + 1} for depth in range(DEEPEST + 2)]
    beside: list[Layout] = []  # a train folder beside others
    for depth in range(DEEPEST + 1) if splits != "draw" else ():
        roles, below = _roles(levels[depth]), {role.split for role in _roles(levels[depth + 1]).values()}
        if depth < DEEPEST and len(levels[depth]) == 1 and {"train"} < below:
            continue  # an outer folder of any name
        clear = _is_clear(parts, depth, roles) if roles else None
        if roles and clear is None:
            beside.append(_take(parts, depth, roles))
        elif clear is not None:
            layout = _take(parts, depth, roles)
            if "train" not in layout.given:
                raise UserError(
                    f"no training images beside {_joined(sorted(roles))}; call their folder train, or give "
                    "dataset.splits=draw (all images together, val and test drawn)"
                )
            if splits == "auto" and not clear:
                raise UserError(_question(layout, sorted(roles)))
            return layout
    if splits == "given" and beside:
        return beside[0]
    if splits == "given":
        raise UserError(
            f"dataset.splits=given: no folders are called {', '.join(SPLITS)} or the like; use auto or draw"
        )
    if splits == "auto" and (deeper := _splits_below(parts)):
        raise UserError(
            f"{deeper} lies more than {DEEPEST} folders deep; give the folder that holds it, or dataset.splits=draw "
            "(all images together, val and test drawn)"
        )
    return _layout({"train": (parts, 0)}, {})


def _roles(folders: set[str]) -> dict[str, _Role]:
    """The folders that may be splits: with the name of a split, or equal but for that word (train2017, val2017).

    Other folders do not count for a split that has one of its name (train_masks beside train).
    """
    found = {folder: role for folder in folders if (role := _role(folder))}
    plain = {role.split for role in found.values() if role.is_exact}

    def related(role: _Role) -> bool:
        alike = {other.split for other in found.values() if other.rest == role.rest} | plain
        return role.is_exact or (role.split not in plain and len(alike) > 1 and "train" in alike)

    return {folder: role for folder, role in found.items() if related(role)}


def _role(folder: str) -> _Role | None:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder).casefold()  # TrainImages
    found = list(_WORD.finditer(spaced))
    if len(found) != 1:
        return None
    rest = spaced[: found[0].start()] + spaced[found[0].end() :]
    return _Role(_WORDS[found[0][1]], rest or ("" if spaced in SPLIT_OF else ANOTHER))


def _is_clear(parts: Sequence[list[str]], depth: int, roles: dict[str, _Role]) -> bool | None:
    """Whether these folders are splits: True (yes), False (perhaps), None (no)."""
    held = [part for part in parts if len(part) > depth + 1 and part[depth] in roles]
    splits = {role.split for role in roles.values()}
    if splits == {"train"} and len(held) < len(parts):
        return None  # a class may be called "train"
    parents = {tuple(part[:depth]) for part in held}
    clear = len(parents) == 1 and len(splits) == len(roles) and all(role.is_exact for role in roles.values())
    above = {tuple(part[:depth]) for part in parts}
    if splits >= {"train", "test"}:
        return clear and above == parents  # other folders beside both are unused
    return clear and "train" in splits and len(held) == len(parts)


def _take(parts: Sequence[list[str]], depth: int, roles: dict[str, _Role]) -> Layout:
    """The splits of these folders; where none of them is train, all other images are."""
    members: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    folders: dict[str, set[str]] = {split: set() for split in SPLITS}
    others = []
    for part in parts:
        role = roles.get(part[depth]) if len(part) > depth + 1 else None
        if role is None:
            others.append(part)
        else:
            members[role.split].append(part)
            folders[role.split].add("/".join(part[: depth + 1]))
    several = len({tuple(part[:depth]) for found in members.values() for part in found}) > 1
    nested = all(part[depth + 1 : depth + 2] == [part[depth]] for found in members.values() for part in found)
    level = depth - 1 if several else depth + 1 + nested  # train/train/, as of two archives unpacked side by side
    found = {split: (held, level) for split, held in members.items() if held}
    if not members["train"] and others:
        found = {"train": (others, depth), **found}
        folders["train"], others = {"all other images"}, []
    return _layout(found, {split: _joined(sorted(folders[split])) for split in found}, len(others))


def _splits_below(parts: Sequence[list[str]]) -> str:
    """A folder called train that has one called test beside it, deeper than they are looked for; "" for none."""
    folders = {tuple(part[: depth + 1]) for part in parts for depth in range(DEEPEST + 1, len(part) - 1)}
    by_role: dict[tuple[str, ...], set[str]] = {}
    for folder in folders:
        if (split := SPLIT_OF.get(folder[-1].casefold())) in ("train", "test"):
            by_role.setdefault(folder[:-1], set()).add(split)
    return next(("/".join((*above, "train")) for above, held in sorted(by_role.items()) if len(held) == 2), "")


def _question(layout: Layout, folders: Sequence[str]) -> str:
    taken = "; ".join(f"{len(members):,} {split}: {layout.origins[split]}" for split, members in layout.given.items())
    unused = f"; {layout.unused:,} others are left out" if layout.unused else ""
    return (
        f"it is not clear whether {_joined(folders)} {'is a split' if len(folders) == 1 else 'are splits'}; give "
        f"dataset.splits=given ({taken}{unused}) or dataset.splits=draw (all images together, val and test drawn)"
    )


def _joined(folders: Sequence[str], most: int = 4) -> str:
    more = f" and {len(folders) - most} more" if len(folders) > most else ""
    return ", ".join(folders[:most]) + more


def _layout(found: Mapping[str, tuple[Sequence[list[str]], int]], origins: dict[str, str], unused: int = 0) -> Layout:
    """The layout of splits whose images have the folder at this depth as their class.

    A split has no classes where an image of it has no such folder.
    """
    given, unclassed = {}, {}
    for split, (parts, depth) in found.items():
        outside = ["/".join(part) for part in parts if len(part) <= depth + 1]
        given[split] = [("/".join(part), "" if outside else part[depth]) for part in parts]
        if 0 < len(outside) < len(parts):
            unclassed[split] = outside
    return Layout(given, origins, unused, unclassed)
