"""The options of cellseg-d2 benchmark."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import at_least, count, seed, whole

PARTS = ("rates", "targets", "round-trip", "outside", "waiting", "memory")
MEMORY_CONFIG = Path("sartorius/mask_rcnn_R_50_FPN")
EXAMPLES = """\
  cellseg-d2 benchmark data --csv train.csv --images train/ --images-limit 20
  cellseg-d2 benchmark data --json datasets/sartorius/instances_train.json --run output/quickstart \\
      --output benchmark.json
  cellseg-d2 benchmark data --json datasets/sartorius/instances_train.json --parts targets outside
  cellseg-d2 benchmark convert --csv train.csv
  cellseg-d2 benchmark models --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml configs/quickstart/*GN.yaml
  cellseg-d2 benchmark predict --output benchmark.json
  cellseg-d2 benchmark mosaic --sides 1000 5000 10000
  cellseg-d2 benchmark corrections --json datasets/livecell/instances_*.json --folder output/loop
"""
EXPLAINED = {"epilog": f"examples:\n{EXAMPLES}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "benchmark", "Measurements of this project against stock Detectron2, both in the same run.", EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    figures = argparse.ArgumentParser(add_help=False)
    group = figures.add_argument_group("output")
    group.add_argument("--output", type=Path, metavar="FILE", help="also write all figures as JSON")

    data = commands.add_parser(
        "data",
        parents=[figures],
        help="training data: speed, size and quality of samples",
        description="Speed of the mappers with rotation by any angle, short side 1000 and flip; size of the targets; "
        "masks after a rotation and back; pixels from outside the image; time spent waiting for data; GPU memory. "
        "On an image with 800 cells the stock mapper takes 3 GB of memory and many seconds.",
        **EXPLAINED,
    )
    group = data.add_argument_group("images (noise takes the place of missing files)")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--json", type=Path, metavar="FILE", help="instances_<part>.json of a converted dataset")
    source.add_argument("--csv", type=Path, metavar="FILE", help="the competition's train.csv, also gzipped")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder of images, for --csv")
    group.add_argument(
        "--images-limit", type=whole, default=0, metavar="N", help="average over N random images (default: all)"
    )

    group = data.add_argument_group("measurements")
    group.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"some of: {' '.join(PARTS)}"
    )
    group.add_argument(
        "--repeats", type=count, default=3, metavar="N", help="turns on the densest image (default: %(default)s)"
    )
    group.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of OpenCV and PyTorch (default: 1, as in a data worker)"
    )
    group.add_argument("--draws", type=count, default=200, metavar="N", help="rotations drawn (default: %(default)s)")
    group.add_argument("--run", nargs="+", default=[], metavar="DIR", help="training runs, for the time spent waiting")
    group.add_argument(
        "--memory-config",
        type=Path,
        default=MEMORY_CONFIG,
        metavar="FILE",
        help="model for the GPU memory, from scratch (default: %(default)s)",
    )
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="of all random draws (default: %(default)s)")

    conversion = commands.add_parser("convert", help="conversion of run lengths, beside one float mask per row")
    conversion.add_argument("--csv", type=Path, required=True, metavar="FILE", help="train.csv, also gzipped")
    conversion.add_argument(
        "--images-limit", type=whole, default=25, metavar="N", help="images for float masks (default: %(default)s)"
    )

    prediction = commands.add_parser(
        "predict",
        parents=[figures],
        help="post-processing and run-lengths of one crowded image",
        description="From the detections of one image to run-lengths: this project; stock Detectron2's pasting with "
        "one pycocotools call a mask, overlaps left and removed; and full-size masks compared in pairs and read pixel "
        "by pixel. Times are medians, the ways in turn. The last way is measured on a few cells and scaled up.",
        **EXPLAINED,
    )
    group = prediction.add_argument_group("image (simulated unless --detections is given)")
    group.add_argument("--cells", type=count, metavar="N", help="detections (default: 800, or all of FILE)")
    group.add_argument(
        "--size", type=count, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of a simulated image (default: 520 704)"
    )
    group.add_argument("--detections", type=Path, metavar="FILE", help="detections.npz; its image with most of them")
    group.add_argument("--seed", type=seed, default=0, metavar="N", help="of the simulation (default: %(default)s)")
    group = prediction.add_argument_group("measurements")
    group.add_argument("--repeats", type=count, default=5, metavar="N", help="of all ways (default: %(default)s)")
    group.add_argument("--threads", type=count, default=1, metavar="N", help="of OpenCV and PyTorch (default: 1)")
    group.add_argument("--full", action="store_true", help="go the slow way with all cells: about a minute a repeat")

    models = commands.add_parser(
        "models",
        parents=[figures],
        help="time and memory of training and prediction, by configuration",
        description="Time and memory of a training iteration and of a prediction of an image of 704 × 520, with\n"
        "random weights, for each configuration in processes of its own. On a GPU where there is one.",
        **EXPLAINED,
    )
    models.add_argument("--config-file", type=Path, nargs="+", required=True, metavar="FILE", help="configurations")
    models.add_argument(
        "--repeats", type=count, default=3, metavar="N", help="after a first one (default: %(default)s)"
    )
    models.add_argument("--threads", type=count, default=1, metavar="N", help="of PyTorch (default: 1)")
    models.add_settings("configuration options, for all")

    mosaic = commands.add_parser(
        "mosaic",
        parents=[figures],
        help="images far larger than the network's window",
        description="Tiled TIFFs full of drawn discs, segmented window by window: whether each is found once, also on\n"
        "the seams, in how much time and memory. A threshold takes the network's place, so that the truth is exact.",
        **EXPLAINED,
    )
    mosaic.add_argument(
        "--sides",
        type=at_least(100),
        nargs="+",
        default=[1000, 3000, 10000],
        metavar="PX",
        help="(default: 1000 3000 10000)",
    )
    mosaic.add_argument("--seed", type=seed, default=0, metavar="N", help="of the discs (default: %(default)s)")

    corrections = commands.add_parser(
        "corrections",
        help="what each corrected image gains",
        description="A user's loop, with the truth as the user: images are corrected, the model is trained on them\n"
        "and scored on others, and the next images are those that it is least sure of, or random ones.",
        **EXPLAINED,
    )
    corrections.add_argument("--json", type=Path, nargs="+", required=True, metavar="FILE", help="annotated images")
    corrections.add_argument("--folder", type=Path, required=True, metavar="DIR", help="new, for projects and figures")
    corrections.add_argument("--held-out", type=count, default=12, metavar="N", help="images to score on (default: 12)")
    corrections.add_argument(
        "--steps", type=count, nargs="+", default=[1, 2, 4, 8], metavar="N", help="corrected images (default: 1 2 4 8)"
    )
    corrections.add_argument("--orders", nargs="+", choices=("unsure", "random"), help="(default: both)")
    corrections.add_argument("--model", default="cells", metavar="M", help="to begin with (default: cells)")
    corrections.add_argument("--iterations", type=count, metavar="N", help="of each training (default: as train)")
    corrections.add_argument("--seed", type=seed, default=0, metavar="N", help="of all draws (default: 0)")

    args = parser.parse_args(argv)
    command = commands.choices[args.command]
    if args.command == "predict" and args.size and args.detections:
        command.error("--size does not go with --detections")
    if args.command == "data" and args.images and not args.csv:
        command.error("--images only goes with --csv")
    return args
