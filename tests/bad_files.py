"""Files that are broken, or meant to do harm: each function writes some into a project folder.

What is hostile would make ``executed`` beside the folder, or write through ``..``; nothing may ever do so.
"""

from __future__ import annotations

import io
import os
import pickle
import sqlite3
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vae_sweep import models
from vae_sweep.training import checkpoint

Prepare = Callable[[Path], dict[str, str] | None]  # of a project folder; may return words to replace in the arguments

LINEAR = {"_target_": "vae_sweep.models.linear.LinearVAE", "name": "linear"}
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"]


class Bomb:
    """Its pickle makes a folder beside the project when it is read."""

    def __init__(self, root: Path) -> None:
        self.canary = root.parent / "executed"

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


def nothing(root: Path) -> None:
    """An empty folder."""


def both(*parts: Prepare) -> Prepare:
    def write(root: Path) -> None:
        for part in parts:
            part(root)

    return write


def file(name: str, content: bytes = b"") -> Prepare:
    def write(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)

    return write


def own_model(config: bytes, module: bytes = b"") -> Prepare:
    """``model=own`` below ``mine``, and ``my_vae.py``."""
    return both(file("mine/model/own.yaml", config), file("my_vae.py", module))


def own_source(fingerprint: str) -> Prepare:
    """``dataset=own`` below ``mine``: a class whose fingerprint is this expression."""
    lines = (
        "from pathlib import Path",
        "from vae_sweep.datasets import Source",
        "class Mine(Source):",
        "    name, max_images = 'own', None",
        f"    def fingerprint(self): return {{'file': {fingerprint}}}",
        "    def build(self): raise AssertionError",
    )
    config = b"name: own\n_target_: my_data.Mine\n"
    return both(file("mine/dataset/own.yaml", config), file("my_data.py", "\n".join(lines).encode()))


