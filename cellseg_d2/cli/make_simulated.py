"""Write a simulated data set of cells in the layout of the Kaggle competition; see --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cellseg_d2.cli.common import add_shapes_option, command_line, make_parser
from cellseg_d2.cli.numbers import seed

NEURONS = ("shsy5y", "astro", "cort")
CULTURES = ("epithelium", "colony", "fibroblast", "spread", "stellate", "round")
KINDS = {"neurons": NEURONS, "cultures": CULTURES, "mixed": (*NEURONS, *CULTURES)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "make_simulated",
        "Simulate images of three neuronal cell types, or of cultures from single cells to sheets without gaps as "
        "several kinds of microscopes show them, with masks, in exactly the layout of the Kaggle competition: "
        "train.csv, train/, test/ and sample_submission.csv; test.csv holds the truth of the test images.",
        "  cellseg-d2 make-simulated --output datasets/simulated\n"
        "  cellseg-d2 make-simulated --output datasets/small --images-per-type 4 --size 352 260\n"
        "  cellseg-d2 make-simulated --output datasets/cort --images-per-type 0 0 200 --density 1.5 --workers 8\n"
        "  cellseg-d2 make-simulated --output datasets/debris --dead-cells 12 --images-per-well 1\n"
        "  cellseg-d2 make-simulated --output datasets/cultures --kind cultures --images-per-well 1\n"
        "  cellseg-d2 make-simulated --output datasets/like_mine --shapes shapes.safetensors\n"
        "  cellseg-d2 make-simulated --output datasets/dirty --kind cultures --density 0 --images-per-type 8\n",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an older simulated data set in DIR")
    group = parser.add_argument_group("images")
    group.add_argument(
        "--kind",
        choices=KINDS,
        default="neurons",
        help=f"neurons: {', '.join(NEURONS)}, as in the competition; cultures: {', '.join(CULTURES)}; mixed: all "
        "(default: neurons)",
    )
    add_shapes_option(
        group,
        "simulate cultures of the types of a space of shapes instead, with outlines drawn from it, as cellseg-d2 "
        "shape-space train writes it for a data set",
    )
    many = "one number for all types of the kind, or one for each"
    group.add_argument(
        "--images-per-type",
        type=int,
        nargs="+",
        default=[20],
        metavar="N",
        help=f"training images: {many} (default: 20)",
    )
    group.add_argument(
        "--test-per-type", type=int, nargs="+", default=[4], metavar="N", help=f"test images: {many} (default: 4)"
    )
    group.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(704, 520),
        metavar=("WIDTH", "HEIGHT"),
        help="in pixels, 64 to 10000 each way (default: 704 520)",
    )
    group.add_argument(
        "--density",
        type=float,
        default=1.0,
        metavar="F",
        help="number of cells relative to what is usual; 0 gives fields without cells (default: 1.0)",
    )
    group.add_argument(
        "--dead-cells",
        type=float,
        default=0.0,
        metavar="N",
        help="mean number of dead cells that float in an image of neurons, beside the usual debris; they are not "
        "annotated, so that a model learns to leave them out (default: 0)",
    )
    group.add_argument(
        "--images-per-well",
        type=int,
        default=3,
        metavar="N",
        help="number of images that share plate, well and appearance (default: 3)",
    )
    group = parser.add_argument_group("running")
    group.add_argument("--seed", type=seed, default=0, metavar="S", help="same seed, same files (default: 0)")
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="number of processes; the files do not depend on it (default: 1)",
    )
    args = parser.parse_args(argv)
    if args.shapes is None:
        set_counts(args, KINDS[args.kind], parser.error)
    return args


def set_counts(args: argparse.Namespace, types: Sequence[str], refuse: Callable[[str], NoReturn]) -> None:
    """Numbers of images by type, from one number for all or one for each."""
    for name in ("images_per_type", "test_per_type"):
        numbers = getattr(args, name)
        if len(numbers) not in (1, len(types)):
            refuse(f"--{name.replace('_', '-')} takes one number or {len(types)}, not {len(numbers)}")
        setattr(args, name, dict(zip(types, numbers * len(types) if len(numbers) == 1 else numbers, strict=True)))


def read_shapes(args: argparse.Namespace):
    """The space of shapes that was asked for; None without one."""
    if args.shapes is None:
        return None
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.shape_space.space import ShapeSpace

    def refuse(message: str) -> NoReturn:
        raise CellSegError(message)

    space = ShapeSpace.load(args.shapes)
    set_counts(args, space.type_names, refuse)
    return space


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.simulation import write_dataset

    check_outputs([args.output], [args.shapes])
    shapes = read_shapes(args)
    width, height = args.size
    summary = write_dataset(
        args.output,
        kind=args.kind,
        shapes=shapes,
        images_per_type=args.images_per_type,
        test_per_type=args.test_per_type,
        seed=args.seed,
        height=height,
        width=width,
        density=args.density,
        dead_cells=args.dead_cells,
        images_per_well=args.images_per_well,
        workers=args.workers,
        overwrite=args.overwrite,
        command=command_line("make_simulated", sys.argv[1:] if argv is None else argv),
    )
    for split, numbers in summary.items():
        print(f"{split + ':':6} {numbers['images']:5} images {numbers['cells']:7} cells")
    print(f"written to {args.output}")
