"""What a setting of the training costs or saves: ``python benchmarks/settings.py training.precision=bfloat16``.

Each argument is one setting, or several with commas; each is compared with the default in the same cell. Both sides
train one epoch in turn. Core time of the updates with their validation, which is of one image; one thread.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import torch

import common

SETTINGS = ["training.precision=bfloat16", "training.channels_last=false"]


def main() -> None:
    parser = common.arguments(__doc__, repetitions=10)
    parser.add_argument("--images", type=int, default=1536, help="of an epoch; default 1536")
    parser.add_argument("--models", type=common.names, default=["fc", "fc_res", "conv", "conv_res"])
    parser.add_argument("--params", type=common.names, default=["p1"])
    parser.add_argument("settings", nargs="*", default=SETTINGS, help=f"default: {' '.join(SETTINGS)}")
    options = parser.parse_args()
    if any(word.startswith(("training.threads", "training.device")) for word in ",".join(options.settings).split(",")):
        parser.error("training.threads and training.device are not compared: one thread of the CPU trains here")
    torch.set_num_threads(1)
    images = common.pictures(options.images)
    rows = []
    for model in options.models:
        for params in options.params:
            chosen = {"default": [], **{name: common.names(name) for name in options.settings}}
            cells = {name: common.cell(model, params, "training.device=cpu", *each) for name, each in chosen.items()}
            epochs = options.repetitions + 1
            ways = {name: common.epochs_of(cfg, images, images[:1], epochs) for name, cfg in cells.items()}
            costs = common.interleaved(ways, options.repetitions)
            default = 1e6 * common.median(costs["default"]).core / len(images)
            ratios = [f"{common.ratio(costs[name], costs['default']).core:.2f}" for name in options.settings]
            rows.append([f"{model} {params}", f"{default:.0f}", *ratios])
    common.table(["cell", "default, us an image", *(f"{name} / default" for name in options.settings)], rows)
    common.closing()


if __name__ == "__main__":
    main()
