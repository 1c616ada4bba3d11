#!/usr/bin/env python
"""Score predictions against the truth: the competition's metric, and COCO's or LIVECell's AP."""

from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import whole
from cellseg_d2.cli.scored_options import add_cell_options, add_file_options, add_image_options, read_scored


def parse_args(argv=None):
    parser = make_parser(
        "evaluate",
        "Score predictions with the competition's metric: the mean over IoU thresholds 0.50 ... 0.95 of\n"
        "TP / (TP + FP + FN), averaged over the images. Images are matched by id; in COCO files that is the stem of\n"
        "file_name.",
        "  cellseg-d2 evaluate --predictions submission.csv --ground-truth train.csv\n"
        "  cellseg-d2 evaluate --predictions submission.csv --ground-truth train.csv \\\n"
        "      --only-predicted --json out.json\n"
        "  cellseg-d2 evaluate --predictions coco_results.json --ground-truth instances_val.json \\\n"
        "      --score-threshold 0.6 --coco-protocol livecell\n"
        "  cellseg-d2 evaluate --predictions results/ --ground-truth qupath/ --images images/  # GeoJSON",
    )
    files = parser.add_argument_group("files")
    add_file_options(files, "for the sizes that G does not contain, as GeoJSON and ROIs do not")
    files.add_argument("--json", type=Path, metavar="OUT", help="also write the scores to this JSON file")
    add_image_options(parser)
    add_cell_options(parser.add_argument_group("cells"))
    output = parser.add_argument_group("output")
    output.add_argument("--worst", type=whole, default=5, metavar="N", help="show the N worst images (default: 5)")
    output.add_argument(
        "--coco-protocol",
        choices=("coco", "livecell"),
        help="also report box and mask AP of all detections, if both files are COCO",
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)

    from cellseg_d2.errors import CellSegError
    from cellseg_d2.io.atomic import check_files_writable, write_json_atomic
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.io.progress import track
    from cellseg_d2.metrics.competition import score_image, score_types, summarize

    check_outputs([args.json], [args.predictions, args.ground_truth, args.ids])
    check_files_writable([args.json])
    truth, predictions, names = read_scored(args)
    if args.coco_protocol and (truth.coco is None or predictions.results is None):
        raise CellSegError(
            "--coco-protocol needs COCO results and a COCO ground truth, which cellseg-d2 convert-to-coco makes"
        )
    scores = {
        name: score_image(predictions.masks.get(name, []), truth.images[name].masks) for name in track(names, "scoring")
    }
    types = {}
    if truth.is_mixed and predictions.types is not None:
        for name in names:
            true = truth.images[name]
            types[name] = score_types(
                predictions.masks.get(name, []), predictions.types.get(name, []), true.masks, true.types
            )
    elif truth.is_mixed:
        print("note: images hold several types of cells, which these predictions do not name: all are compared alike")
    summary = summarize(scores, truth.cell_types, types)
    report = summary.to_dict()
    said = summary.table(args.worst)
    if args.coco_protocol:
        report[args.coco_protocol], table = average_precision(args.coco_protocol, truth, predictions, names)
        said += f"\n\n{table}"
    print(said)
    if args.json:
        write_json_atomic(args.json, report, indent=1)


def average_precision(protocol, truth, predictions, names):
    """AP and AR for JSON, None where nothing is defined; and as a table."""
    from tabulate import tabulate

    from cellseg_d2.metrics.average_precision import evaluate_coco

    chosen = set(names)
    numbers = [number for number, name in truth.names.items() if name in chosen]
    scores = evaluate_coco(truth.coco, predictions.results, protocol, image_ids=numbers)
    headers = [f"{protocol} %", *scores["segm"]]
    table = tabulate([(kind, *values.values()) for kind, values in scores.items()], headers, floatfmt=".2f")
    values = {
        kind: {name: value if value == value else None for name, value in values.items()}
        for kind, values in scores.items()
    }
    return values, table
