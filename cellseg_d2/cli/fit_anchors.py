"""How well anchors cover the cells of a data set, and anchors fitted to it; see --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import count, positive, seed

THRESHOLDS = (0.5, 0.6, 0.7)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "fit_anchors",
        "Measure how well a configuration's anchors cover the cells of a COCO JSON: the share of cells of each type "
        "whose best anchor, of all positions on all levels, has an IoU below 0.5, 0.6 and 0.7. The RPN learns from "
        "anchors of 0.7 and more. Then fit sizes and ratios to the cells and print them as YAML.",
        "  cellseg-d2 fit-anchors --json datasets/sartorius/instances_train.json\n"
        "  cellseg-d2 fit-anchors --json datasets/mine/instances_train.json --short-side 640 800 1024\n"
        "  cellseg-d2 fit-anchors --json datasets/sartorius/instances_train.json --zoom 1.25 1.6 2 \\\n"
        "      --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml --histogram anchors.png\n",
    )
    group = parser.add_argument_group("input")
    group.add_argument("--json", type=Path, required=True, metavar="FILE", help="COCO JSON with boxes")
    group.add_argument(
        "--config-file",
        type=Path,
        metavar="FILE",
        help="the configuration whose anchors are measured (default: those of Detectron2's Mask R-CNN configurations)",
    )
    group = parser.add_argument_group("size of the network's input; several are taken together")
    sizes = group.add_mutually_exclusive_group()
    sizes.add_argument(
        "--short-side",
        type=count,
        nargs="+",
        metavar="N",
        help="images are resized to this short side (default: as the configuration predicts, else 800)",
    )
    sizes.add_argument(
        "--zoom", type=positive, nargs="+", metavar="Z", help="images are enlarged by this factor instead"
    )
    group.add_argument(
        "--max-size", type=count, metavar="N", help="no side gets longer (default: INPUT.MAX_SIZE_TEST, else 1333)"
    )
    group = parser.add_argument_group("fitting")
    group.add_argument(
        "--sizes-per-level",
        type=count,
        default=2,
        metavar="N",
        help="number of sizes at each level (default: 2)",
    )
    group.add_argument("--ratios", type=int, default=5, metavar="N", help="number of ratios, odd (default: 5)")
    group.add_argument(
        "--cells-per-type",
        type=count,
        default=1500,
        metavar="N",
        help="number of cells drawn for the fit at each size (default: 1500)",
    )
    group.add_argument("--seed", type=seed, default=0, help="seed of that draw (default: 0)")
    group.add_argument("--no-fit", action="store_true", help="only measure")
    group = parser.add_argument_group("output")
    group.add_argument("--histogram", type=Path, metavar="PNG", help="draw the distribution of the best IoU")

    args = parser.parse_args(argv)
    if args.ratios < 1 or args.ratios % 2 == 0:
        parser.error(f"--ratios {args.ratios} must be odd")
    return args


def configured(args: argparse.Namespace):
    """The anchors to measure; of the network's input factors that images are enlarged by, short sides, longest side."""
    from cellseg_d2.modeling.anchors import Anchors

    if args.config_file is None:
        # As Detectron2's Base-RCNN-FPN.yaml has them.
        return Anchors.from_lists([[32], [64], [128], [256], [512]], [[0.5, 1.0, 2.0]]), [], [800], 1333
    from cellseg_d2.config import load_config

    cfg = load_config(args.config_file)
    generator = cfg.MODEL.ANCHOR_GENERATOR
    strides = [2 ** int(name[1:]) for name in cfg.MODEL.RPN.IN_FEATURES]
    anchors = Anchors.from_lists(generator.SIZES, generator.ASPECT_RATIOS, strides, generator.OFFSET)
    zooms = [cfg.INPUT.ZOOM_TEST] if cfg.INPUT.ZOOM_TEST else []
    return anchors, zooms, [cfg.INPUT.MIN_SIZE_TEST], cfg.INPUT.MAX_SIZE_TEST


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from tabulate import tabulate

    from cellseg_d2.io.atomic import check_files_writable
    from cellseg_d2.io.outputs import check_outputs, check_pictures
    from cellseg_d2.modeling.anchors import best_iou, fit_anchors, join, read_boxes, shares_below

    check_outputs([args.histogram], [args.json, args.config_file])
    check_files_writable([args.histogram])
    check_pictures([args.histogram])
    anchors, zooms, short_sides, max_size = configured(args)
    cells = read_boxes(args.json)
    max_size = args.max_size or max_size
    zooms = args.zoom or ([] if args.short_side else zooms)
    if zooms:
        seen = [cells.zoomed(factor) for factor in zooms]
        print(f"{len(cells):,} cells, enlarged {', '.join(f'{z:g}' for z in zooms)} times")
    else:
        short_sides = args.short_side or short_sides
        seen = [cells.resized(side, max_size) for side in short_sides]
        print(f"{len(cells):,} cells, short side {', '.join(map(str, short_sides))} px, long at most {max_size} px")
    sets = {"measured": anchors}
    if not args.no_fit:
        sets["fitted"] = fit_anchors(
            join([cells.sample(args.cells_per_type, args.seed) for cells in seen]),
            sizes_per_level=args.sizes_per_level,
            ratios=args.ratios,
            strides=anchors.strides,
            offset=anchors.offset,
        )
    seen = join(seen)
    ious = {name: best_iou(seen, own) for name, own in sets.items()}
    if args.histogram:
        from cellseg_d2.visualization.anchor_histogram import save_iou_histogram

        save_iou_histogram(args.histogram, ious, seen.types)
    rows = []
    for name, iou in ious.items():
        for cell_type, shares in shares_below(iou, seen.types, THRESHOLDS).items():
            mean = iou[seen.types == cell_type].mean()
            rows.append((cell_type, name, *(f"{100 * share:.1f} %" for share in shares), f"{mean:.3f}"))
    rows.sort(key=lambda row: row[0])
    headers = ["cell type", "anchors", *(f"IoU < {t:g}" for t in THRESHOLDS), "mean IoU"]
    print(tabulate(rows, headers, disable_numparse=True, colalign=("left", "left", *["right"] * 4)))
    for name, own in sets.items():
        print(f"\n# {name}\n{own.yaml()}")
    if args.histogram:
        print(f"\nwrote {args.histogram}")
