"""Which cells a model misses, merges, splits, outlines badly or makes up; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import not_negative, whole
from cellseg_d2.cli.scored_options import add_cell_options, add_file_options, add_image_options, read_scored

PLOTS = (
    *("errors_by_type.png", "errors_by_size.png", "errors_by_crowding.png", "score_if_corrected.png"),
    "score_by_type.png",
)
PICTURES = "pictures"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "analyze_errors",
        "Analyse the errors of predictions: cells that are missed, merged (one prediction covers several), split\n"
        "(one cell covered by several predictions), shifted (0.1 < IoU ≤ 0.5) or spurious, by cell type, size and\n"
        "crowding, where found cells lie beside their annotations (TEST.POSTPROCESS.MASK_OFFSET, with the other sign,\n"
        "takes that back), and the score that each correction would give. Writes errors.json (with the definitions),\n"
        "tables.txt, plots, and a picture of every image, the worst first.",
        "  cellseg-d2 analyze-errors --predictions submission.csv --ground-truth train.csv \\\n"
        "      --images train/ --output errors\n"
        "  cellseg-d2 analyze-errors --predictions output/cv/oof.csv --ground-truth train.csv \\\n"
        "      --only-predicted --images train/ --output errors --pictures 10\n"
        "  cellseg-d2 analyze-errors --predictions coco_results.json --ground-truth instances_val.json \\\n"
        "      --score-threshold 0.6 --output errors",
    )
    files = parser.add_argument_group("files")
    add_file_options(files, "for the pictures, and for the sizes that G does not contain")
    files.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    add_image_options(parser)
    cells = parser.add_argument_group("cells")
    add_cell_options(cells)
    cells.add_argument(
        "--neighbour-distance",
        type=not_negative,
        default=10,
        metavar="D",
        help="cells at most D pixels apart are neighbours (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--pictures", type=whole, metavar="N", help="draw only the N worst images (default: all; 2 MB each)"
    )
    output.add_argument(
        "--worst",
        type=whole,
        default=10,
        metavar="N",
        help="number of images in the table (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.datasets.find import find_named
    from cellseg_d2.io.atomic import atomic_set, write_json_atomic, write_text_atomic
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.io.progress import track
    from cellseg_d2.metrics.error_report import ErrorReport
    from cellseg_d2.metrics.error_types import DEFINITIONS, find_errors

    paths = find_named(args.images)
    written = [args.output / name for name in ("errors.json", "tables.txt", *PLOTS, PICTURES)]
    check_outputs(written, [args.predictions, args.ground_truth, args.ids, *paths.values()])
    truth, predictions, names = read_scored(args)
    masks = {name: predictions.masks.get(name, []) for name in names}
    errors = {
        name: find_errors(masks[name], truth.images[name].masks, args.neighbour_distance)
        for name in track(names, "comparing")
    }
    report = ErrorReport(errors, truth.cell_types)

    tables = report.tables(args.worst)
    sources = {"predictions": str(args.predictions), "ground_truth": str(args.ground_truth)}
    settings = {**sources, "neighbour_distance": args.neighbour_distance, "definitions": DEFINITIONS}
    with claimed(args.output):
        with atomic_set():
            write_json_atomic(args.output / "errors.json", {**settings, **report.to_dict()}, indent=1)
            write_text_atomic(args.output / "tables.txt", tables + "\n")
            draw_plots(args, report)
        pictures = draw_pictures(args, report, truth, masks, paths) if paths else 0
    print(tables)
    print(f"\nwrote errors.json, tables.txt, the plots and {pictures} pictures to {args.output}")


def draw_plots(args, report) -> None:
    from cellseg_d2.visualization.curves import plot_score_by_type
    from cellseg_d2.visualization.error_plots import plot_corrections, plot_groups, plot_kinds

    by_type, by_size, by_crowding, corrected, scores = (args.output / name for name in PLOTS)
    plot_kinds(report, by_type)
    plot_groups(report, "size", by_size)
    plot_groups(report, "crowding", by_crowding, distance=args.neighbour_distance)
    plot_corrections(report, corrected)
    if report.score.per_cell_type:
        types = {kind: list(score.per_image.values()) for kind, score in report.score.by_type.items()}
        plot_score_by_type(types, scores)


def draw_pictures(args, report, truth, masks, paths) -> int:
    """Draw the worst images, their rank in the file's name; returns how many."""
    from cellseg_d2.images.read import read_image
    from cellseg_d2.io.file_names import file_stem
    from cellseg_d2.io.progress import track
    from cellseg_d2.masks.crop import coco_to_crop
    from cellseg_d2.visualization.error_plots import error_panel
    from cellseg_d2.visualization.overlays import save_image

    ranks = {name: rank for rank, name in enumerate(report.worst_first, start=1)}
    chosen = [name for name in ranks if name in paths]
    if len(chosen) < len(ranks):
        missing = len(ranks) - len(chosen)
        print(f"warning: images without a file in --images, which are not drawn: {missing}", file=sys.stderr)
    folder = args.output / PICTURES
    stems = {file_stem(name) for name in truth.images}
    for old in folder.glob("[0-9]*_*.png"):  # of an earlier analysis, in which the image had another rank
        if old.stem.partition("_")[2] in stems:
            old.unlink()
    chosen = chosen[: args.pictures]
    for name in track(chosen, "drawing"):
        cells = [[coco_to_crop(rle) for rle in side] for side in (truth.images[name].masks, masks[name])]
        kind = f" ({report.cell_types[name]})" if name in report.cell_types else ""
        title = f"{name}{kind}: {ranks[name]} of {len(ranks)}, worst first"
        panel = error_panel(read_image(paths[name]), *cells, report.images[name], title)
        save_image(folder / f"{ranks[name]:0{len(str(len(ranks)))}}_{file_stem(name)}.png", panel)
    return len(chosen)