def folder(name: str) -> Prepare:
    return lambda root: (root / name).mkdir(parents=True)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb_png(side: int = 60_000) -> bytes:
    """A few bytes that declare a picture of ``side`` x ``side`` pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def good_png(side: int = 8, shade: int = 0) -> bytes:
    found = io.BytesIO()
    Image.effect_noise((side, side), 1 + shade).convert("RGB").save(found, "png")
    return found.getvalue()


def zipped() -> bytes:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w") as archive:
        archive.writestr("../../evil", "x")
    return found.getvalue()


PROGRAM = Path(sys.executable).read_bytes()[:20_000]
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(../executed) (w) file closefile\nshowpage\n"


def float_tiff() -> bytes:
    found = io.BytesIO()
    Image.new("F", (8, 8), 0.5).save(found, "TIFF")
    return found.getvalue()


def pictures(content: bytes, n: int = 20, below: str = "") -> Prepare:
    """A folder in which every picture has this content."""
    return both(*(file(f"pictures/{below}{i}.png", content) for i in range(n)))


def one_of_many(content: bytes) -> Prepare:
    """A folder of whole pictures, but for one."""

    def write(root: Path) -> None:
        for i in range(30):
            file(f"pictures/{i}.png", good_png(shade=i))(root)
        file("pictures/7.png", content)(root)

    return write


def pipes(root: Path) -> None:
    (root / "pictures").mkdir()
    for i in range(20):
        os.mkfifo(root / "pictures" / f"{i}.png")


def faces(partition: bytes | None) -> Prepare:
    def write(root: Path) -> None:
        file("data/img_align_celeba/000001.jpg")(root)
        if partition is not None:
            file("data/list_eval_partition.txt", partition)(root)

    return write


def small_faces(root: Path) -> None:
    """Three faces of half the published size, one for each split."""
    found = io.BytesIO()
    Image.new("RGB", (89, 109)).save(found, "JPEG")
    for i in range(3):
        file(f"data/img_align_celeba/{i}.jpg", found.getvalue())(root)
    file("data/list_eval_partition.txt", b"0.jpg 0\n1.jpg 1\n2.jpg 2\n")(root)


def hostile_archive(root: Path) -> None:
    """Members that climb out, are absolute, or are links to where a later member would then be written."""
    base = "cifar-10-batches-py"
    (root / "data").mkdir()
    with tarfile.open(root / "data" / "cifar-10-python.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo(f"{base}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, str(root.parent / "executed")
        archive.addfile(link)
        for name in (f"{base}/../../../evil", str(root.parent / "executed"), *(f"{base}/{name}" for name in BATCHES)):
            member = tarfile.TarInfo(name)
            member.size = 4
            archive.addfile(member, io.BytesIO(b"evil"))


def pickled_batches(root: Path) -> None:
    for name in BATCHES:
        file(f"data/cifar-10-batches-py/{name}", pickle.dumps(Bomb(root)))(root)


def good_content() -> dict[str, Any]:
    """What a checkpoint of a tiny model holds."""
    return {
        "format": checkpoint.FORMAT,
        "weights": dict(models.create(LINEAR, (3, 4, 4), 2).state_dict()),
        "config": {"model": LINEAR, "dataset": {"name": "shapes"}},
        "image_shape": [3, 4, 4],
        "latent_dim": 2,
        "facts": {"name": "linear-tiny"},
    }


def saved(**changes: Any) -> Prepare:
    """A checkpoint.pt with other content; None leaves a part out."""

    def write(root: Path) -> None:
        content = {key: value for key, value in (good_content() | changes).items() if value is not None}
        torch.save(content, root / "checkpoint.pt")

    return write


def saved_model(target: str) -> Prepare:
    """A checkpoint whose architecture is some other thing to call."""
    return saved(config={"model": {"_target_": target, "command": "mkdir ../executed"}, "dataset": {"name": "x"}})


def not_finite(root: Path) -> None:
    weights = good_content()["weights"]
    saved(weights={key: tensor * float("nan") for key, tensor in weights.items()})(root)


def cut(root: Path) -> None:
    saved()(root)
    os.truncate(root / "checkpoint.pt", 1000)


def bomb_in_checkpoint(root: Path) -> None:
    saved(facts={"name": Bomb(root)})(root)


def bare_pickle(root: Path) -> None:
    (root / "checkpoint.pt").write_bytes(pickle.dumps(Bomb(root)))


def cut_database(root: Path) -> None:
    connection = sqlite3.connect(root / "mlflow.db")
    connection.execute("create table runs (name)")
    connection.executemany("insert into runs values (?)", [("x" * 500,)] * 100)
    connection.commit()
    connection.close()
    os.truncate(root / "mlflow.db", 5000)


@cache
def _runs() -> tuple[bytes, str, str, str]:
    """A store's file, the ids of a sweep's own run and of a failed one, and the first letter of several ids."""
    from vae_sweep.tracking.store import Store

    with tempfile.TemporaryDirectory() as name:
        store = Store.open(f"sqlite:///{name}/mlflow.db", Path(name), "vae_sweep")
        sweep = store.start_run("sweep", {"vae_sweep.role": "sweep"})
        failed = store.start_run("conv-p1", {"vae_sweep.role": "run"}, sweep.run_id)
        for record in (sweep, failed):
            record.finish("FAILED")
        first = [store.start_run("fc-p1", {}).run_id[0] for _ in range(17)]  # 17 ids, 16 letters
        with closing(sqlite3.connect(f"{name}/mlflow.db")) as full, closing(sqlite3.connect(f"{name}/copy.db")) as copy:
            full.backup(copy)
        content = Path(name, "copy.db").read_bytes()
    return content, sweep.run_id, failed.run_id, max(first, key=first.count)


def store(root: Path) -> dict[str, str]:
    content, sweep, failed, letter = _runs()
    (root / "mlflow.db").write_bytes(content)
    return {"SWEEP": sweep, "FAILED": failed[:12], "LETTER": letter}
