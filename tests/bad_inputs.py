"""The table of bad inputs: the command, what stands in its folder, and a part of the line it must end with."""

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
MAKE = "vae_sweep.generate"
COMPARE = "vae_sweep.compare"
NAN = float("nan")


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
        assert self.says in last, last
        return last


@contextmanager
def unchanged(home: Path) -> Iterator[None]:
    """Nothing may appear beside the project folder."""
    before = sorted(home.iterdir())
    yield
    assert sorted(home.iterdir()) == before


CONFIGURATION = {
    "no such model": Bad(
        "model=fcc",
        "model=fcc: no such choice; available: conv, conv_res, fc, fc_matched, fc_res, fc_skip, linear; did you",
    ),
    "no such set": Bad("params=p9", "params=p9: no such choice; available: best, fast, fast_fc, p1, p2, p3, tiny"),
    "no such data": Bad("dataset=cifar", "dataset=cifar: no such choice; available: celeba, cifar10, folder, shapes"),
    "no such group": Bad("modle=fc", "modle: no such key; known keys: seed, model, dataset"),
    "no such key": Bad(
        "params.lrr=1",
        "params.lrr: no such key; known keys: name, batch_size, lr, latent_dim, schedule, mirror, epochs;",
    ),
    "added key": Bad("+params.foo=1", "+params.foo: no such key; a `+` cannot add one here"),
    "no value": Bad("params.lr", "params.lr: settings are written key=value; did you mean params.lr=...?"),
    "type": Bad("params.lr=abc", "params.lr: Value 'abc' of type 'str' could not be converted to Float"),
    "mirrored noise": Bad(
        "params.mirror=true dataset.permute_pixels=true", "params.mirror=true: pictures whose pixels"
    ),
    "no blocks": Bad("model=fc_res model.blocks=0", "model.blocks=0: must be a whole number from 1 to 100"),
    "no such schedule": Bad("params.schedule=cosine", "params.schedule=cosine: must be constant or one_cycle"),
    "schedule without a length": Bad("params.schedule=one_cycle", "a one_cycle needs its number of epochs"),
    "length without a schedule": Bad("params.epochs=5", "a constant learning rate ends by early stopping"),
    "no such precision": Bad("training.precision=half", "training.precision=half: must be float32, tf32 or bfloat16"),
    "no such layout": Bad("training.channels_last=never", "training.channels_last=never: must be auto, true or false"),
    "too small": Bad("params.latent_dim=0", "params.latent_dim=0: must be a whole number from 1 to 65,536"),
    "too large": Bad("training.threads=1000000", "training.threads=1000000: must be a whole number from 1 to 256"),
    "not finite": Bad("params.lr=nan", "params.lr=nan: must be a number from 1e-12 to 1e12"),
    "overflow": Bad("objective.beta=1e308", "objective.beta=1e+308: must be a number from 1e-6 to 1e6 (1 = the ELBO)"),
    "no such word": Bad("objective.reduction=avg", "objective.reduction=avg: must be sum or mean"),
    "seed": Bad("seed=-1", "seed=-1: must be a whole number from 0 to 2^63 - 1"),
    "width": Bad("model=fc model.hidden_dims=[64,0]", "model.hidden_dims=[64, 0]: must be a list of 1 to 100 widths"),
    "several at once": Bad(
        "params.lr=0 training.patience=0 seed=-1",
        "seed=-1: must be a whole number from 0 to 2^63 - 1; params.lr=0.0: must be a number from 1e-12 to 1e12; "
        "training.patience=0: must be",
    ),
    "path as a name": Bad("params.name=../../evil", "params.name=../../evil: must be up to 100 letters, digits, '_'"),
    "null model": Bad("model=null", "Hydra cannot compose this command (ValueError: Config group override must be"),
    "no key": Bad("+=", "+=: + is no key; --help shows how a command is written"),
    "no model": Bad("~model", "model: nothing is chosen; give model=<name>, --help lists the names"),
    "section for section": Bad("training=${objective}", "training: one section cannot stand for another"),
    "too deep": Bad(f"model.channels=[8,8,8,8,8,8] {SMALL}", "multiples of 64; the images are 32x32"),
    "model too large": Bad(
        f"model=fc model.hidden_dims=[1000000,1000000] {SMALL}",
        "and this machine has",
    ),
    "images too many": Bad(
        f"{SMALL} dataset.image_size=4096 dataset.n_train=10000000",
        "dataset.image_size=4096: 10,000,100 images of 4096x4096 pixels need 503 TB of memory, and this machine has",
    ),
    "batch too large": Bad(f"params.batch_size=361 {SMALL}", "params.batch_size=361: larger than the 360 training"),
    "no validation": Bad(f"dataset.val_fraction=0.001 {SMALL}", "of 400 images leaves no validation image"),
    "swept model": Bad("-m model=fc,convv", "model=convv: no such choice"),
    "swept type": Bad("-m params.lr=1e-3,abc", "params.lr: Value 'abc'"),
    "swept range": Bad("-m params.latent_dim=8,0", "params.latent_dim=0: must be a whole number from 1"),
    "swept twice": Bad("-m params=p1,p1", "the sweep holds conv-p1 twice"),
    "swept interval": Bad("-m seed=interval(0,1)", "seed=interval(0,1): a range without steps; list its values"),
    "nothing swept": Bad("-m seed=range(3,1)", "seed=range(3,1): holds no value, so there is nothing to train"),
    "too many swept": Bad("-m seed=range(9999999999999)", "holds more than 1,000 runs (1001+ seed); give fewer"),
    "swept data": Bad("-m dataset=celeba,shapes", "dataset=celeba: no images at"),
    "call as a model": Bad(
        f"model._target_=os.system {SMALL}", "must be a subclass of vae_sweep.models.vae.VAE, nothing else is called"
    ),
    "call as data": Bad("dataset._target_=os.system", "must be a subclass of vae_sweep.datasets.base.Source, nothing"),
    "no such class": Bad(
        f"model._target_=my.VAE {SMALL}", "cannot be imported (No module named 'my'); give the dotted path"
    ),
    "no such network": Bad("metrics.features=fid", "metrics.features=fid: must be auto, inception, efficientnet_lite0"),
    "too few to compare": Bad("metrics.feature_images=10", "metrics.feature_images=10: must be a whole number from 50"),
    "no such weights": Bad(
        f"metrics.inception_weights=nowhere.pth metrics.features=inception {SMALL}", "./nowhere.pth"
    ),
    "other weights": Bad(
        f"metrics.inception_weights=weights.pth metrics.features=inception {SMALL}",
        "weights.pth",
        bad.file("weights.pth", b"no weights"),
    ),
    "swept metrics": Bad("-m metrics.iwae_samples=10,100", "metrics.iwae_samples=10,100: decides no run's numbers"),
    "permuted by a word": Bad("dataset=shapes dataset.permute_pixels=some", "dataset.permute_pixels"),
}

