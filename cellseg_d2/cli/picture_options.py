"""Options of pictures, for the commands that draw segmented cells."""

from __future__ import annotations

import argparse


def add_picture_options(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`picture_style` reads."""
    group = parser.add_argument_group("pictures", "Of the formats overlay, svg and pdf.")
    group.add_argument(
        "--colors",
        choices=("types", "cells"),
        default="types",
        help="one a type of cells, or one a cell, other than its neighbours' (default: %(default)s)",
    )
    group.add_argument("--numbers", action="store_true", help="write each cell's number, its label in cells.csv")
    group.add_argument(
        "--scale-bar",
        action="store_true",
        help="draw one; needs the size of a pixel, from the file or the command line",
    )
    group.add_argument("--no-header", action="store_true", help="leave out the strip with name and counts above a PNG")


def picture_style(args: argparse.Namespace):
    """The :class:`cellseg_d2.visualization.style.Style` that the options say."""
    from cellseg_d2.visualization.style import Style

    return Style(args.colors == "cells", args.numbers, args.scale_bar, not args.no_header)
