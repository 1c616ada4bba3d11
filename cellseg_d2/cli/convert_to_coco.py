"""Check annotated images and convert them to COCO JSON; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.cli.common import add_shapes_option, command_line, make_parser
from cellseg_d2.cli.label_options import add_label_rules, components
from cellseg_d2.cli.numbers import seed
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions

if TYPE_CHECKING:
    from cellseg_d2.datasets.readers import Source


TILES = "tiles"  # the folder for what --tiles writes


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "convert_to_coco",
        "Check the annotations of cells and convert them to COCO JSON (compressed RLE, exact to the pixel). Reads "
        "label images, the annotations of COCO, labelme, CVAT, VIA, QuPath and ImageJ, the Kaggle competition's "
        "train.csv, and LIVECell. Writes instances_<part>.json and audit.json, which lists all findings. Wrong "
        "annotations are an error unless --clean is given.",
        "  cellseg-d2 convert-to-coco --csv kaggle/train.csv --images kaggle/train --output datasets/sartorius\n"
        "  cellseg-d2 convert-to-coco --csv kaggle/train.csv --images kaggle/train \\\n"
        "      --output datasets/sartorius --folds 5 --clean --drop-images 03b27b381a5f e92c56871769 eec79772cb99\n"
        "  cellseg-d2 convert-to-coco --csv kaggle/train.csv --images kaggle/train --output datasets/checked \\\n"
        "      --shapes shapes.safetensors\n"
        "  cellseg-d2 convert-to-coco --livecell LIVECell_dataset_2021 --output datasets/livecell\n"
        "  cellseg-d2 convert-to-coco --images mine/images --labels mine/labels --output datasets/mine\n"
        "  cellseg-d2 convert-to-coco --labels cellpose_folder --output datasets/mine\n"
        "  cellseg-d2 convert-to-coco --images plates --labels results/labels --recursive --output datasets/plates\n"
        "  cellseg-d2 convert-to-coco --coco export.json --images mine/images --output datasets/mine\n"
        "  cellseg-d2 convert-to-coco --labelme annotated/ --output datasets/mine\n",
    )
    group = parser.add_argument_group("source (one of these)")
    source = group.add_mutually_exclusive_group(required=True)
    for name, reader in DATASET_READERS.items():
        source.add_argument(f"--{name}", type=Path, metavar=reader.details["metavar"], help=reader.summary)
    group = parser.add_argument_group("images")
    group.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the annotated images (default: beside the annotations)"
    )
    group.add_argument(
        "--recursive",
        action="store_true",
        help="enter sub-folders of the images and, for --labels, --geojson, --rois and --labelme, of the annotations, "
        "which are in the same sub-folders as their images; equal names in different ones stay apart",
    )
    group.add_argument(
        "--livecell-images", type=Path, metavar="DIR", help="if not in the folder 'images' of --livecell"
    )
    group.add_argument(
        "--cell-types",
        nargs="+",
        metavar="NAME",
        default=[],
        help="for --csv: the types that its cell_type may name, in the order of the classes (default: the "
        "competition's, shsy5y astro cort)",
    )
    group.add_argument(
        "--allow-missing-images", action="store_true", help="also convert masks whose image has no file, with a message"
    )

    group = parser.add_argument_group("categories")
    group.add_argument(
        "--category", default="cell", metavar="NAME", help="category of cells whose source names none (default: cell)"
    )
    group.add_argument(
        "--categories",
        choices=("one", "type"),
        default="one",
        help="for --livecell: one category 'cell', or one per cell line (default: one)",
    )

    group = parser.add_argument_group("label images (for --labels)")
    group.add_argument(
        "--label-ending",
        metavar="TEXT",
        help="ending of label images after the name of their image, such as _masks (default: nothing, or any of "
        "_cp_masks _masks _mask _labels _label _seg)",
    )
    add_label_rules(group)
    group.add_argument("--only-labelled", action="store_true", help="leave out images without a label image")

    group = parser.add_argument_group("what is converted")
    group.add_argument(
        "--clean",
        action="store_true",
        help="repair or drop errors and report each: cut off masks at the image's border, merge doubled runs, fill "
        "holes, erase thin lines, keep the largest piece, drop (near-)duplicates and rows beyond repair",
    )
    group.add_argument(
        "--keep-empty",
        action="store_true",
        help="for --csv: images that no row names are fields without cells; keep them (without it they are left out)",
    )
    group.add_argument(
        "--partly-annotated",
        type=int,
        nargs="?",
        const=0,
        metavar="PIXELS",
        help="only some cells of each image are annotated: training learns nothing from the rest, and scores do not "
        "count what is found there; a ring of this many pixels around each cell counts as background (default: 0)",
    )
    group.add_argument("--drop-images", nargs="+", default=[], metavar="ID", help="leave these images out")

    group = parser.add_argument_group("plausibility of shapes")
    add_shapes_option(
        group,
        "also report cells with rare shapes, without dropping them, by a space of shapes that cellseg-d2 shape-space "
        "train has written",
    )
    group.add_argument(
        "--implausible",
        type=float,
        metavar="P",
        help="for --shapes: report cells less plausible than this; 0.5 is usual for a cell of the space (default: "
        "0.001)",
    )

    group = parser.add_argument_group("parts (for all but --livecell)")
    split = group.add_mutually_exclusive_group()
    split.add_argument(
        "--val-fraction",
        type=float,
        metavar="F",
        help="share of the images for validation, 0 for none; plate and well stay together (default: 0.2)",
    )
    split.add_argument("--folds", type=int, metavar="K", help="write K pairs of training and validation parts instead")
    group.add_argument(
        "--tiles",
        type=int,
        metavar="N",
        help="cut every image into N × N tiles, written to the folder tiles, so that a few large images can be split; "
        "the tiles of one image stay together where there are several images",
    )
    group.add_argument("--seed", type=seed, default=0, help="seed of the split (default: 0)")

    group = parser.add_argument_group("output")
    group.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to write; datasets/NAME makes the data sets NAME_train, NAME_val …",
    )
    group.add_argument("--no-progress", action="store_true", help="show no progress bar")

    args = parser.parse_args(argv)
    own = {name: getattr(args, name) for name in ("label_ending", "background")}
    own |= {name: getattr(args, name) or None for name in ("split_components", "keep_components", "only_labelled")}
    for name, value in own.items():
        if value is not None and not args.labels:
            parser.error(f"--{name.replace('_', '-')} only goes with --labels")
    if args.csv and not args.images and not args.allow_missing_images:
        parser.error("--csv needs --images (or --allow-missing-images, to convert the masks alone)")
    if args.cell_types and not args.csv:
        parser.error("--cell-types only goes with --csv")
    if len(set(args.cell_types)) < len(args.cell_types):
        parser.error(f"--cell-types names one twice: {' '.join(args.cell_types)}")
    if args.keep_empty and not (args.csv and args.images):
        parser.error("--keep-empty only goes with --csv and --images")
    if args.livecell and args.images:
        parser.error("--images does not go with --livecell; use --livecell-images")
    if args.livecell_images and not args.livecell:
        parser.error("--livecell-images only goes with --livecell")
    if args.livecell and (args.val_fraction is not None or args.folds):
        parser.error("LIVECell's own train, val and test parts are kept: leave out --val-fraction and --folds")
    if args.val_fraction is not None and not 0 <= args.val_fraction < 1:
        parser.error(f"--val-fraction {args.val_fraction} must be at least 0 and below 1")
    if args.folds is not None and args.folds < 2:
        parser.error(f"--folds {args.folds} must be at least 2")
    if args.tiles is not None and not 2 <= args.tiles <= 100:
        parser.error(f"--tiles {args.tiles} must be from 2 to 100")
    if args.implausible is not None and not args.shapes:
        parser.error("--implausible only goes with --shapes")
    if args.implausible is not None and not 0 < args.implausible < 1:
        parser.error(f"--implausible {args.implausible} must be above 0 and below 1")
    if args.partly_annotated is not None and args.partly_annotated < 0:
        parser.error(f"--partly-annotated {args.partly_annotated} must not be negative")
    return args


def open_sources(args: argparse.Namespace) -> dict[str, Source]:
    name = next(name for name in DATASET_READERS if getattr(args, name.replace("-", "_")) is not None)
    options = ReaderOptions(
        images=args.livecell_images or args.images,
        allow_missing=args.allow_missing_images,
        drop=tuple(args.drop_images),
        category=args.category,
        by_type=args.categories == "type",
        cell_types=tuple(args.cell_types),
        keep_empty=args.keep_empty,
        only_labelled=args.only_labelled,
        label_ending=args.label_ending,
        background=args.background,
        components=components(args),
        recursive=args.recursive,
    )
    sources = DATASET_READERS[name](getattr(args, name.replace("-", "_")), options)
    if args.tiles is None:
        return sources
    from cellseg_d2.datasets.tiles import TiledSource

    return {part: TiledSource(source, args.tiles, args.output / TILES) for part, source in sources.items()}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.datasets.convert import AUDIT_FILE
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    command = command_line("convert_to_coco", sys.argv[1:] if argv is None else argv)
    sources = open_sources(args)
    folds = [f"fold{k}_{side}" for k in range(args.folds or 0) for side in ("train", "val")]
    parts = dict.fromkeys(("train", "val", *folds, *sources))
    files = [AUDIT_FILE, *(f"instances_{part}.json" for part in parts)]
    read = [args.csv, args.shapes, *(source.path for source in sources.values())]
    if args.tiles is not None:
        files.append(TILES)
        read.append(args.images)
    check_outputs([args.output / name for name in files], read)
    if args.tiles is not None and args.recursive:  # the tiles are images themselves
        check_outputs([args.output / TILES], [], searched=[args.images, *(source.path for source in sources.values())])
    with claimed(args.output):
        convert(args, sources, command)


def make_audit(args: argparse.Namespace):
    from cellseg_d2.datasets.audit import IMPLAUSIBLE, Audit
    from cellseg_d2.datasets.findings import FindingLog

    audit = Audit(FindingLog(args.clean))
    if args.shapes:
        from cellseg_d2.shape_space.space import ShapeSpace

        audit.plausibilities = ShapeSpace.load(args.shapes).plausibilities
        audit.implausible = args.implausible or IMPLAUSIBLE
    return audit


def convert(args: argparse.Namespace, sources: dict, command: str) -> None:
    from cellseg_d2.datasets.audit_report import audit_tables
    from cellseg_d2.datasets.convert import AUDIT_FILE, older_files, read_dataset, split_dataset, write_dataset

    audit, progress = make_audit(args), not args.no_progress
    dataset = read_dataset(sources, args.clean, progress, audit, args.partly_annotated)
    print(audit_tables(dataset.audit))
    if args.csv and not args.images:
        print("\nnote: no --images given: the sizes are the CSV's, and the converted data cannot be trained on")
    said = ""
    if not dataset.audit.log.open_errors:
        val_fraction = 0.2 if args.val_fraction is None else args.val_fraction
        dataset, said = split_dataset(dataset, val_fraction, args.folds, args.seed)
    files = write_dataset(dataset, args.output, command)
    print(f"\n{said}\n{dataset.table()}\n")
    if dataset.mixed_images:
        print(
            f"note: images with cells of several types: {dataset.mixed_images}; a model trained on them will not have "
            f"all cells of an image take its commonest type"
        )
    for path in files:
        print(f"wrote {path}")
    print(f"wrote {args.output / AUDIT_FILE}")
    if not any(image.cells for images in dataset.parts.values() for image in images):
        print("warning: not one cell is annotated in any image, so nothing can be learnt of these", file=sys.stderr)
    for path in older_files(args.output, files):
        print(f"note: {path} is from an earlier conversion and may share images with these; remove it if unused")
