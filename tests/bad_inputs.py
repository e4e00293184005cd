"""The table of bad inputs: the command, what stands in its folder, and what the line that it ends with must hold.

That is the value, what is allowed and what to do, in this order and with `` | `` between them; the words around them
are free.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import bad_files as bad

SMALL = "experiment=smoke params=tiny"
FOLDER = f"dataset=folder dataset.path=pictures {SMALL.partition(' ')[2]}"
OWN = f"dataset=shapes {SMALL} training.device=cpu"
MAKE = "vae_sweep.generate"
COMPARE = "vae_sweep.compare"
NAN = float("nan")
MODELS = "conv, conv_dct, conv_res, fc, fc_dct, fc_matched, fc_res, fc_skip, linear"
SETS = "best, fast, fast_fc, p1, p2, p3, tiny"
SECTIONS = "seed, model, dataset, params, objective, training, evaluation, metrics, paths, tracking, sweep, resume"
OF_A_SET = "name, batch_size, lr, latent_dim, schedule, mirror, epochs"
OF_A_RUN = "run, what, n, input, seed, temperature, columns, out, array, uri, model, dataset"


@dataclass(frozen=True)
class Bad:
    """One bad input."""

    arguments: str
    says: str
    prepare: bad.Prepare = bad.nothing
    module: str = "vae_sweep"
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def run(self, command: Callable[..., Any], home: Path) -> str:
        """Run it in ``home``/project, check what holds for every bad input, and return the last line."""
        root = home / "project"
        root.mkdir()
        arguments = self.arguments
        for word, value in (self.prepare(root) or {}).items():
            arguments = arguments.replace(word, value)
        with unchanged(home):
            done = command(*shlex.split(arguments), cwd=root, module=self.module, **self.environment)
        shown = done.stdout + done.stderr
        assert done.returncode not in (0, -9), shown
        assert "Traceback" not in shown, shown
        assert "epoch 1" not in shown, shown
        assert len([line for line in done.stderr.splitlines() if line.startswith("vae_sweep: ")]) == 1, shown
        last = done.stderr.rstrip().splitlines()[-1].replace(str(root), ".")
        assert last.startswith("vae_sweep: "), shown
        rest = last
        for part in self.says.split(" | "):
            _, found, rest = rest.partition(part)
            assert found, f"no {part!r} in: {last}"
        return last


@contextmanager
def unchanged(home: Path) -> Iterator[None]:
    """Nothing may appear beside the project folder."""
    before = sorted(home.iterdir())
    yield
    assert sorted(home.iterdir()) == before


CONFIGURATION = {
    "no such model": Bad("model=fcc", f"model=fcc: | {MODELS} | fc?"),
    "no such set": Bad("params=p9", f"params=p9: | {SETS}"),
    "no such data": Bad("dataset=cifar", "dataset=cifar: | celeba, cifar10, folder, shapes | cifar10?"),
    "no such group": Bad("modle=fc", f"modle: | {SECTIONS} | model?"),
    "no such key": Bad("params.lrr=1", f"params.lrr: | {OF_A_SET} | lr?"),
    "added key": Bad("+params.foo=1", f"+params.foo: | `+` cannot | {OF_A_SET}"),
    "no value": Bad("params.lr", "params.lr: | key=value | params.lr=...?"),
    "type": Bad("params.lr=abc", "params.lr: | 'abc' | Float"),
    "mirrored noise": Bad("params.mirror=true dataset.permute_pixels=true", "params.mirror=true: | permuted"),
    "no blocks": Bad(
        "model=fc_res model.blocks=0 dataset.download=false", "model.blocks=0: | whole number from 1 to 100"
    ),
    "no such schedule": Bad("params.schedule=cosine", "params.schedule=cosine: | constant or one_cycle"),
    "schedule without a length": Bad("params.schedule=one_cycle", "params.schedule=one_cycle | epochs"),
    "length without a schedule": Bad("params.epochs=5", "params.epochs=5: | one_cycle | early stopping"),
    "no such precision": Bad("training.precision=half", "training.precision=half: | float32, tf32, bfloat16 or auto"),
    "precision of other machines": Bad(
        "-m training.precision=auto hydra/launcher=submitit_local dataset=shapes",
        "training.precision=auto: | launcher | give float32, tf32 or bfloat16",
    ),
    "no such mode of the compiler": Bad(
        "training.compile=fast", "training.compile=fast: | false, true, reduce-overhead, max-autotune or"
    ),
    "no C++ compiler": Bad(
        "training.compile=true training.device=cpu dataset=shapes",
        "training.compile=true: | needs a C++ compiler (no-such-compiler) | training.compile=false",
        environment={"CXX": "no-such-compiler"},
    ),
    "no such display": Bad("progress=bar", "progress=bar: | auto | table, plain, log | none"),
    "no such layout": Bad("training.channels_last=never", "training.channels_last=never: | auto, true or false"),
    "too small": Bad("params.latent_dim=0", "params.latent_dim=0: | whole number from 1 to 65,536"),
    "too large": Bad("training.threads=1000000", "training.threads=1000000: | whole number from 1 to 256"),
    "not finite": Bad("params.lr=nan", "params.lr=nan: | number from 1e-12 to 1e12"),
    "overflow": Bad("objective.beta=1e308", "objective.beta=1e+308: | number from 1e-6 to 1e6 | 1 = the ELBO"),
    "no such word": Bad("objective.reduction=avg", "objective.reduction=avg: | sum or mean"),
    "no such variance": Bad("objective.variance=best", "objective.variance=best: | 1e-6 | optimal or learned"),
    "variance of nothing": Bad("objective.variance=0", "objective.variance=0: | number from 1e-6 to 1e6"),
    "variance of a mean": Bad(
        "objective.reduction=mean objective.variance=optimal", "objective.variance=optimal: | leave one of both out"
    ),
    "warm-up backwards": Bad("objective.warmup=-1", "objective.warmup=-1.0: | number from 0 to 1e6 | epochs"),
    "warm-up without an end": Bad(
        "objective.warmup=9 training.max_epochs=5", "objective.warmup=9: | at most 5 epochs | give a shorter one"
    ),
    "nothing of a gradient": Bad("training.clip_grad_norm=0", "training.clip_grad_norm=0.0: | number > 0, or null"),
    "seed": Bad("seed=-1", "seed=-1: | whole number from 0 to 2^63 - 1"),
    "width": Bad(
        "-m model=fc params=p1,p2 model.hidden_dims=[64,0] dataset.download=false",
        "model.hidden_dims=[64, 0]: | 1 to 100 widths | [64,32]",
    ),
    "several at once": Bad(
        "params.lr=0 training.patience=0 seed=-1",
        "seed=-1: | from 0 to 2^63 - 1; params.lr=0.0: | from 1e-12 to 1e12; training.patience=0: | from 1 to",
    ),
    "path as a name": Bad("params.name=../../evil", "params.name=../../evil: | 100 letters, digits, '_', '-' and '.'"),
    "null model": Bad("model=null", "group override must be a string | NoneType | --help"),
    "no key": Bad("+=", "+=: | --help"),
    "no model": Bad("~model", "model: | model=<name> | --help"),
    "section for section": Bad("training=${objective}", "training: | set the keys"),
    "too deep": Bad(
        f"model.channels=[8,8,8,8,8,8] {SMALL}",
        "model.channels=[8, 8, 8, 8, 8, 8]: | multiples of 64 | 24x24 | fewer channels | dataset.image_size",
    ),
    "model too large": Bad(
        f"model=fc model.hidden_dims=[1000000,1000000] {SMALL}",
        "model=fc | 40.1 TB | this machine has | smaller widths",
    ),
    "images too many": Bad(
        f"{SMALL} dataset.image_size=4096 dataset.n_train=10000000",
        "dataset.image_size=4096: 10,000,100 | 503 TB | this machine has | smaller dataset.image_size",
    ),
    "batch too large": Bad(f"params.batch_size=361 {SMALL}", "params.batch_size=361: | 360 | shapes | from 1 to 360"),
    "no validation": Bad(f"dataset.val_fraction=0.001 {SMALL}", "dataset.val_fraction=0.001 | 400 | no validation"),
    "swept model": Bad("-m model=fc,convv", f"model=convv: | {MODELS} | conv?"),
    "swept type": Bad("-m params.lr=1e-3,abc", "params.lr: | 'abc' | Float"),
    "swept range": Bad("-m params.latent_dim=8,0", "params.latent_dim=0: | whole number from 1 to 65,536"),
    "swept twice": Bad("-m params=p1,p1", "conv-p1 twice | params=p1 | once"),
    "swept interval": Bad("-m seed=interval(0,1)", "seed=interval(0,1): | list its values | choice() or range()"),
    "nothing swept": Bad("-m seed=range(3,1)", "seed=range(3,1): | no value"),
    "too many swept": Bad("-m seed=range(9999999999999)", "1,000 runs | seed | fewer values"),
    "swept data": Bad("-m dataset=celeba,shapes", "dataset=celeba: | ./data/img_align_celeba | dataset=shapes works"),
    "call as a model": Bad(
        f"model._target_=os.system {SMALL}", "model._target_='os.system': | subclass of vae_sweep.models.vae.VAE"
    ),
    "call as data": Bad(
        "dataset._target_=os.system", "dataset._target_='os.system': | subclass of vae_sweep.datasets.base.Source"
    ),
    "no such class": Bad(
        f"model._target_=my.VAE {SMALL}", "model._target_='my.VAE': | No module named 'my' | my_module.MyVAE"
    ),
    "no such network": Bad(
        "metrics.features=fid", "metrics.features=fid: | auto, inception, efficientnet_lite0 or none"
    ),
    "too few to compare": Bad("metrics.feature_images=10", "metrics.feature_images=10: | from 50 to 10,000,000"),
    "no such weights": Bad(
        f"metrics.inception_weights=nowhere.pth metrics.features=inception {SMALL}",
        "metrics.inception_weights: | ./nowhere.pth | weights-inception-2015-12-05-6726825d.pth",
    ),
    "other weights": Bad(
        f"metrics.inception_weights=weights.pth metrics.features=inception {SMALL}",
        "./weights.pth | sha256 begins with c814b209, not 6726825d | weights-inception-2015-12-05-6726825d.pth",
        bad.file("weights.pth", b"no weights"),
    ),
    "swept metrics": Bad(
        "-m metrics.iwae_samples=10,100", "metrics.iwae_samples=10,100: | cannot be swept | one value"
    ),
    "permuted by a word": Bad("dataset=shapes dataset.permute_pixels=some", "dataset.permute_pixels: | 'some' | bool"),
}

ENVIRONMENT = {
    "no such device": Bad("training.device=gpu", "training.device=gpu: | auto, cpu, cuda, cuda:N or mps"),
    "no GPU": Bad(
        f"training.device=cuda {SMALL}",
        "training.device=cuda: | 0 CUDA devices | auto or cpu",
        environment={"CUDA_VISIBLE_DEVICES": ""},
    ),
    "file in the way of outputs": Bad(SMALL, "paths.root=.: | File exists: ./outputs | give", bad.file("outputs")),
    "file in the way of mlruns": Bad(f"-m {SMALL}", "paths.root=.: | File exists: ./mlruns | give", bad.file("mlruns")),
    "file in the way of the cache": Bad(
        SMALL, "./data/cache | File exists | paths.data=<folder>", bad.file("data/cache")
    ),
    "root is relative": Bad("paths.root=here", "paths.root=here: | absolute path"),
    "text as a database": Bad(
        SMALL,
        "sqlite:///./mlflow.db: | file is not a database | another tracking.uri",
        bad.file("mlflow.db", b"x" * 99),
    ),
    "database cut off": Bad(
        f"-m {SMALL}", "sqlite:///./mlflow.db: | malformed | another tracking.uri", bad.cut_database
    ),
    "no server": Bad(
        SMALL,
        "tracking.uri=http://127.0.0.1:9: | refused | another tracking.uri",
        environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
    ),
    "file store": Bad(
        SMALL,
        "tracking.uri=file:./mlruns: | plain folders | sqlite:///path/mlflow.db | http://host:port",
        environment={"MLFLOW_TRACKING_URI": "file:./mlruns"},
    ),
    "no such store": Bad(
        f"tracking.uri=nonsense://x {SMALL}", "tracking.uri=nonsense://x: | sqlite:///path/mlflow.db | http://host:port"
    ),
    "folder as a store": Bad(
        f"tracking.uri=sqlite:////dev/null/x.db {SMALL}",
        "sqlite:////dev/null/x.db: | '/dev/null' | another tracking.uri",
    ),
    "Hydra's own variable": Bad("model=x", f"model=x: | {MODELS}", environment={"HYDRA_FULL_ERROR": "0"}),
    "no such environment": Bad("params.lr=${oc.env:NOWHERE}", "params.lr: | 'NOWHERE' not found"),
    "no such interpolation": Bad("params.lr=${nowhere}", "params.lr: | 'nowhere' not found"),
    "no such interpolation under a debugger": Bad(
        "params.lr=${nowhere}", "params.lr: | 'nowhere' not found", environment={"OC_CAUSE": "1"}
    ),
    "folder as a database": Bad(
        SMALL, "sqlite:///./mlflow.db: | is a folder | sqlite:///path/mlflow.db", bad.folder("mlflow.db")
    ),
    "no address": Bad(
        SMALL,
        "tracking.uri=http://[::1: | http://host:port | MLFLOW_TRACKING_USERNAME",
        environment={"MLFLOW_TRACKING_URI": "http://[::1"},
    ),
    "no such place": Bad(
        f"hydra.run.dir=/proc/nothing {SMALL}", "/proc/nothing: | No such file or directory | another"
    ),
    "no such configuration": Bad("--config-name nope", "--config-name nope: | nope.yaml | --config-dir | experiment="),
    "no such folder of it": Bad("--config-dir nope", "config directory './nope' not found"),
}

DATA = {
    "no path": Bad("dataset=folder", "dataset.path | no value | dataset.path=..."),
    "no folder": Bad(FOLDER, "dataset.path=./pictures: | no folder ./pictures | give the folder"),
    "file for a folder": Bad(FOLDER, "./pictures is a file | folder | unpack", bad.file("pictures")),
    "empty folder": Bad(FOLDER, "dataset.path=./pictures: no | known endings: apng | webp", bad.folder("pictures")),
    "no pictures": Bad(
        FOLDER, "dataset.path=./pictures: no | .txt | known endings: apng", bad.file("pictures/notes.txt", b"x")
    ),
    "splits in doubt": Bad(
        FOLDER,
        "holdout, train | dataset.splits=given (20 train: train; 20 test: holdout) | dataset.splits=draw",
        bad.both(bad.pictures(bad.good_png(), 20, "train/"), bad.pictures(bad.good_png(), 20, "holdout/")),
    ),
    "no splits": Bad(
        f"{FOLDER} dataset.splits=given",
        "dataset.splits=given: | train, val, test | auto or draw",
        bad.pictures(bad.good_png()),
    ),
    "no such splits": Bad(f"{FOLDER} dataset.splits=some", "dataset.splits=some | auto, given or draw"),
    "unknown scale": Bad(
        FOLDER,
        "dataset.path=./pictures: | 0.png | floating-point | dataset.value_range=[0,1] or [0,255] or [-1,1]",
        bad.pictures(bad.float_tiff()),
    ),
    "no scale": Bad(f"{FOLDER} dataset.value_range=[1,0]", "dataset.value_range=[1.0, 0.0] | [black, white] | [0,255]"),
    "no number of images": Bad(
        f"{FOLDER} dataset.max_images=0", "dataset.max_images=0 | whole number from 1 to 10,000,000 | null"
    ),
    "too few": Bad(FOLDER, "dataset.test_fraction=0.1 of 3 | no test", bad.pictures(bad.good_png(), 3)),
    "0 bytes": Bad(FOLDER, "none of the 16 train | ./pictures/0.png: | known kind | give", bad.pictures(b"")),
    "text as picture": Bad(FOLDER, "./pictures/0.png: | known kind (JPEG, PNG | give", bad.pictures(b"hello")),
    "archive as picture": Bad(FOLDER, "./pictures/0.png: | known kind | give", bad.pictures(bad.zipped())),
    "program as picture": Bad(FOLDER, "./pictures/0.png: | known kind | give", bad.pictures(bad.PROGRAM)),
    "PostScript as picture": Bad(FOLDER, "./pictures/0.png: | known kind | give", bad.pictures(bad.POSTSCRIPT)),
    "pipe as picture": Bad(FOLDER, "./pictures/0.png: | regular file | give", bad.pipes),
    "cut off": Bad(FOLDER, "./pictures/0.png: | truncated | give", bad.pictures(bad.good_png(64)[:999])),
    "decompression bomb": Bad(
        FOLDER, "./pictures/0.png: | 89,478,485 pixels | decompression bomb | give", bad.pictures(bad.bomb_png())
    ),
    "one broken": Bad(
        f"{FOLDER} dataset.strict=true",
        "./pictures/7.png | known kind | dataset.strict=false",
        bad.one_of_many(b"\x89PNG"),
    ),
    "no CIFAR-10": Bad(
        "dataset.download=false",
        "dataset=cifar10: | dataset.download=false | ./data/cifar-10-python.tar.gz | ./data/cifar-10-batches-py | "
        "dataset=shapes works",
    ),
    "archive cut off": Bad(
        "seed=0",
        "./data/cifar-10-python.tar.gz | damaged | md5 | c58f30108f718f92721af3b95e74349a | fetch it again",
        bad.file("data/cifar-10-python.tar.gz", b"\x1f\x8b"),
    ),
    "hostile archive": Bad(
        "seed=0", "./data/cifar-10-python.tar.gz | fetch it again | not extracted", bad.hostile_archive
    ),
    "pickle as batches": Bad(
        "seed=0", "./data/cifar-10-batches-py/data_batch_1 | md5 | extract the archive again", bad.pickled_batches
    ),
    "Kaggle's pictures": Bad(
        "dataset.download=false",
        "./data/train: Kaggle | dataset=folder dataset.path=./data/train | dataset=shapes works",
        bad.both(bad.file("data/train/1.png"), bad.file("data/trainLabels.csv")),
    ),
    "no batches": Bad(
        "seed=0",
        "./data/cifar-10-batches-py/data_batch_1 is missing | extract the archive again",
        bad.folder("data/cifar-10-batches-py"),
    ),
    "no partition": Bad(
        "dataset=celeba",
        "dataset=celeba: | ./data/img_align_celeba | ./data/list_eval_partition.txt | .csv",
        bad.faces(None),
    ),
    "faces of half the size": Bad(
        "dataset=celeba dataset.fraction=1.0",
        "dataset.crop_size=148: | ./data/img_align_celeba | 89x109 | 178x218 | dataset.crop_size=74",
        bad.small_faces,
    ),
    "faces not unpacked": Bad(
        "dataset=celeba dataset.fraction=1.0",
        "dataset=celeba: 1 of 1 val | ./data/img_align_celeba | 2.jpg | 000001.jpg | img_align_celeba.zip",
        bad.faces(b"000001.jpg 0\n2.jpg 1\n3.jpg 2\n"),
    ),
    "garbled partition": Bad(
        "dataset=celeba", "list_eval_partition.txt line 2 | 'x' | a file name and 0, 1 or 2", bad.faces(b"1.jpg 0\nx")
    ),
    "binary partition": Bad(
        "dataset=celeba", "list_eval_partition.txt line 1 | '\\x00.jpg 0' | 0, 1 or 2", bad.faces(b"\0.jpg 0\n")
    ),
    "empty partition": Bad("dataset=celeba", "dataset=celeba: | no train | code 0 | list_eval", bad.faces(b"")),
}

UNREADABLE = "run=./checkpoint.pt: | not a checkpoint that can be read | give a checkpoint.pt"
UNFIT = "run=./checkpoint.pt: | does not fit its architecture"
CHECKPOINTS = {
    "no file": Bad("run=nowhere.pt", "run=./nowhere.pt: | no such file | run id | checkpoint.pt", module=MAKE),
    **{
        name: Bad("run=checkpoint.pt", says, prepare, MAKE)
        for name, says, prepare in [
            ("0 bytes as weights", UNREADABLE, bad.file("checkpoint.pt")),
            ("text as weights", UNREADABLE, bad.file("checkpoint.pt", b"no weights")),
            ("weights cut off", UNREADABLE, bad.cut),
            ("another program's", "not a checkpoint of vae_sweep | give", bad.saved(format="other")),
            ("pickle in weights", UNREADABLE, bad.bomb_in_checkpoint),
            ("pickle as weights", UNREADABLE, bad.bare_pickle),
            (
                "call in weights",
                "checkpoint.pt: | model._target_='os.system': | not imported | if you trust it | model=<dotted path",
                bad.saved_model("os.system"),
            ),
            (
                "another class",
                "model._target_='torch.nn.Linear': | not imported | if you trust it | model=<dotted path",
                bad.saved_model("torch.nn.Linear"),
            ),
            (
                "not a model",
                "model._target_='vae_sweep.models.fc.nn': | must be a subclass of vae_sweep.models.vae.VAE",
                bad.saved_model("vae_sweep.models.fc.nn"),
            ),
            ("wrong shape", f"{UNFIT} | size mismatch for logvar", bad.saved(latent_dim=3)),
            ("absurd size", UNFIT, bad.saved(latent_dim=10**12)),
            ("size nan", f"{UNFIT} | whole numbers > 0, not [3, 4, nan, 2]", bad.saved(image_shape=[3, 4, NAN])),
            ("weights nan", "run=./checkpoint.pt: | not finite | did not diverge", bad.not_finite),
            ("no name", f"{UNFIT} | 'facts'", bad.saved(facts=None)),
        ]
    },
    "call as the model": Bad(
        "run=checkpoint.pt model=os.system",
        "model='os.system': | must be a subclass of vae_sweep.models.vae.VAE",
        bad.saved(),
        MAKE,
    ),
    "no images known": Bad(
        "run=checkpoint.pt what=reconstructions",
        "run=checkpoint.pt: | images | samples and interpolations need none",
        bad.saved(),
        MAKE,
    ),
}

RUNS = {
    "nothing asked": Bad("what=samples", "run= | missing | give the id | checkpoint.pt", module=MAKE),
    "no such picture": Bad(
        "run=x what=movie", "what=movie: | samples, reconstructions, interpolation, traversal, encode", module=MAKE
    ),
    "no number": Bad("run=x n=many", "n=many: | whole number", module=MAKE),
    "no temperature": Bad("run=x temperature=hot", "temperature=hot: | number", module=MAKE),
    "too many": Bad("run=x n=4096", "n=4096: | whole number from 1 to 2,048 | what=samples", module=MAKE),
    "no option": Bad("run=x m=1", f"m=1: | key=value | {OF_A_RUN}", module=MAKE),
    "no store": Bad("run=0123", "run=0123: | no runs are stored here | sqlite:///./mlflow.db", module=MAKE),
    "no run id": Bad("run=best", "run=best: no such file | no runs are stored here", module=MAKE),
    "unknown run": Bad(
        "run=0123456789abcdef", "run=0123456789abcdef: | sqlite:///./mlflow.db | mlflow ui", bad.store, MAKE
    ),
    "ambiguous run": Bad("run=LETTER", "several run ids begin with this ( | give more", bad.store, MAKE),
    "run of a sweep": Bad("run=SWEEP", "sweep is FAILED | no checkpoint | id of a finished run", bad.store, MAKE),
    "failed run": Bad("run=FAILED", "conv-p1 is FAILED | no checkpoint | id of a finished run", bad.store, MAKE),
    "no server of runs": Bad(
        "run=0123 uri=http://127.0.0.1:9", "http://127.0.0.1:9: | refused | another tracking.uri", module=MAKE
    ),
    "picture elsewhere": Bad("run=checkpoint.pt out=x.jpg", "out=x.jpg: | .png", bad.saved(), MAKE),
    "file in the way": Bad(
        "run=checkpoint.pt",
        "out=./outputs/generated/linear-tiny-samples-0.png: | Not a directory | another out=",
        bad.both(bad.saved(), bad.file("outputs")),
        MAKE,
    ),
    "no sweep": Bad("out=here", "sweep= | missing | give the id", module=COMPARE),
    "no option of it": Bad(
        "sweep=1 margin=2", "margin=2: | key=value | sweep, out, uri, model, dataset", module=COMPARE
    ),
    "no runs": Bad("sweep=0123abcd", "sweep=0123abcd: no runs are stored here", module=COMPARE),
}

HABITS = {
    "plus in front of a group": Bad("+experiment=smoke ++model=fc params=x", f"params=x: | {SETS}"),
    "plus in front of a key": Bad("+seed=0", "+seed: | seed=<value> | without the plus"),
    "dashes": Bad("--model=fc --params p1", "without dashes | python -m vae_sweep model=fc params=p1"),
    "no such option": Bad("--hepl", "--hepl: | --help?"),
    "value of a switch": Bad("--multirun=true", "--multirun/-m | 'true' | --help"),
    "option without its value": Bad("--cfg", "--cfg/-c | expected one argument | --help"),
    "options in between": Bad("model=fc -m params=p9", f"params=p9: | {SETS}"),
    "space behind a comma": Bad(
        "--multirun model=fc, conv", "model=fc, conv: | spaces | python -m vae_sweep --multirun model=fc,conv"
    ),
    "sweep without -m": Bad(
        "model=fc,conv seed=1", "model=fc,conv: | -m: | python -m vae_sweep -m model=fc,conv seed=1"
    ),
    "range without -m": Bad("seed=range(3)", "seed=range(3): | -m: | python -m vae_sweep -m 'seed=range(3)'"),
    "decimal comma": Bad("params.lr=0,001", "params.lr=0,001: | point | params.lr=0.001"),
    "list of choices": Bad("model=[fc,conv]", "model=[fc,conv]: | python -m vae_sweep -m model=fc,conv"),
    "dots of a range": Bad("seed=0..4", "seed=0..4: | python -m vae_sweep -m 'seed=range(0,5)'"),
    "quotes and parentheses": Bad(
        """dataset=folder "dataset.path=it's (mine), 2024=new" """,
        """quotes | python -m vae_sweep dataset=folder 'dataset.path="it'\\''s (mine), 2024=new"'""",
    ),
    "home folder": Bad("dataset=folder 'dataset.path=~/no such'", "/no such: | no folder /"),
    "folder like a number": Bad("dataset=folder dataset.path=2024_01", "no folder ./2024_01;"),
    "spaces at the end": Bad("dataset=folder 'dataset.path=p  '", "no folder ./p;"),
    "one word": Bad("help", "help: | key=value | --help?"),
    "file for a name": Bad("model=conf/model/fc.yaml", f"model=conf/model/fc.yaml: | {MODELS} | fc?"),
    "swept experiment with a store of its own": Bad(
        "-m experiment=smoke,celeba30 dataset=shapes",
        "experiment=smoke: it sets | which a sweep has once | for the whole sweep instead",
    ),
    "list without brackets": Bad(
        "model=fc model.hidden_dims=512,256", "several values | brackets: 'model.hidden_dims=[512,256]'"
    ),
    "variance with a comma": Bad("objective.variance=0,5", "several values | point: objective.variance=0.5"),
    "empty name of a sweep": Bad("-m sweep.name= model=fc,conv dataset=shapes", "sweep.name=: | a name, or null"),
    "own YAML with a tab": Bad(
        f"--config-dir mine model=own {OWN}",
        "own.yaml line 2: | no YAML | correct the file",
        prepare=bad.own_model(b"name: own\n\t_target_: my_vae.MyVAE\n"),
    ),
    "own YAML in another encoding": Bad(
        f"--config-dir mine model=own {OWN}",
        "a YAML file of yours is not UTF-8 | save it as UTF-8",
        prepare=bad.own_model("name: Übung\n".encode("latin-1")),
    ),
    "own YAML without a class": Bad(
        f"--config-dir mine model=own {OWN}",
        "model._target_: the YAML that was chosen has none | `_target_: ...`",
        prepare=bad.own_model(b"name: own\n"),
    ),
    "own YAML with the latents": Bad(
        f"--config-dir mine model=own {OWN}",
        "model.latent_dim=16: | comes from params.latent_dim | leave it out",
        prepare=bad.own_model(b"name: own\n_target_: vae_sweep.models.fc.FCVAE\nlatent_dim: 16\n"),
    ),
    "own module that cannot be read": Bad(
        f"--config-dir mine model=own {OWN}",
        "model._target_='my_vae.MyVAE': | its module cannot be imported (SyntaxError: | HYDRA_FULL_ERROR=1",
        prepare=bad.own_model(b"name: own\n_target_: my_vae.MyVAE\n", b"class MyVAE(\n"),
    ),
    "relative class": Bad(
        f"--config-dir mine model=own {OWN}",
        "model._target_='.my_vae.MyVAE': | cannot be imported | dotted path",
        prepare=bad.own_model(b"name: own\n_target_: .my_vae.MyVAE\n"),
    ),
    "own data source whose file is missing": Bad(
        f"--config-dir mine dataset=own {SMALL} training.device=cpu",
        "dataset=own: my_data.Mine.fingerprint failed (FileNotFoundError: | images.npz | HYDRA_FULL_ERROR=1",
        prepare=bad.own_source("Path('images.npz').stat().st_size"),
    ),
    "own data source whose fingerprint is no JSON": Bad(
        f"--config-dir mine dataset=own {SMALL} training.device=cpu",
        "dataset=own: my_data.Mine.fingerprint failed (TypeError: | JSON",
        prepare=bad.own_source("Path('images.npz')"),
    ),
    "class for a name": Bad("model=my_vae.MyVAE", f"{MODELS} | YAML file in <folder>/model/ | --config-dir <folder>"),
    "capitals": Bad("model=FC", f"model=FC: | {MODELS} | fc?"),
    "key of another section": Bad("params.beta=4", f"params.beta: | {OF_A_SET} | objective.beta?"),
    "key without its section": Bad("lr=0.1", f"lr: | {SECTIONS} | params.lr?"),
    "word of other tools": Bad("epochs=3", f"epochs: | {SECTIONS} | training.max_epochs?"),
    "overlay as a configuration": Bad("-cn smoke", "--config-name smoke: | smoke.yaml | experiment=<name>"),
    "no runs at once": Bad("-m hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: | 1 | or -1 (as many as CPU cores)"),
    "empty batches": Bad("-m hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0: | a whole number >= 1"),
    "several of a launcher's": Bad(
        "-m hydra.launcher.prefer=x hydra.launcher.pre_dispatch=x hydra.launcher.batch_size=0 hydra.launcher.timeout=0",
        "prefer=x: | processes or threads; | batch_size=0: | auto or | >= 1; | pre_dispatch=x: | 2*n_jobs; | "
        "timeout=0.0: | seconds | null",
    ),
    "dot for a slash": Bad("-m hydra.launcher=basic", "hydra.launcher=basic: | hydra/launcher=basic"),
    "value for a section": Bad("sweep=mine", "sweep=mine: | section | sweep.name=..."),
    "key of another choice": Bad(
        "model=fc model.channels=[8]",
        "model.channels: | _target_, name, baseline, hidden_dims | model=conv and model=fc_matched and model=conv_res",
    ),
    "added section": Bad("+trainer.gpus=1", f"+trainer: | `+` cannot | {SECTIONS}"),
    "folder for a name": Bad("dataset=./p", "celeba, cifar10, folder, shapes | dataset=folder dataset.path=./p"),
    "no minutes": Bad(
        "-m hydra/launcher=submitit_local hydra.launcher.timeout_min=0",
        "hydra.launcher.timeout_min=0: | a whole number >= 1",
    ),
    "no Slurm": Bad("-m hydra/launcher=slurm", "hydra/launcher=slurm: | `srun` | cluster"),
    "dashes of a run": Bad("--run abc", f"{OF_A_RUN} | write run=abc", module=MAKE),
    "space between sweeps": Bad(
        "sweep=a, b", "sweep, out, uri, model, dataset | write sweep=a,b, without the space", module=COMPARE
    ),
}

PARTS = (CONFIGURATION, ENVIRONMENT, DATA, CHECKPOINTS, RUNS, HABITS)
TABLE = {name: case for part in PARTS for name, case in part.items()}
