"""Train a model further on your own corrected or annotated images, without a configuration; see --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import count, seed, whole

EXAMPLES = """\
  cellseg-d2 train --images my_images --labels my_labels --project mine
  cellseg-d2 train --project mine  # what was corrected with cellseg-d2 correct, or in napari
  cellseg-d2 train --project mine --iterations 600 --folds 0
  cellseg-d2 infer --model mine --input more_images --output results
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "train",
        "Train a model further on a few images of your own. Split, length, sizes and thresholds are chosen from the\n"
        "images, and said. The folder of the project then is a model: name it with --model. The model before stays in\n"
        "its folder models. Interrupted, the same call goes on where it was.\n"
        "For full control over a training there is cellseg-d2 train-net.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--project", type=Path, required=True, metavar="P", help="folder of the project; made where needed")
    add("--images", type=Path, metavar="DIR", help="folder of annotated images, instead of what P has corrected")
    add("--labels", type=Path, metavar="DIR", help="their label images: 0 is background, other numbers are cells")
    add("--only-labelled", action="store_true", help="leave out images without a label image")
    add("--model", metavar="M", help="what to go on from (default: the model of P, at first the shipped one, cells)")
    add("--iterations", type=count, metavar="N", help="length (default: 300, and more for more than 7 images)")
    add(
        "--folds",
        type=whole,
        metavar="K",
        help="of the cross-validation that scores few images (default: 2); 0 for none",
    )
    add("--seed", type=seed, default=0, help="of the split and of the training (default: 0)")
    args = parser.parse_args(argv)
    if (args.images is None) != (args.labels is None):
        parser.error("--images and --labels go together")
    return args


def labelled(args: argparse.Namespace):
    """The images with label images as training data, all checked."""
    from cellseg_d2.correction.training import Data
    from cellseg_d2.datasets.audit import Audit
    from cellseg_d2.datasets.findings import FindingLog
    from cellseg_d2.datasets.label_images import LabelImages

    source, audit = LabelImages(args.images, args.labels, only_labelled=args.only_labelled), Audit(FindingLog())
    records = [audit.check(record) for record in source.records(audit.log)]
    audit.log.raise_open_errors(args.labels, "; cellseg-d2 convert-to-coco says more, and repairs")
    return Data(records, source.images.root)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    import signal
    import sys

    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    # As for Ctrl-C: the training must not go on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    written = [args.project / name for name in ("runs", "models", "config.yaml", "model.safetensors")]
    check_outputs(written, [args.images, args.labels])
    with claimed(args.project):
        run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    from cellseg_d2.correction.project import FIRST_MODEL, Project, check_folder
    from cellseg_d2.correction.training import correction_data, plan_training, train

    if args.images is None:
        project = Project.open(args.project)
        data, model = correction_data(project), args.model or project.model
    else:
        check_folder(args.project)
        data = labelled(args)
        own = (args.project / "config.yaml").is_file()
        model = args.model or (str(args.project) if own else FIRST_MODEL)
    plan = plan_training(data, model, iterations=args.iterations, folds=args.folds, seed=args.seed)
    print(f"model: {model}", *plan.sentences(), sep="\n", flush=True)
    outcome = train(args.project, data, model, plan, on_stage=lambda said: print(said, flush=True))
    print(*outcome.sentences(), sep="\n")
    shown = f"scores of {', '.join(map(str, outcome.params.score_thresholds))} and {outcome.params.min_areas[0]} pixels"
    print(f"a cell needs {shown}; {outcome.minutes:.1f} minutes, details in {outcome.folder}")
    print(f"the new model: cellseg-d2 infer --model {args.project} …; by itself in {outcome.model}")
