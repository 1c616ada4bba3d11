"""One HTML page about a training run, about predictions, or about both; see --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import add_shapes_option, make_parser
from cellseg_d2.cli.numbers import at_least, whole
from cellseg_d2.cli.scored_options import GROUND_TRUTH, add_cell_options

EXAMPLES = """\
  cellseg-d2 report --run output/quickstart --output report.html
  cellseg-d2 report --predictions out/ --images test/ --output report.html
  cellseg-d2 report --predictions out/ --images test/ --ground-truth test.csv --output report.html
  cellseg-d2 report --run output/quickstart --predictions out/ --images test/ --ground-truth test.csv \\
      --title 'Quickstart on the test wells' --output report.html
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "report",
        "Write one HTML page that works offline and needs no other files: scores, errors, loss curves, the images\n"
        "with switchable outlines, counts and sizes of the cells, and the settings of the run. For a run alone, the\n"
        "page shows the last evaluation's predictions, with the dataset's truth and images if these still exist.",
        EXAMPLES,
    )
    files = parser.add_argument_group("content of the page (at least one of the first two)")
    files.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR of a training, also while it is running")
    files.add_argument(
        "--predictions", type=Path, metavar="P", help="what cellseg-d2 infer wrote, a submission, or COCO results"
    )
    files.add_argument("--ground-truth", type=Path, metavar="G", help=f"for scores: {GROUND_TRUTH}")
    files.add_argument("--images", nargs="+", default=[], metavar="PATH", help="files, folders or quoted globs")
    files.add_argument(
        "--dataset",
        metavar="NAME",
        help="dataset of a run that was evaluated on several (default: the first with predictions)",
    )
    files.add_argument(
        "--base-config",
        type=Path,
        metavar="FILE",
        help="list the differences of the run's configuration from this one (default: Detectron2's and the project's "
        "defaults)",
    )
    cells = parser.add_argument_group("cells")
    cells.add_argument("--only-predicted", action="store_true", help="leave out true images without predictions")
    add_cell_options(cells)
    add_shapes_option(
        cells,
        "also draw the cells on the map of a space of shapes, as cellseg-d2 shape-space train writes it",
    )
    page = parser.add_argument_group("page")
    page.add_argument("--output", type=Path, required=True, metavar="HTML", help="the file to write")
    page.add_argument("--title", default="", help="title of the page (default: the folder's name)")
    page.add_argument(
        "--max-images",
        type=whole,
        default=60,
        metavar="N",
        help="pictures of the N worst images (default: %(default)s)",
    )
    page.add_argument(
        "--image-width",
        type=at_least(50),
        default=900,
        metavar="PX",
        help="largest width of pictures (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    if args.run is None and args.predictions is None:
        parser.error("--run or --predictions is needed")
    if args.run is None and (args.dataset or args.base_config):
        parser.error("--dataset and --base-config belong to --run")
    if args.dataset and args.predictions:
        parser.error("--dataset chooses among the run's own predictions; leave it out with --predictions")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.io.atomic import check_files_writable, write_text_atomic
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.visualization.report.cells import gather_cells
    from cellseg_d2.visualization.report.config_diff import base_config, differences
    from cellseg_d2.visualization.report.page import render_report
    from cellseg_d2.visualization.report.run_folder import PARTS, evaluated_dataset, read_run

    run_files = [args.run / name for name in PARTS] if args.run else []
    given = [path for path in (args.predictions, *map(Path, args.images)) if path is not None and path.is_file()]
    check_outputs([args.output], [*run_files, *given, args.ground_truth, args.base_config, args.shapes])
    check_files_writable([args.output])
    training = read_run(args.run) if args.run else None
    predictions, truth, changed = args.predictions, args.ground_truth, None
    if training is not None:
        own = evaluated_dataset(training, args.dataset) if predictions is None else None
        if own is not None:
            predictions, truth = own.submission, truth or own.truth
        if training.config:
            changed = differences(training.config, base_config(args.base_config))
    options = {"score_threshold": args.score_threshold, "overlaps": args.overlaps}
    cells = None
    if predictions is not None:
        cells = gather_cells(predictions, truth, args.images, only_predicted=args.only_predicted, **options)
    shapes = None
    if cells is not None and args.shapes:
        from cellseg_d2.shape_space.space import ShapeSpace
        from cellseg_d2.visualization.report.shapes import gather_shapes

        shapes = gather_shapes(ShapeSpace.load(args.shapes), cells)
    page = render_report(
        training,
        cells,
        shapes,
        title=args.title,
        differences=changed,
        base_name=str(args.base_config or "Detectron2's and the project's defaults"),
        max_images=args.max_images,
        image_width=args.image_width,
    )
    write_text_atomic(args.output, page)
    for note in (*(training.notes if training else ()), *(cells.notes if cells else ())):
        print(f"note: {note}")
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
