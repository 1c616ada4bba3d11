"""What commands that compare predictions with a ground truth have in common: their options, and reading by these."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cellseg_d2.cli.numbers import not_negative

if TYPE_CHECKING:
    from cellseg_d2.predictions.truth import Predictions, Truth


GROUND_TRUTH = (
    "train.csv (also .gz), COCO ground truth (.json), or a folder of label images, ROIs, GeoJSON or other annotations"
)
PREDICTIONS = (
    "submission (.csv, .csv.gz), COCO results (.json), or what cellseg-d2 infer wrote: its folder, label images, ROIs, "
    "GeoJSON, COCO JSON"
)


def add_file_options(group: argparse._ArgumentGroup, use: str) -> None:
    """Add ``--predictions`` and ``--ground-truth``, both required, and ``--images``, of which ``use`` says what for."""
    group.add_argument(
        "--predictions",
        type=Path,
        required=True,
        metavar="P",
        help=PREDICTIONS,
    )
    group.add_argument(
        "--ground-truth",
        type=Path,
        required=True,
        metavar="G",
        help=GROUND_TRUTH,
    )
    group.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help=f"files, folders or quoted globs of the images, {use}",
    )


def add_image_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose images."""
    group = parser.add_argument_group("images (default: all of G; one without a row in P counts as empty)")
    group.add_argument("--only-predicted", action="store_true", help="only images that have rows in P")
    group.add_argument("--ids", type=Path, metavar="FILE", help="only these: one id a line, or a CSV with ids first")
    group.add_argument("--exclude", nargs="+", default=[], metavar="ID", help="leave these images out")


def add_cell_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that say which cells of the predictions count."""
    group.add_argument(
        "--overlaps",
        choices=("resolve", "keep"),
        help="whether pixels in several masks are first given to the best one, by score or, in a submission, by order "
        "(default: resolve for COCO results, keep for a submission, which is scored as it stands)",
    )
    add_score_threshold(group)


def add_score_threshold(group: argparse._ActionsContainer) -> None:
    """Add ``--score-threshold``."""
    group.add_argument(
        "--score-threshold",
        type=not_negative,
        metavar="S",
        help="predictions need this score, where they have one, as those of COCO, GeoJSON and ROIs may (default: 0.5 "
        "for COCO results; of other files all cells count)",
    )


def read_scored(args: argparse.Namespace) -> tuple[Truth, Predictions, list[str]]:
    """Truth, predictions and the names of the images to compare, by the options above; prints warnings.

    Raises:
        CellSegError: a file cannot be read, or no image is left.
    """
    from cellseg_d2.datasets.find import ImageSizes, find_named
    from cellseg_d2.predictions.truth import choose_images, read_ids, read_predictions, read_truth

    truth = read_truth(args.ground_truth, ImageSizes(find_named(args.images)))
    predictions = read_predictions(args.predictions, truth, args.score_threshold, args.overlaps)
    for warning in truth.warnings + predictions.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    ids = read_ids(args.ids) if args.ids else None
    return truth, predictions, choose_images(truth, predictions.masks, ids, args.exclude, args.only_predicted)
