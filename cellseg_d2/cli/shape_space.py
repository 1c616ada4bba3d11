"""Learn a space of cell shapes from masks, draw a map of it, and rank annotations by plausibility."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import count, seed
from cellseg_d2.shape_space import SHIPPED

EXAMPLES = """\
  cellseg-d2 shape-space train --json datasets/sartorius/instances_train.json --output shapes.safetensors
  cellseg-d2 shape-space map --model shapes.safetensors --json datasets/sartorius/instances_val.json \\
      --output map.png --csv map.csv
  cellseg-d2 shape-space train --json datasets/sartorius/instances_train.json --latent 8 \\
      --output shapes8.safetensors
  cellseg-d2 shape-space rank --model shapes8.safetensors --json datasets/sartorius/instances_train.json \\
      --output ranked.csv --picture least_plausible.png
  cellseg-d2 shape-space weigh --exponent 0.1 --detections out/detections/*.npz --output weighed.npz
  cellseg-d2 convert-to-coco --csv train.csv --images train --output datasets/checked --shapes shapes8.safetensors
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "shape_space",
        "Learn a space of cell shapes from the masks of converted data sets, without their images: a small\n"
        "variational autoencoder, in minutes on one processor core. Each mask is turned to its long axis and scaled\n"
        "to one size, so that only its shape counts. Then draw a map of the shapes, or list implausible annotations.",
        EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    masks = argparse.ArgumentParser(add_help=False)
    masks.add_argument("--json", required=True, nargs="+", type=Path, metavar="FILE", help="COCO JSON, one or several")
    trained = argparse.ArgumentParser(add_help=False)
    trained.add_argument(
        "--model",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        help="the space that train has written (default: the space that comes with the project, of simulated cells)",
    )

    train = commands.add_parser("train", parents=[masks], help="learn a space from masks")
    train.add_argument("--output", required=True, type=Path, metavar="FILE", help="the .safetensors to write")
    train.add_argument(
        "--latent", type=int, default=2, metavar="D", help="dimensions: 2 for a map, 8 to judge (default: %(default)s)"
    )
    train.add_argument(
        "--size",
        type=int,
        default=32,
        choices=(32, 48, 64),
        help="side of the normalised masks (default: %(default)s)",
    )
    train.add_argument("--width", type=int, default=8, metavar="N", help="width of the network (default: %(default)s)")
    train.add_argument("--steps", type=count, default=3000, metavar="N", help="training steps (default: %(default)s)")
    train.add_argument(
        "--max-cells",
        type=count,
        default=50_000,
        metavar="N",
        help="largest number of cells; of more, this many are drawn (default: %(default)s)",
    )
    train.add_argument("--seed", type=seed, default=0, metavar="N", help="same seed, same space (default: %(default)s)")

    drawing = commands.add_parser(
        "map", parents=[trained, masks], help="draw the space with the cells of a data set in it"
    )
    drawing.add_argument("--output", required=True, type=Path, metavar="PNG", help="the picture")
    drawing.add_argument("--csv", type=Path, metavar="FILE", help="also write the cells' coordinates")
    drawing.add_argument("--title", default="Map of shapes", help="title of the picture (default: %(default)s)")

    rank = commands.add_parser(
        "rank", parents=[trained, masks], help="list the annotations, the least plausible shapes first"
    )
    rank.add_argument("--output", required=True, type=Path, metavar="CSV", help="the table")
    rank.add_argument("--picture", type=Path, metavar="PNG", help="also draw the first ones")
    rank.add_argument("--count", type=count, default=64, metavar="N", help="number of them (default: %(default)s)")

    weighing = commands.add_parser(
        "weigh", parents=[trained], help="multiply the scores of saved detections by the plausibility of their masks"
    )
    weighing.add_argument(
        "--detections", required=True, nargs="+", type=Path, metavar="FILE", help="as for cellseg-d2 tune-postprocess"
    )
    weighing.add_argument(
        "--exponent", required=True, type=float, metavar="E", help="exponent of the factor; 0 changes nothing"
    )
    weighing.add_argument("--output", required=True, type=Path, metavar="NPZ", help="file to write with all detections")

    args = parser.parse_args(argv)
    if args.command == "weigh" and not 0 <= args.exponent <= 10:
        weighing.error(f"--exponent {args.exponent} must be 0 to 10")
    if args.command == "train" and args.output.suffix != ".safetensors":
        train.error(f"--output {args.output} must end in .safetensors")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.io.atomic import check_files_writable
    from cellseg_d2.io.outputs import check_outputs, check_pictures

    written = [args.output, getattr(args, "csv", None), getattr(args, "picture", None)]
    given = args.detections if args.command == "weigh" else args.json
    check_outputs(written, [*given, getattr(args, "model", None)])
    check_files_writable(written)
    check_pictures([args.output if args.command == "map" else getattr(args, "picture", None)])
    {"train": train, "map": draw_map, "rank": rank, "weigh": weigh_scores}[args.command](args)


def train(args: argparse.Namespace) -> None:
    from cellseg_d2.shape_space.cells import read_cells
    from cellseg_d2.shape_space.train import Settings, train_space

    cells = read_cells(args.json)
    settings = Settings(
        latent=args.latent,
        size=args.size,
        width=args.width,
        steps=args.steps,
        max_cells=args.max_cells,
        seed=args.seed,
    )
    print(f"{len(cells):,} cells, {int(cells.cut.sum()):,} of which their image cuts and are left out")
    space = train_space(cells, settings, progress=True)
    space.save(args.output)
    print(f"wrote {args.output}: {args.output.stat().st_size / 1e6:.1f} MB, {', '.join(space.type_names)}")


def draw_map(args: argparse.Namespace) -> None:
    import pandas as pd

    from cellseg_d2.io.csv import write_csv_table
    from cellseg_d2.shape_space.cells import read_cells
    from cellseg_d2.shape_space.plane import Plane
    from cellseg_d2.shape_space.space import ShapeSpace
    from cellseg_d2.visualization.figures import save_figure
    from cellseg_d2.visualization.shape_map import shape_map

    space, cells = ShapeSpace.load(args.model), read_cells(args.json)
    placed = space.place([crop.mask for crop in cells.crops])
    plane = Plane.through(space.references.latents)
    points = plane.project(placed.latents)
    save_figure(shape_map(space, plane, points, cells.types, args.title), args.output)
    print(f"wrote {args.output}: {len(cells):,} cells")
    if args.csv:
        table = pd.DataFrame(
            {
                "image": cells.images,
                "row": cells.row_column(),
                "cell_type": cells.types,
                "x": points[:, 0],
                "y": points[:, 1],
                "length": placed.scales * (space.size - 4),
                "plausibility": space.usual.plausibility(placed),
                "cut": cells.cut,
            }
        )
        write_csv_table(args.csv, table)
        print(f"wrote {args.csv}")


def rank(args: argparse.Namespace) -> None:
    from cellseg_d2.io.csv import write_csv_table
    from cellseg_d2.shape_space.cells import read_cells
    from cellseg_d2.shape_space.ranking import agreement, rank_cells
    from cellseg_d2.shape_space.space import ShapeSpace
    from cellseg_d2.visualization.overlays import save_image
    from cellseg_d2.visualization.shape_map import rank_sheet

    space, cells = ShapeSpace.load(args.model), read_cells(args.json)
    table = rank_cells(space, cells)
    write_csv_table(args.output, table)
    print(f"{len(table):,} cells; {int(cells.cut.sum()):,} more are cut by their image's border, and not judged")
    if said := agreement(table):
        print(f"\n{said}\n")
    print(f"wrote {args.output}")
    if args.picture:
        first = table.head(args.count)
        masks = [cells.crops[i].mask for i in first.index]
        save_image(args.picture, rank_sheet(space, first, masks, "The least plausible: the mask, and the space's own"))
        print(f"wrote {args.picture}")


def weigh_scores(args: argparse.Namespace) -> None:
    from cellseg_d2.detections.saved import load_many, save_detections
    from cellseg_d2.io.progress import track
    from cellseg_d2.shape_space.space import ShapeSpace
    from cellseg_d2.shape_space.weighing import weigh

    space, raw = ShapeSpace.load(args.model), load_many(args.detections)
    images = {name: weigh(own, space, args.exponent) for name, own in track(raw.images.items(), "weighing")}
    save_detections(args.output, images, raw.class_names)
    print(f"wrote {args.output}: {len(images):,} images, {sum(map(len, images.values())):,} detections")
