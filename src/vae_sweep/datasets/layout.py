"""Which pictures of a folder belong to which split and class, by the names of the folders that hold them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vae_sweep.base.errors import UserError
from vae_sweep.datasets.base import SPLITS

Picture = tuple[str, str]  # (relative name, class; "" where there are none)

SPLIT_OF = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
DEEPEST = 2  # folders above train/ and test/, at most

ANOTHER = "*"  # rest of a name that is one word, but no usual one: eval, trainset

_WORDS = {**SPLIT_OF, **dict.fromkeys(("eval", "evaluation"), "val"), "holdout": "test"}
_WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:set)?(?![a-z])")


@dataclass(frozen=True)
class Layout:
    """What a folder was taken for."""

    given: dict[str, list[Picture]]  # ready-made split -> its pictures; all of them as "train" where there are none
    origins: dict[str, str]  # ready-made split -> its folders, such as "archive/Train"
    unused: int = 0  # pictures outside the splits


@dataclass(frozen=True)
class _Role:
    """What the name of a folder says of a split."""

    split: str
    rest: str  # what else it says: "2017" of train2017

    @property
    def is_clear(self) -> bool:
        return not self.rest


def arrange(names: Sequence[str], splits: str = "auto") -> Layout:
    """The layout of pictures with these relative names, the folders of a split found at the top or below a wrapper.

    `splits`: "auto" takes what is clear, "given" also what is not, "draw" takes no folder for a split.

    Raises:
        UserError: the names leave a doubt, or nothing is given; the text lacks the folder's path.
    """
    parts = [name.split("/") for name in names]
    levels = [{part[depth] for part in parts if len(part) > depth + 1} for depth in range(DEEPEST + 2)]
    for depth in range(DEEPEST + 1) if splits != "draw" else ():
        roles, below = _roles(levels[depth]), {role.split for role in _roles(levels[depth + 1]).values()}
        if depth < DEEPEST and len(levels[depth]) == 1 and {"train"} < below:
            continue  # a wrapper, whatever it is called
        if roles and (is_clear := _is_clear(parts, depth, roles)) is not None:
            layout = _take(parts, depth, roles)
            if "train" not in layout.given:
                raise UserError(
                    f"no training pictures beside {_listed(sorted(roles))}; call their folder train, or give "
                    "dataset.splits=draw (all pictures together, val and test drawn)"
                )
            if splits == "auto" and not is_clear:
                raise UserError(_doubt(layout, sorted(roles)))
            return layout
    if splits == "given":
        raise UserError(
            f"dataset.splits=given: no folders are called {', '.join(SPLITS)} or the like; use auto or draw"
        )
    return Layout({"train": _classify(parts, depth=0)}, {})


def _roles(folders: set[str]) -> dict[str, _Role]:
    """The folders that may be splits: called so, or like each other but for that word (train2017, val2017).

    Where a split has a folder called so, no other is asked about (train_masks beside train).
    """
    found = {folder: role for folder in folders if (role := _role(folder))}
    plain = {role.split for role in found.values() if role.is_clear}

    def related(role: _Role) -> bool:
        alike = {other.split for other in found.values() if other.rest == role.rest} | plain
        return role.is_clear or (role.split not in plain and len(alike) > 1 and "train" in alike)

    return {folder: role for folder, role in found.items() if related(role)}


def _role(folder: str) -> _Role | None:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", folder).casefold()  # TrainImages
    found = list(_WORD.finditer(spaced))
    if len(found) != 1:
        return None
    rest = spaced[: found[0].start()] + spaced[found[0].end() :]
    return _Role(_WORDS[found[0][1]], rest or ("" if spaced in SPLIT_OF else ANOTHER))


def _is_clear(parts: Sequence[list[str]], depth: int, roles: dict[str, _Role]) -> bool | None:
    """Whether these folders are splits: yes (True), perhaps (False), no (None)."""
    held = [part for part in parts if len(part) > depth + 1 and part[depth] in roles]
    splits = {role.split for role in roles.values()}
    if splits == {"train"} and len(held) < len(parts):
        return None  # a class may be called "train"
    parents = {tuple(part[:depth]) for part in held}
    clear = len(parents) == 1 and len(splits) == len(roles) and all(role.is_clear for role in roles.values())
    above = {tuple(part[:depth]) for part in parts}
    if splits >= {"train", "test"}:
        return clear and above == parents  # beside both, others are neither
    return clear and "train" in splits and len(held) == len(parts)


def _take(parts: Sequence[list[str]], depth: int, roles: dict[str, _Role]) -> Layout:
    """The splits as these folders give them; without train among them, all other pictures are train."""
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
    level = depth - 1 if several else depth + 1 + nested  # train/train/, as two archives unpacked side by side
    given = {split: _classify(found, level) for split, found in members.items() if found}
    if not members["train"] and others:
        given = {"train": _classify(others, depth), **given}
        folders["train"], others = {"all other pictures"}, []
    return Layout(given, {split: _listed(sorted(folders[split])) for split in given}, len(others))


def _doubt(layout: Layout, folders: Sequence[str]) -> str:
    taken = "; ".join(f"{len(members):,} {split}: {layout.origins[split]}" for split, members in layout.given.items())
    unused = f"; {layout.unused:,} others are left out" if layout.unused else ""
    return (
        f"it is not clear whether {_listed(folders)} {'is a split' if len(folders) == 1 else 'are splits'}; give "
        f"dataset.splits=given ({taken}{unused}) or dataset.splits=draw (all pictures together, val and test drawn)"
    )


def _listed(folders: Sequence[str], most: int = 4) -> str:
    more = f" and {len(folders) - most} more" if len(folders) > most else ""
    return ", ".join(folders[:most]) + more


def _classify(parts: Sequence[list[str]], depth: int) -> list[Picture]:
    """Each name with its folder at `depth`; without classes if some picture has no such folder."""
    classed = all(len(part) > depth + 1 for part in parts)
    return [("/".join(part), part[depth] if classed else "") for part in parts]
