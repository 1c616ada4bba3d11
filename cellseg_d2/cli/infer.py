"""Segment images with a shipped or a trained model; see --help."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from pathlib import Path

from cellseg_d2.cli.common import make_parser, print_older
from cellseg_d2.cli.numbers import count, positive
from cellseg_d2.cli.picture_options import add_picture_options, picture_style
from cellseg_d2.cli.postprocess_options import add_postprocess_options, choose_postprocess, load_segmenter
from cellseg_d2.export.formats import batch_formats
from cellseg_d2.io.file_names import file_stem
from cellseg_d2.registry import table

# Options that say which planes of an image are wanted, as of PlaneChoice.
PLANES = ("channel", "projection", "stack", "axes", "scene")
PROJECTIONS = ("max", "mean")
EXAMPLES = """\
  cellseg-d2 infer --input my_images/ --output results --save labels csv overlay
  cellseg-d2 infer --input mosaic.tif --output results --diameter 45 --save labels rois
  cellseg-d2 infer --input well.ome.tif --channel DAPI --projection max --output results --diameter-um 12
  cellseg-d2 infer --input movie.tif --stack --output results --save labels csv images  # a row a cell and frame
  cellseg-d2 infer --config-file output/quickstart/config.yaml --input output/demo/simulated/test --output out
  cellseg-d2 infer --config-file output/sartorius_R_50/config.yaml --weights model_best.pth \\
      --input 'test/*.png' --output out --score-threshold 0.3 0.5 0.6
  cellseg-d2 infer --config-file output/folds/*/config.yaml --tta --input test --output out  # an ensemble
  cellseg-d2 infer --config-file output/mine/config.yaml --tta --input datasets/mine/instances_val.json \\
      --output out --save detections  # to tune the thresholds of --tta on
  cellseg-d2 infer --input plates/ --recursive --output results --save labels images --suffix _masks
  cellseg-d2 infer --input plates/ --output results --num-gpus 4  # after a power cut: the same with --resume
"""


def suffix(text: str) -> str:
    """The end of a file's name, which leads into no other folder."""
    if text != file_stem(f"a{text}")[1:]:
        raise argparse.ArgumentTypeError(f'a suffix cannot hold / \\ : * ? " < > | nor control characters, as {text!r}')
    return text


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "infer",
        "Segment images: with the model that comes with the project, or with one or several that you trained. Writes\n"
        "what --save names to OUTPUT. Exit code 1 says that some images could not be read; the others are done.",
        EXAMPLES,
        "what --save can name (default: submission overlay):\n" + table(batch_formats()),
    )
    group = parser.add_argument_group("model")
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--model",
        default="cells",
        metavar="NAME",
        help="one that comes with the project, a folder of cellseg-d2 export-model, or without a network 'otsu' "
        "(bright cells) and 'otsu-texture' (phase contrast), to compare with (default: %(default)s)",
    )
    source.add_argument(
        "--config-file",
        nargs="+",
        metavar="FILE",
        help="instead: config.yaml of a training run; of several runs, their models are fused as an ensemble",
    )
    group.add_argument(
        "--weights",
        nargs="+",
        metavar="FILE",
        help="checkpoints, one a config file, or all for the only one (default: model_best.pth beside the config file)",
    )
    group.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: look at each image in the orientations and scales of TEST.TTA, 8 by default",
    )
    group.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    group = parser.add_argument_group("images")
    group.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="files (PNG, JPEG, BMP, TIFF, Zarr, CZI, LIF, ND2), folders, quoted globs, or the COCO JSON of a data set",
    )
    group.add_argument(
        "--recursive",
        action="store_true",
        help="enter the sub-folders of folders; where images come from several folders, results are in sub-folders of "
        "the same names",
    )
    size = group.add_mutually_exclusive_group()
    size.add_argument(
        "--diameter",
        type=positive,
        metavar="PX",
        help="of your cells in pixels (default: the shipped model looks at several sizes and merges the best with its "
        "neighbours; others take cells to be as large as those that they were trained on)",
    )
    size.add_argument("--diameter-um", type=positive, metavar="UM", help="the same in micrometres")
    group.add_argument(
        "--pixel-size", type=float, metavar="UM", help="micrometres (default: of the file's metadata, if it has them)"
    )
    group.add_argument(
        "--channel", metavar="N|NAME", help="of several channels the one in which cells are seen: from 0, or its name"
    )
    group.add_argument("--projection", choices=PROJECTIONS, help="of stacks in depth one image, the maximum or mean")
    group.add_argument(
        "--stack", action="store_true", help="take stacks plane by plane; tables have a column 'frame', from 0"
    )
    group.add_argument(
        "--axes", metavar="NAMES", help="what the axes are, such as TCYX, where a file does not tell, or is wrong"
    )
    group.add_argument("--scene", metavar="N|NAME", help="of files with several images, one: from 0, or its name")
    group.add_argument(
        "--tile",
        type=int,
        metavar="PX",
        help="side of the windows in which large images are looked at (default: TEST.TILE, 1088 of the shipped model, "
        "divided by the scale at which the image is looked at)",
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=128,
        metavar="PX",
        help="of these windows, larger than most cells (default: 128, without --tile divided by the scale, too)",
    )
    group = parser.add_argument_group("results")
    group.add_argument("--output", required=True, metavar="DIR", help="where they go")
    group.add_argument(
        "--save", nargs="+", default=["submission", "overlay"], metavar="FORMAT", help="see the end of this text"
    )
    group.add_argument(
        "--suffix",
        metavar="TEXT",
        type=suffix,
        help="what names of files end in instead of the format's own, such as _labels: with --suffix _masks the label "
        "image of a.png is a_masks.tif, with --suffix '' a.tif",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="do only what an earlier call with the same options left to do: it was killed, or images failed",
    )
    add_picture_options(parser)
    add_postprocess_options(parser)
    group = parser.add_argument_group(
        "processes", "Images are shared out; the files are those of one process. Machines must see the same folders."
    )
    group.add_argument(
        "--num-gpus",
        type=count,
        default=1,
        metavar="N",
        help="of each machine, a process for each (default: 1); without a GPU, N processes on the CPU, among which "
        "OMP_NUM_THREADS in the environment shares its cores",
    )
    group.add_argument("--num-machines", type=count, default=1, metavar="N", help="(default: 1)")
    group.add_argument("--machine-rank", type=int, default=0, metavar="R", help="which of them this is, from 0")
    group.add_argument(
        "--dist-url", default="auto", metavar="URL", help="where several machines meet: tcp://HOST:PORT of the first"
    )
    parser.add_settings()
    return parser.parse_args(argv)


def choose_segmenter(args: argparse.Namespace):
    """The model or models that the arguments name, and in words what they are."""
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.inference.classical import FEATURES, ClassicalSegmenter
    from cellseg_d2.weights.model_folder import CONFIG, find_model

    if not args.config_file and args.model in FEATURES:
        if ignored := [*args.opts[:1], *(["--weights"] if args.weights else []), *(["--tta"] if args.tta else [])]:
            raise CellSegError(f"--model {args.model} has no network and no configuration: leave {ignored[0]} out")
        segmenter = ClassicalSegmenter(args.model)
        segmenter.params = choose_postprocess(args, segmenter.params)
        return segmenter, f"{args.model} and a watershed, without a network"
    segmenter, cfg, source = load_segmenter(args, args.config_file or [find_model(args.model) / CONFIG])
    name = ", ".join(map(str, args.config_file)) if args.config_file else f"model {args.model}"
    return segmenter, f"{name} on {cfg.MODEL.DEVICE}, post-processing of {source}"


def segment(args: argparse.Namespace, folders: dict[Path, str]) -> int:
    """What each process does; returns the exit code."""
    from detectron2.utils import comm

    from cellseg_d2.images.pixel_size import PixelSize
    from cellseg_d2.inference.batch import output_places, segment_files
    from cellseg_d2.io.outputs import check_outputs

    paths = list(folders)
    read = [*paths, *(args.config_file or []), *(args.weights or []), args.postprocess]
    check_outputs(output_places(args.output, args.save), read)
    segmenter, what = choose_segmenter(args)
    if comm.is_main_process():
        processes = f" in {comm.get_world_size()} processes" if comm.get_world_size() > 1 else ""
        print(f"{len(paths)} images{processes}, {what}", flush=True)
    pixel_size = None if args.pixel_size is None else PixelSize(args.pixel_size, args.pixel_size)
    names = ("diameter", "diameter_um", "tile", "overlap", *PLANES)
    options = {name: getattr(args, name) for name in names} | {"pixel_size": pixel_size}
    options |= {"resume": args.resume, "folders": folders, "ending": args.suffix, "progress": True}
    options["style"] = picture_style(args)
    result = segment_files(segmenter, paths, args.output, args.save, **options)
    if comm.is_main_process():
        report(result, segmenter.class_names, args)
    return 1 if result.failed else 0


def report(result, class_names: list[str], args: argparse.Namespace) -> None:
    """Print what was found and written."""
    from tabulate import tabulate

    if args.resume:
        print("there was nothing to resume" if result.resumed is None else f"{result.resumed} images were done before")
    rows = [[name, *counts.values(), sum(counts.values())] for name, counts in result.counts.items()]
    headers = ["image", *(class_names if len(class_names) > 1 else []), "cells"]
    print(tabulate([[row[0], *row[-len(headers) + 1 :]] for row in rows[:20]], headers=headers))
    if len(rows) > 20:
        print(f"… and {len(rows) - 20} more images")
    print(f"\n{sum(row[-1] for row in rows):,} cells in {len(rows)} images")
    for path in result.written:
        print(f"written: {path}")
    print_older(result.older)
    if result.failed:
        print(f"{len(result.failed)} images could not be segmented (named above); --resume tries only these again")


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from cellseg_d2.datasets.find import find_inputs
    from cellseg_d2.images.axes import PlaneChoice
    from cellseg_d2.images.pixel_size import PixelSize
    from cellseg_d2.tiling.grid import check_windows

    # Once for all images, rather than for each.
    check_windows(args.tile, args.overlap)
    PlaneChoice(**{name: getattr(args, name) for name in PLANES})
    if args.pixel_size is not None:
        PixelSize(args.pixel_size, args.pixel_size)
    folders = find_inputs(args.input, args.recursive)

    from cellseg_d2.engine.launcher import MACHINES, launch_work

    machines = {name: getattr(args, name) for name in MACHINES}
    try:
        # One process may have done its share long before the others.
        return launch_work(segment, (args, folders), timeout=timedelta(days=7), **machines)
    except KeyboardInterrupt:
        print("the images done so far are kept: give the same call again with --resume to go on", file=sys.stderr)
        raise
