"""Convert annotations or results between formats, without a model; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg_d2.cli.common import make_parser, print_older
from cellseg_d2.cli.label_options import add_label_rules, components
from cellseg_d2.cli.picture_options import add_picture_options, picture_style
from cellseg_d2.datasets.readers import DATASET_READERS
from cellseg_d2.export.formats import FORMATS, TOGETHER, older_files
from cellseg_d2.registry import table

EXAMPLES = """\
  cellseg-d2 convert results/labels --to geojson --output for_qupath
  cellseg-d2 convert LIVECell/livecell_coco_val.json --to labels --output labels
  cellseg-d2 convert annotated/ --to labels csv overlay --images images/ --output out  # files of labelme
  cellseg-d2 convert export.json --to coco --output coco_of_rle
"""
NOT_OF_MASKS = ("detections",)  # needs more than masks


def formats() -> dict[str, str]:
    """What can be written, with a line about each."""
    own = {name: entry.summary for name, entry in FORMATS.items() if name not in NOT_OF_MASKS}
    return {**own, "submission": TOGETHER["submission"][1]}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    readers = {name: reader.summary for name, reader in DATASET_READERS.items()}
    parser = make_parser(
        "convert",
        "Convert annotated or segmented cells between formats. The format of INPUT is detected: a file, a folder of "
        "files of one kind, also in sub-folders, or the folder that cellseg-d2 infer has written.",
        EXAMPLES,
        f"what is read:\n{table(readers)}\nwhat --to can name:\n{table(formats())}",
    )
    parser.add_argument("input", type=Path, metavar="INPUT", help="annotations or results")
    parser.add_argument("--to", nargs="+", required=True, choices=list(formats()), metavar="FORMAT", help="see below")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the images, also in sub-folders: for pictures, grey values in tables, and sizes that INPUT "
        "does not contain",
    )
    parser.add_argument(
        "--category", default="cell", metavar="NAME", help="category of cells without one (default: %(default)s)"
    )
    parser.add_argument("--clean", action="store_true", help="drop or cut off wrong annotations instead of stopping")
    add_label_rules(parser.add_argument_group("label images", "What their numbers mean."))
    add_picture_options(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.datasets.annotations import open_annotations, place_of
    from cellseg_d2.datasets.readers import ReaderOptions
    from cellseg_d2.inference.annotated import ONE_FILE, convert_annotations
    from cellseg_d2.io.atomic import check_writable
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    places = {name: args.output / (TOGETHER[name][0] if name in ONE_FILE else name) for name in args.to}
    read = place_of(args.input)
    check_outputs(places.values(), [read, args.images], searched=[read])
    rules = {"background": args.background, "components": components(args)}
    sources = open_annotations(args.input, ReaderOptions(images=args.images, category=args.category, **rules))
    check_writable(args.output)
    options = {"clean": args.clean, "name_images": bool(args.images), "style": picture_style(args)}
    with claimed(args.output):
        converted = convert_annotations(args.input, sources, places, **options)
    print(f"{converted.cells:,} cells in {converted.images:,} images")
    for finding in converted.log:
        if finding.kind != "missing image":
            print(f"note: {finding}" + (f" → {finding.action}" if finding.action else ""), file=sys.stderr)
    if converted.lost:
        print(f"note: cells without a pixel of their own, which labels and submissions cannot hold: {converted.lost}")
    for place in places.values():
        print(f"wrote {place}")
    print_older(older_files(args.output, set(args.to) - set(ONE_FILE), converted.files))
