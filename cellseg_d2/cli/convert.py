"""Convert annotations or results between formats, without a model; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.datasets.readers import DATASET_READERS
from cellseg_d2.export.formats import FORMATS
from cellseg_d2.registry import table

EXAMPLES = """\
  cellseg-d2 convert results/labels --to geojson --output for_qupath
  cellseg-d2 convert LIVECell/livecell_coco_val.json --to labels --output labels
  cellseg-d2 convert annotated/ --to labels csv overlay --images images/ --output out  # files of labelme
  cellseg-d2 convert export.json --to coco --output coco_of_rle
"""
# What needs more than masks, and what one file has of all images.
NOT_OF_MASKS = ("detections",)
ONE_FILE = {"coco": "coco.json", "submission": "submission.csv"}
# One number a pixel: of cells that overlap one has it.
DISJOINT = ("labels", "submission")


def formats() -> dict[str, str]:
    """What can be written, with a line about each."""
    own = {name: entry.summary for name, entry in FORMATS.items() if name not in NOT_OF_MASKS}
    return {**own, "submission": "the competition's file: one row a cell, masks share no pixel"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    readers = {name: reader.summary for name, reader in DATASET_READERS.items()}
    parser = make_parser(
        "convert",
        "Convert annotated or segmented cells between formats. INPUT is known by what it holds: a file, a folder of "
        "files of one kind, or the folder that cellseg-d2 infer has written.",
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
        help="folder of the images: for pictures, grey values in tables, and sizes that INPUT does not tell",
    )
    parser.add_argument(
        "--category", default="cell", metavar="NAME", help="category of cells without one (default: %(default)s)"
    )
    parser.add_argument("--clean", action="store_true", help="drop or cut off what is wrong instead of stopping")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.datasets.annotations import open_annotations
    from cellseg_d2.datasets.readers import ReaderOptions
    from cellseg_d2.io.atomic import check_writable
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    formats_ = list(dict.fromkeys(args.to))
    places = [args.output / ONE_FILE.get(name, name) for name in formats_]
    check_outputs(places, [args.input, args.images])
    sizes = sizes_in(args.images) if args.images else None
    sources = open_annotations(args.input, ReaderOptions(images=args.images, category=args.category), sizes)
    check_writable(args.output)
    with claimed(args.output):
        convert(args, formats_, sources)
    for place in places:
        print(f"wrote {place}")


def sizes_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Height and width of the images in a folder by name."""
    from cellseg_d2.images.read import find_images, image_size

    return {path.stem: image_size(path) for path in find_images(folder)}


def convert(args: argparse.Namespace, formats_: list[str], sources: list) -> None:
    from tqdm import tqdm

    from cellseg_d2.datasets.coco_json import category_ids, encode_record, relative_root, write_coco_files
    from cellseg_d2.datasets.findings import FindingLog
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.images.pixel_size import read_pixel_size
    from cellseg_d2.images.read import read_image
    from cellseg_d2.inference.annotated import segmentation_of
    from cellseg_d2.io.atomic import atomic_set
    from cellseg_d2.masks.crop import crop_to_kaggle
    from cellseg_d2.predictions.submission import write_submission

    classes = list(dict.fromkeys(name for source in sources for name in source.categories))
    log, encoded, rows = FindingLog(args.clean), [], {}
    cells, lost, needs_disjoint = 0, 0, bool(set(DISJOINT) & set(formats_))
    with atomic_set():
        for source in sources:
            for record in tqdm(source.records(log), desc="converting", total=len(source), unit="image", disable=None):
                log.raise_open_errors(args.input, "; --clean drops or cuts off what it can")
                if record.id in rows:
                    raise CellSegError(f"{args.input} has several images called {record.id!r}; rename one")
                path = source.images.root / record.file_name if source.images is not None else None
                found = path is not None and path.is_file()
                image, size = (read_image(path), read_pixel_size(path)) if found else (None, None)
                whole = segmentation_of(record, classes, image, size)
                apart = segmentation_of(record, classes, image, size, disjoint=True) if needs_disjoint else whole
                cells += len(whole)
                lost += len(whole) - len(apart)
                for name in formats_:
                    if name not in ONE_FILE:
                        (apart if name in DISJOINT else whole).save(args.output / name, [name])
                rows[record.id] = [crop_to_kaggle(crop, record.width) for crop in apart.crops]
                encoded.append(encode_record(record, len(encoded) + 1, category_ids(classes)))
        log.raise_open_errors(args.input, "; --clean drops or cuts off what it can")
        if not encoded:
            raise CellSegError(f"{args.input} holds no image that could be converted")
        if "coco" in formats_:
            root = next((source.images.root for source in sources if source.images is not None), None)
            info = {"image_root": relative_root(root, args.output)} if args.images and root else {}
            write_coco_files({args.output / ONE_FILE["coco"]: (encoded, info)}, classes)
        if "submission" in formats_:
            write_submission(args.output / ONE_FILE["submission"], rows)
    print(f"{cells:,} cells in {len(encoded):,} images")
    for finding in log:
        if finding.kind != "missing image":
            print(f"note: {finding}" + (f" → {finding.action}" if finding.action else ""), file=sys.stderr)
    if lost:
        print(f"note: cells without a pixel of their own, which labels and submissions cannot hold: {lost}")
