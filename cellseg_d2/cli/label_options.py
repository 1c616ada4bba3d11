"""Options that say what the numbers of label images mean, for the commands that read such."""

from __future__ import annotations

import argparse


def add_label_rules(group: argparse._ArgumentGroup) -> None:
    """The options that :func:`components` reads, and ``--background``."""
    group.add_argument(
        "--background", type=int, metavar="N", help="number of the background if it is not 0, such as ilastik's 2"
    )
    pieces = group.add_mutually_exclusive_group()
    pieces.add_argument(
        "--split-components",
        action="store_true",
        help="each piece of one number is a cell: for binary masks, in which touching cells become one",
    )
    pieces.add_argument(
        "--keep-components", action="store_true", help="all pieces of a number are one cell, whatever their number"
    )


def components(args: argparse.Namespace) -> str:
    """What pieces of one number are, see :class:`cellseg_d2.datasets.label_images.LabelRules`."""
    return "split" if args.split_components else "keep" if args.keep_components else "check"
