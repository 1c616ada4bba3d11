"""Search the post-processing with the best competition score on saved detections."""

from __future__ import annotations

import argparse
import sys

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import seed

EXAMPLES = """\
  cellseg-d2 train-net --config-file output/mine/config.yaml --eval-only \\
      MODEL.WEIGHTS output/mine/model_best.pth TEST.SAVE_DETECTIONS True
  cellseg-d2 tune-postprocess --detections output/mine/inference/sartorius_val/detections.npz \\
      --ground-truth datasets/sartorius/instances_val.json --output output/mine/tuned.yaml
  cellseg-d2 tune-postprocess --detections output/folds/*/inference/*/detections.npz --ground-truth train.csv \\
      --exclude 1e55de6c2a34 --output tuned.yaml
  cellseg-d2 tune-postprocess --detections detections.npz --ground-truth train.csv --output tuned.yaml \\
      --parameters overlap_policy
  cellseg-d2 infer --config-file output/mine/config.yaml --tta --input datasets/mine/instances_val.json \\
      --output out --save detections
  cellseg-d2 tune-postprocess --detections out/detections/*.npz --ground-truth datasets/mine/instances_val.json \\
      --output tta.yaml
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "tune_postprocess",
        "Search the post-processing (score and mask thresholds, smallest and doubtful areas of each cell type, how\n"
        "masks are drawn and by how much they are moved, ranking, mask NMS, overlap policy, holes, components) with\n"
        "the best competition score on images that the model was not trained on. The search is repeated in a\n"
        "cross-validation, whose held-out gain is the one to expect on other images.\n"
        "The result is a fragment of a configuration (TEST.POSTPROCESS): cellseg-d2 infer and export-model take it\n"
        "as --postprocess, and a configuration file as _BASE_.",
        EXAMPLES,
    )
    group = parser.add_argument_group("files")
    group.add_argument(
        "--detections",
        required=True,
        nargs="+",
        metavar="FILE",
        help="detections.npz of one or several evaluations with TEST.SAVE_DETECTIONS True, or the files of "
        "cellseg-d2 infer --save detections, also with --tta or of an ensemble",
    )
    group.add_argument(
        "--ground-truth", required=True, metavar="G", help="train.csv (also .gz) or COCO JSON; see also --exclude"
    )
    group.add_argument("--output", required=True, metavar="YAML", help="file to write with the tuned values")
    group.add_argument(
        "--start",
        metavar="YAML",
        help="configuration with the values of TEST.POSTPROCESS to begin and to compare with (default: "
        "postprocess.yaml beside the first detections, where the other tools leave it, otherwise the built-in ones)",
    )
    group.add_argument("--exclude", nargs="+", default=[], metavar="ID", help="leave these images out")
    group = parser.add_argument_group("search")
    group.add_argument(
        "--trials",
        type=int,
        default=1000,
        metavar="N",
        help="largest number of settings tried in each search (default: 1000)",
    )
    group.add_argument(
        "--folds", type=int, default=5, metavar="K", help="folds of the cross-validation over images (default: 5)"
    )
    group.add_argument(
        "--parameters",
        nargs="+",
        metavar="NAME",
        help="search only these, such as overlap_policy, to see what each of them is worth (default: all)",
    )
    group.add_argument("--seed", type=seed, default=0, help="seed of the split into folds (default: 0)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from pathlib import Path

    from cellseg_d2.detections.saved import load_many
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.io.atomic import check_files_writable
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.postprocess.params import FILE_NAME, PostprocessParams
    from cellseg_d2.postprocess.tuning import space_of, tune
    from cellseg_d2.postprocess.tuning_image import groups_of, make_trials
    from cellseg_d2.predictions.truth import choose_images, read_truth

    if args.trials < 1:
        raise CellSegError(f"--trials must be at least 1, not {args.trials}")
    check_outputs([args.output], [*args.detections, args.ground_truth, args.start])
    check_files_writable([args.output])
    space = space_of(args.parameters) if args.parameters else None
    beside = Path(args.detections[0]).with_name(FILE_NAME)
    start_file = args.start or (beside if beside.is_file() else None)
    start = PostprocessParams.from_yaml(start_file) if start_file else PostprocessParams()
    raw = load_many(args.detections)
    start.check_classes(raw.class_names)
    truth = read_truth(args.ground_truth, {name: (own.height, own.width) for name, own in raw.images.items()})
    for warning in truth.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    names = choose_images(truth, raw.images, exclude=args.exclude, only_predicted=True)
    others = len(raw.images.keys() - truth.images.keys())
    if others:
        print(f"warning: images with detections that the ground truth lacks are left out: {others}", file=sys.stderr)
    count = sum(len(raw.images[name]) for name in names)
    print(f"{len(names)} images with {count} detections; starting from {start_file or 'the built-in defaults'}")

    result = tune(
        make_trials(raw.images, truth, names),
        len(raw.class_names),
        start=start,
        types=truth.cell_types,
        groups=groups_of(truth),
        space=space,
        folds=args.folds,
        trials=args.trials,
        seed=args.seed,
        progress=True,
    )
    gain = result.rows()[-1].gain
    print(result.table())
    print(f"(held out: scored with the values found on the other {args.folds - 1} folds; ± over the folds)\n")
    print(result.changes(raw.class_names))
    if gain <= 0:
        print("\nthe held-out gain is not above 0: on other images the default is as good as the tuned values")
    result.params.to_yaml(
        args.output,
        f"Tuned on {len(names)} images: score {result.default.mean():.4f} -> {result.fitted.mean():.4f} fitted, "
        f"{result.held_out.mean():.4f} held out ({args.folds} folds).\nClasses: {', '.join(raw.class_names)}",
    )
    print(f"\nwritten: {args.output}")
