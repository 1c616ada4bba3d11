"""Predictions on images without annotations as a data set to train on; see --help."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cellseg_d2.cli.common import command_line, make_parser
from cellseg_d2.cli.postprocess_options import (
    add_postprocess_options,
    choose_postprocess,
    describe_postprocess,
    load_segmenter,
)

if TYPE_CHECKING:
    from cellseg_d2.detections.detections import Detections
    from cellseg_d2.postprocess.params import PostprocessParams
    from cellseg_d2.postprocess.steps import Cells

EXAMPLES = """\
  cellseg-d2 pseudo-label --images kaggle/train_semi_supervised --category-from-name \\
      --config-file output/folds/*/config.yaml --tta --score-threshold 0.7 \\
      --like datasets/sartorius/instances_train.json --held-out datasets/sartorius/instances_val.json \\
      --output datasets/pseudo
  cellseg-d2 pseudo-label --images more --predictions submission.csv --category cort \\
      --like datasets/sartorius/instances_train.json --held-out datasets/sartorius/instances_val.json \\
      --output datasets/pseudo
  cellseg-d2 train-net ... DATASETS.TRAIN "('sartorius_train', 'pseudo_train')"
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "pseudo_label",
        "Turn predictions into labels. Writes OUTPUT/instances_train.json, a COCO JSON to train on beside the\n"
        "annotated images, and OUTPUT/audit.json, which lists what was kept. Masks share no pixel; each annotation\n"
        "has its score. Images that are in a --held-out file, by name or pixel for pixel, are refused: a model\n"
        "trained on labels of its own validation images would look better than it is.",
        EXAMPLES,
    )
    group = parser.add_argument_group("images")
    group.add_argument("--images", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    group.add_argument(
        "--held-out", nargs="+", type=Path, default=[], metavar="JSON", help="COCO files of images not to train on"
    )
    group.add_argument(
        "--leaks",
        choices=("refuse", "skip", "allow"),
        default="refuse",
        help="what to do with images of --held-out: stop with an error, leave them out, or label them all the same "
        "(default: %(default)s)",
    )
    group = parser.add_argument_group("predictions (of a model, or from a file)")
    group.add_argument("--config-file", nargs="+", metavar="FILE", help="config.yaml of a model; several: an ensemble")
    group.add_argument("--weights", nargs="+", metavar="FILE", help="checkpoints (default: beside the config files)")
    group.add_argument("--tta", action="store_true", help="test-time augmentation, see cellseg-d2 infer")
    group.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    group.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="submission (.csv), COCO results (.json), or the detections that training and evaluation save (.npz)",
    )
    group.add_argument(
        "--results-for", type=Path, metavar="JSON", help="COCO file whose image numbers the COCO results use"
    )
    group = parser.add_argument_group("labels")
    group.add_argument(
        "--like", required=True, type=Path, metavar="JSON", help="COCO file of the annotated images: same categories"
    )
    kind = group.add_mutually_exclusive_group()
    kind.add_argument("--category", metavar="NAME", help="category of all cells (default: as predicted)")
    kind.add_argument(
        "--category-from-name", action="store_true", help="category of an image's cells from its file name"
    )
    group.add_argument(
        "--min-cells", type=int, default=1, metavar="N", help="leave images with fewer cells out (default: %(default)s)"
    )
    add_postprocess_options(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder, such as datasets/pseudo")
    parser.add_settings("configuration options of the model")
    args = parser.parse_args(argv)
    if bool(args.config_file) == bool(args.predictions):
        parser.error("give either --config-file, for a model, or --predictions")
    if args.predictions and (args.weights or args.tta or args.opts):
        parser.error("--weights, --tta and configuration options go with --config-file, not with --predictions")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from cellseg_d2.datasets.convert import AUDIT_FILE
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    read = [*(args.config_file or []), *(args.weights or []), args.postprocess, args.predictions, args.results_for]
    written = [args.output / name for name in ("instances_train.json", AUDIT_FILE)]
    check_outputs(written, [*read, args.like, *args.held_out])
    command = command_line("pseudo_label", sys.argv[1:] if argv is None else argv)
    with claimed(args.output):
        return label(args, command)


def label(args: argparse.Namespace, command: str) -> int:
    from dataclasses import replace

    import numpy as np

    from cellseg_d2.datasets.leaks import find_leaks
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.images.errors import check_name
    from cellseg_d2.images.read import find_images
    from cellseg_d2.inference.pseudo_labels import PseudoLabels, category_in_name, read_categories
    from cellseg_d2.io.progress import track
    from cellseg_d2.postprocess.steps import postprocess

    paths = find_images(args.images)
    categories = read_categories(args.like)
    if args.category is not None and args.category not in categories:
        raise CellSegError(f"{args.like} has no category {args.category!r}, only {', '.join(categories)}")
    paths = without_leaks(paths, find_leaks(paths, args.held_out), args.leaks)
    if not args.held_out:
        print("note: no --held-out is given, so nothing says whether these images are used for validation")
    known = {path: args.category or category_in_name(path, categories) for path in paths} if kind_is_known(args) else {}
    labels = PseudoLabels(paths, categories)
    source = Source.of_file(args, paths, categories) if args.predictions else Source.of_model(args)
    unknown = [name for name in source.class_names if name not in categories]
    if unknown and not known:
        raise CellSegError(
            f"{unknown[0]!r} is predicted, which {args.like} does not have (only {', '.join(categories)}): "
            f"give --category or --category-from-name"
        )

    failed = 0
    for path in (progress := track(paths, "labelling", each=True)):
        try:
            check_name(path)
            detections, cells = source.find(path)
        except CellSegError as error:
            failed += 1
            progress.write(f"skipped: {error}")
            continue
        names, kind = source.class_names, known.get(path)
        if kind in names and len(names) > 1:  # so that its thresholds apply
            detections = replace(detections, classes=np.full(len(detections), names.index(kind)))
            cells = None
        elif kind is not None:
            names = [kind] * len(names)
        if cells is None:
            cells = postprocess(detections, source.params)
        labels.add(path, cells, names, len(detections), scored=source.scored, least=args.min_cells)
    files = labels.write(args.output, command=command, like=str(args.like), held_out=list(map(str, args.held_out)))
    print(labels.table())
    for file in files:
        print(f"wrote {file}")
    if failed:
        print(f"{failed} images could not be read (named above)")
    return 1 if failed else 0


def kind_is_known(args: argparse.Namespace) -> bool:
    return args.category is not None or args.category_from_name


def without_leaks(paths: list[Path], leaks: dict[Path, str], policy: str) -> list[Path]:
    """The images to label; stops if held-out ones are among them, unless ``policy`` says otherwise."""
    from cellseg_d2.errors import CellSegError

    if leaks and policy == "refuse":
        path, where = next(iter(leaks.items()))
        raise CellSegError(
            f"{len(leaks)} of {len(paths)} images are held out, such as {path} (in {where}): training on them would "
            f"spoil the validation; --leaks skip leaves them out, --leaks allow labels them all the same"
        )
    if leaks:
        print(f"held-out images that are {'left out' if policy == 'skip' else 'LABELLED ALL THE SAME'}: {len(leaks)}")
    paths = [path for path in paths if policy == "allow" or path not in leaks]
    if not paths:
        raise CellSegError("all images are held out: none is left to label")
    return paths


class Source(NamedTuple):
    """Where predictions come from.

    Attributes:
        find: the detections in an image, and the cells that they become where that is known.
        params: how detections become cells.
        class_names: classes of the detections.
        scored: whether scores count.
    """

    find: Callable[[Path], tuple[Detections, Cells | None]]
    params: PostprocessParams
    class_names: list[str]
    scored: bool = True

    @classmethod
    def of_file(cls, args: argparse.Namespace, paths: list[Path], categories: tuple[str, ...]) -> Source:
        from cellseg_d2.errors import CellSegError
        from cellseg_d2.images.read import image_size
        from cellseg_d2.postprocess.params import FILE_NAME, PostprocessParams
        from cellseg_d2.predictions.files import no_detections, read_detections

        sizes = {path.stem: image_size(path) for path in paths}
        found = read_detections(args.predictions, sizes, categories, args.results_for)
        names = found.class_names or list(categories)
        if found.class_names is None and len(categories) > 1 and not kind_is_known(args):
            raise CellSegError("a submission does not say what the cells are: give --category or --category-from-name")

        def find(path: Path) -> tuple[Detections, None]:
            return found.images.get(path.stem, no_detections(*sizes[path.stem])), None

        beside = args.predictions.with_name(FILE_NAME)
        beside = beside if beside.is_file() else None
        params = choose_postprocess(args, PostprocessParams(), beside)
        params.check_classes(names)
        print(f"post-processing of {describe_postprocess(args, beside, 'the defaults')}")
        return cls(find, params, names, found.scored)

    @classmethod
    def of_model(cls, args: argparse.Namespace) -> Source:
        segmenter, _, source = load_segmenter(args, args.config_file)
        print(f"post-processing of {source}")

        def find(path: Path) -> tuple[Detections, Cells]:
            found = segmenter.segment(path, keep_detections=True)
            return found.detections, found.cells

        return cls(find, segmenter.params, segmenter.class_names)