ENVIRONMENT = {
    "no such device": Bad("training.device=gpu", "training.device=gpu: must be auto, cpu, cuda, cuda:N or mps"),
    "no GPU": Bad(
        f"training.device=cuda {SMALL}",
        "training.device=cuda: PyTorch sees 0 CUDA devices here; give auto or cpu",
        environment={"CUDA_VISIBLE_DEVICES": ""},
    ),
    "file in the way of outputs": Bad(SMALL, "paths.root=.: cannot be written", bad.file("outputs")),
    "file in the way of mlruns": Bad(f"-m {SMALL}", "paths.root=.: cannot be written", bad.file("mlruns")),
    "file in the way of the cache": Bad(
        SMALL, "cannot write prepared images under ./data/cache", bad.file("data/cache")
    ),
    "root is relative": Bad("paths.root=here", "paths.root=here: must be an absolute path, or left out"),
    "text as a database": Bad(SMALL, "cannot be opened (file is not a database)", bad.file("mlflow.db", b"x" * 99)),
    "database cut off": Bad(f"-m {SMALL}", "sqlite:///./mlflow.db: cannot be opened (", bad.cut_database),
    "no server": Bad(
        SMALL, "no MLflow server answers there", environment={"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    ),
    "file store": Bad(
        SMALL,
        "tracking.uri=file:./mlruns: MLflow no longer keeps runs in plain folders; give sqlite:///path/mlflow.db",
        environment={"MLFLOW_TRACKING_URI": "file:./mlruns"},
    ),
    "no such store": Bad(f"tracking.uri=nonsense://x {SMALL}", "tracking.uri=nonsense://x: no such kind of store"),
    "folder as a store": Bad(f"tracking.uri=sqlite:////dev/null/x.db {SMALL}", "cannot be opened"),
    "Hydra's own variable": Bad("model=x", "model=x: no such choice", environment={"HYDRA_FULL_ERROR": "0"}),
    "no such environment": Bad("params.lr=${oc.env:NOWHERE}", "Environment variable 'NOWHERE' not found"),
    "no such interpolation": Bad("params.lr=${nowhere}", "params.lr: Interpolation key 'nowhere' not found"),
    "folder as a database": Bad(
        SMALL, "./mlflow.db is a folder; give sqlite:///path/mlflow.db", bad.folder("mlflow.db")
    ),
    "no address": Bad(
        SMALL,
        "tracking.uri=http://[::1: not the address of a server, which is http://host:port; give a user by",
        environment={"MLFLOW_TRACKING_URI": "http://[::1"},
    ),
    "no such place": Bad(
        f"hydra.run.dir=/proc/nothing {SMALL}", "/proc/nothing: No such file or directory; the folder"
    ),
    "no such configuration": Bad("--config-name nope", "--config-name nope: no nope.yaml among"),
    "no such folder of it": Bad("--config-dir nope", "Additional config directory './nope' not found"),
}

DATA = {
    "no path": Bad("dataset=folder", "dataset.path has no value; add dataset.path=... to the command"),
    "no folder": Bad(FOLDER, "dataset.path=./pictures: there is no folder ./pictures; give the folder of your images"),
    "file for a folder": Bad(FOLDER, "./pictures is a file; give a folder, and unpack", bad.file("pictures")),
    "empty folder": Bad(FOLDER, "no images in ./pictures or below; known endings: apng", bad.folder("pictures")),
    "no pictures": Bad(FOLDER, "or below, only 1 files ending in .txt; known", bad.file("pictures/notes.txt", b"x")),
    "splits in doubt": Bad(
        FOLDER,
        "it is not clear whether holdout, train are splits; give dataset.splits=given (20 train: train; 20 test: "
        "holdout) or dataset.splits=draw",
        bad.both(bad.pictures(bad.good_png(), 20, "train/"), bad.pictures(bad.good_png(), 20, "holdout/")),
    ),
    "no splits": Bad(
        f"{FOLDER} dataset.splits=given", "no folders are called train, val, test", bad.pictures(bad.good_png())
    ),
    "no such splits": Bad(
        f"{FOLDER} dataset.splits=some", "dataset.splits=some is not allowed: it must be auto, given"
    ),
    "unknown scale": Bad(
        FOLDER,
        "0.png holds floating-point values of unknown scale; give the values of black and white of all such images, "
        "as dataset.value_range=[0,1]",
        bad.pictures(bad.float_tiff()),
    ),
    "no scale": Bad(f"{FOLDER} dataset.value_range=[1,0]", "must be [black, white], two numbers, such as [0,1] or"),
    "no number of images": Bad(f"{FOLDER} dataset.max_images=0", "dataset.max_images=0 is not allowed: it must be a"),
    "too few": Bad(FOLDER, "dataset.test_fraction=0.1 of 3 images leaves no test", bad.pictures(bad.good_png(), 3)),
    "0 bytes": Bad(FOLDER, "is usable; the first, ./pictures/0.png: not an image of a known", bad.pictures(b"")),
    "text as picture": Bad(FOLDER, "0.png: not an image of a known kind (JPEG, PNG", bad.pictures(b"hello")),
    "archive as picture": Bad(FOLDER, "0.png: not an image of a known kind", bad.pictures(bad.zipped())),
    "program as picture": Bad(FOLDER, "0.png: not an image of a known kind", bad.pictures(bad.PROGRAM)),
    "PostScript as picture": Bad(FOLDER, "0.png: not an image of a known kind", bad.pictures(bad.POSTSCRIPT)),
    "pipe as picture": Bad(FOLDER, "0.png: not a regular file; give files", bad.pipes),
    "cut off": Bad(FOLDER, "is usable; the first, ./pictures/0.png: ", bad.pictures(bad.good_png(64)[:999])),
    "decompression bomb": Bad(FOLDER, "which may be a decompression bomb; give", bad.pictures(bad.bomb_png())),
    "one broken": Bad(f"{FOLDER} dataset.strict=true", "./pictures/7.png is broken (", bad.one_of_many(b"\x89PNG")),
    "no CIFAR-10": Bad("dataset.download=false", "dataset=cifar10: CIFAR-10 is not there and dataset.download=false"),
    "archive cut off": Bad(
        "seed=0", "gz is damaged or incomplete: md5", bad.file("data/cifar-10-python.tar.gz", b"\x1f\x8b")
    ),
    "hostile archive": Bad("seed=0", "delete it and fetch it again; it was not extracted", bad.hostile_archive),
    "pickle as batches": Bad("seed=0", "data_batch_1 is damaged or incomplete: md5", bad.pickled_batches),
    "Kaggle's pictures": Bad(
        "dataset.download=false",
        "./data/train: Kaggle's images; dataset=folder dataset.path=./data/train takes them; dataset=shapes works",
        bad.both(bad.file("data/train/1.png"), bad.file("data/trainLabels.csv")),
    ),
    "no batches": Bad("seed=0", "data_batch_1 is missing; delete", bad.folder("data/cifar-10-batches-py")),
    "no partition": Bad("dataset=celeba", "the official partition is missing; put it at ./data", bad.faces(None)),
    "faces of half the size": Bad(
        "dataset=celeba dataset.fraction=1.0",
        "have 89x109 pixels (the aligned ones 178x218); give dataset.crop_size=74",
        bad.small_faces,
    ),
    "faces not unpacked": Bad(
        "dataset=celeba dataset.fraction=1.0",
        "1 of 1 val images are missing in ./data/img_align_celeba (the first: 2.jpg); what lies there is called "
        "000001.jpg; finish unpacking",
        bad.faces(b"000001.jpg 0\n2.jpg 1\n3.jpg 2\n"),
    ),
    "garbled partition": Bad(
        "dataset=celeba", "line 2 reads 'x'; it must be a file name and 0", bad.faces(b"1.jpg 0\nx")
    ),
    "binary partition": Bad("dataset=celeba", "line 1 reads '\\x00.jpg 0'", bad.faces(b"\0.jpg 0\n")),
    "empty partition": Bad("dataset=celeba", "the partition file lists no train image", bad.faces(b"")),
}

CHECKPOINTS = {
    "no file": Bad("run=nowhere.pt", "nowhere.pt: no such file; give a run id, or the path", module=MAKE),
    **{
        name: Bad("run=checkpoint.pt", says, prepare, MAKE)
        for name, says, prepare in [
            ("0 bytes as weights", "not a checkpoint that can be read (EOFError)", bad.file("checkpoint.pt")),
            ("text as weights", "not a checkpoint that can be read", bad.file("checkpoint.pt", b"no weights")),
            ("weights cut off", "not a checkpoint that can be read (RuntimeError)", bad.cut),
            ("another program's", "not a checkpoint of vae_sweep; give", bad.saved(format="other")),
            ("pickle in weights", "not a checkpoint that can be read (UnpicklingError)", bad.bomb_in_checkpoint),
            ("pickle as weights", "not a checkpoint that can be read (UnpicklingError)", bad.bare_pickle),
            (
                "call in weights",
                "checkpoint.pt: model._target_='os.system': not a class of vae_sweep, so its module is not imported",
                bad.saved_model("os.system"),
            ),
            ("another class", "not a class of vae_sweep, so its module is not", bad.saved_model("torch.nn.Linear")),
            (
                "not a model",
                "must be a subclass of vae_sweep.models.vae.VAE",
                bad.saved_model("vae_sweep.models.fc.nn"),
            ),
            ("wrong shape", "size mismatch for logvar", bad.saved(latent_dim=3)),
            ("absurd size", "does not fit its architecture", bad.saved(latent_dim=10**12)),
            ("size nan", "sizes must be whole numbers > 0, not [3, 4, nan, 2]", bad.saved(image_shape=[3, 4, NAN])),
            ("weights nan", "the checkpoint's weights are not finite; give", bad.not_finite),
            ("no name", "does not fit its architecture (KeyError: 'facts')", bad.saved(facts=None)),
        ]
    },
    "call as the model": Bad(
        "run=checkpoint.pt model=os.system",
        "model='os.system': must be a subclass of vae_sweep.models.vae.VAE",
        bad.saved(),
        MAKE,
    ),
    "no images known": Bad(
        "run=checkpoint.pt what=reconstructions", "does not say what images it was trained on", bad.saved(), MAKE
    ),
}

RUNS = {
    "nothing asked": Bad("what=samples", "run= is missing; give a run id (the table's last column", module=MAKE),
    "no such picture": Bad("run=x what=movie", "what=movie: no such picture; available: samples, inter", module=MAKE),
    "no number": Bad("run=x n=many", "n=many: must be a whole number", module=MAKE),
    "too many": Bad("run=x n=4096", "n=4096: must be a whole number from 1 to 2,048 with what=samples", module=MAKE),
    "no option": Bad("run=x m=1", "m=1: not an option; write key=value with a key of: run, what", module=MAKE),
    "no store": Bad("run=0123", "run=0123: no checkpoint of that name, and no runs are stored here", module=MAKE),
    "no run id": Bad("run=best", "run=best: no such file, and no run id, which is up to 32 of", module=MAKE),
    "unknown run": Bad("run=0123456789abcdef", "no such run in sqlite:///./mlflow.db; `mlflow ui`", bad.store, MAKE),
    "ambiguous run": Bad("run=LETTER", "several runs begin so (", bad.store, MAKE),
    "run of a sweep": Bad("run=SWEEP", "sweep is FAILED and has no checkpoint; give the id of", bad.store, MAKE),
    "failed run": Bad("run=FAILED", "conv-p1 is FAILED and has no checkpoint; give the id of", bad.store, MAKE),
    "no server of runs": Bad("run=0123 uri=http://127.0.0.1:9", "no MLflow server answers there", module=MAKE),
    "picture elsewhere": Bad("run=checkpoint.pt out=x.jpg", "out=x.jpg: must end in .png", bad.saved(), MAKE),
    "file in the way": Bad(
        "run=checkpoint.pt", "cannot be written (", bad.both(bad.saved(), bad.file("outputs")), MAKE
    ),
    "no sweep": Bad("out=here", "sweep= is missing; give the id of a sweep's run", module=COMPARE),
    "no option of it": Bad(
        "sweep=1 margin=2", "margin=2: not an option; write key=value with a key of: sweep", module=COMPARE
    ),
    "no runs": Bad("sweep=0123abcd", "sweep=0123abcd: no runs are stored here", module=COMPARE),
}

HABITS = {
    "plus in front of a group": Bad("+experiment=smoke ++model=fc params=x", "params=x: no such choice; available: "),
    "plus in front of a key": Bad("+seed=0", "+seed: the key exists already; write seed=<value>, without the plus"),
    "dashes": Bad("--model=fc --params p1", "without dashes; write: python -m vae_sweep model=fc params=p1"),
    "no such option": Bad("--hepl", "--hepl: no such option; did you mean --help?"),
    "value of a switch": Bad("--multirun=true", "argument --multirun/-m: ignored explicit argument 'true'; --help"),
    "option without its value": Bad("--cfg", "argument --cfg/-c: expected one argument; --help shows"),
    "options in between": Bad("model=fc -m params=p9", "params=p9: no such choice"),
    "space behind a comma": Bad(
        "--multirun model=fc, conv",
        "model=fc, conv: no spaces around `,` and `=`; write: python -m vae_sweep --multirun model=fc,conv",
    ),
    "sweep without -m": Bad("model=fc,conv seed=1", "which needs -m: python -m vae_sweep -m model=fc,conv seed=1"),
    "range without -m": Bad("seed=range(3)", "which needs -m: python -m vae_sweep -m 'seed=range(3)'"),
    "decimal comma": Bad("params.lr=0,001", "a decimal number has a point: params.lr=0.001"),
    "list of choices": Bad("model=[fc,conv]", "write: python -m vae_sweep -m model=fc,conv"),
    "dots of a range": Bad("seed=0..4", "write: python -m vae_sweep -m 'seed=range(0,5)'"),
    "quotes and parentheses": Bad(
        """dataset=folder "dataset.path=it's (mine), 2024=new" """,
        """write: python -m vae_sweep dataset=folder 'dataset.path="it'\\''s (mine), 2024=new"'""",
    ),
    "home folder": Bad("dataset=folder 'dataset.path=~/no such'", "/no such: there is no folder /"),
    "folder like a number": Bad("dataset=folder dataset.path=2024_01", "there is no folder ./2024_01;"),
    "spaces at the end": Bad("dataset=folder 'dataset.path=p  '", "there is no folder ./p;"),
    "one word": Bad("help", "help: settings are written key=value; did you mean --help?"),
    "file for a name": Bad("model=conf/model/fc.yaml", "linear; did you mean fc?"),
    "class for a name": Bad("model=my_vae.MyVAE", "one of your own is the name of a YAML file in <folder>/model/"),
    "capitals": Bad("model=FC", "did you mean fc?"),
    "key of another section": Bad("params.beta=4", "did you mean objective.beta?"),
    "key without its section": Bad("lr=0.1", "did you mean params.lr?"),
    "word of other tools": Bad("epochs=3", "did you mean training.max_epochs?"),
    "overlay as a configuration": Bad("-cn smoke", "--config-name smoke: no smoke.yaml among the configurations;"),
    "no runs at once": Bad(
        "-m hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: must be 1, a number of runs at once,"
    ),
    "empty batches": Bad(
        "-m hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0: must be a whole number >"
    ),
    "several of a launcher's": Bad(
        "-m hydra.launcher.prefer=x hydra.launcher.pre_dispatch=x hydra.launcher.batch_size=0 hydra.launcher.timeout=0",
        "hydra.launcher.timeout=0.0: must be a number > 0 (seconds), or null",
    ),
    "dot for a slash": Bad("-m hydra.launcher=basic", "a choice is written with a slash: hydra/launcher=basic"),
    "value for a section": Bad("sweep=mine", "sweep=mine: sweep is a section; set a key of it: sweep.name=..."),
    "key of another choice": Bad(
        "model=fc model.channels=[8]", "; model=conv and model=fc_matched and model=conv_res have"
    ),
    "added section": Bad(
        "+trainer.gpus=1", "+trainer: no such key; a `+` cannot add one here; known keys: seed, model,"
    ),
    "folder for a name": Bad("dataset=./p", "a folder of pictures is given as dataset=folder dataset.path=./p"),
    "no minutes": Bad(
        "-m hydra/launcher=submitit_local hydra.launcher.timeout_min=0", "hydra.launcher.timeout_min=0: must"
    ),
    "no Slurm": Bad("-m hydra/launcher=slurm", "hydra/launcher=slurm: there is no `srun` here; start the sweep on"),
    "dashes of a run": Bad("--run abc", "model, dataset; write run=abc", module=MAKE),
    "space between sweeps": Bad("sweep=a, b", "write sweep=a,b, without the space", module=COMPARE),
}

PARTS = (CONFIGURATION, ENVIRONMENT, DATA, CHECKPOINTS, RUNS, HABITS)
TABLE = {name: case for part in PARTS for name, case in part.items()}
