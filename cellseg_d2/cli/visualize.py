"""Pictures of data, augmentations and predictions."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import count, seed
from cellseg_d2.cli.postprocess_options import add_postprocess_options, postprocess_opts
from cellseg_d2.cli.scored_options import GROUND_TRUTH, PREDICTIONS, add_score_threshold

EXAMPLES = """\
  cellseg-d2 visualize comparison --images test/ --ground-truth test.csv --predictions out/submission.csv \\
      --output pictures
  cellseg-d2 visualize dataset --images train/ --ground-truth train.csv --output pictures --limit 12
  cellseg-d2 visualize augmentations --config-file configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml \\
      --output augmentations.png INPUT.COPY_PASTE.PROBABILITY 0.5
  cellseg-d2 visualize fields --config-file output/dense/config.yaml --images test/ --output pictures
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "visualize",
        "Draw data and predictions, one PNG per image and a contact sheet of all, or training samples.",
        EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("--images", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    files.add_argument("--ground-truth", required=True, metavar="FILE", help=GROUND_TRUTH)
    files.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    files.add_argument("--limit", type=count, metavar="N", help="only the first N images")
    files.add_argument("--columns", type=count, default=1, metavar="N", help="of the sheet (default: %(default)s)")

    commands.add_parser("dataset", parents=[files], help="annotated images with their cells outlined")
    comparison = commands.add_parser("comparison", parents=[files], help="image | truth | prediction, side by side")
    comparison.add_argument("--predictions", required=True, metavar="FILE", help=PREDICTIONS)
    add_score_threshold(comparison)

    augmentations = commands.add_parser("augmentations", help="one image as training sees it, several times")
    augmentations.add_argument("--config-file", required=True, metavar="FILE", help="of the training")
    augmentations.add_argument("--output", required=True, metavar="PNG", help="the picture")
    augmentations.add_argument(
        "--json", type=Path, metavar="FILE", help="converted dataset (default: the configuration's DATASETS.TRAIN)"
    )
    augmentations.add_argument("--count", type=count, default=6, metavar="N", help="of samples (default: %(default)s)")
    augmentations.add_argument(
        "--image-index", type=int, metavar="I", help="which image (default: the one with the median number of cells)"
    )
    augmentations.add_argument(
        "--columns", type=count, default=3, metavar="N", help="samples in a row (default: %(default)s)"
    )
    augmentations.add_argument("--seed", type=seed, default=0, metavar="N", help="of the draws (default: %(default)s)")
    augmentations.add_settings()

    fields = commands.add_parser(
        "fields", help="what a dense branch sees: image | in a cell? | direction of its centre | cells"
    )
    fields.add_argument("--config-file", required=True, metavar="FILE", help="of a run, or an exported model's")
    fields.add_argument("--weights", metavar="FILE", help="default: the best, or the last, beside the configuration")
    fields.add_argument("--images", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    fields.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    fields.add_argument("--limit", type=count, metavar="N", help="only the first N images")
    fields.add_argument("--columns", type=count, default=4, metavar="N", help="in a picture (default: %(default)s)")
    add_postprocess_options(fields)
    fields.add_settings()

    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    return {"augmentations": draw_augmentations, "fields": draw_fields}.get(args.command, draw_images)(args)


def draw_augmentations(args: argparse.Namespace) -> int:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from cellseg_d2.config import load_config
    from cellseg_d2.data.catalog import register_json, require_datasets
    from cellseg_d2.data.categories import choose_classes, mixed, training_datasets
    from cellseg_d2.data.dataset_mapper import CellDatasetMapper
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.io.atomic import check_files_writable
    from cellseg_d2.io.outputs import check_outputs, check_pictures
    from cellseg_d2.visualization.augmentation_sheet import augmentation_sheet, describe_augmentations
    from cellseg_d2.visualization.overlays import save_image

    cfg = load_config(args.config_file, args.opts)
    if args.json:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TRAIN_REPEAT_FACTOR = (), []
    require_datasets(training_datasets(cfg))
    if args.json:
        cfg.DATASETS.TRAIN = (register_json(args.json),)
    for name in training_datasets(cfg):
        DatasetCatalog.get(name)  # reads the JSON, which sets the metadata
    categories = {name: MetadataCatalog.get(name).thing_classes for name in training_datasets(cfg)}
    cfg.MODEL.CLASS_NAMES = choose_classes(categories, cfg.DATASETS.CATEGORY_MAP, cfg.MODEL.CLASS_NAMES)
    cfg = mixed(cfg)
    entries = [entry for name in cfg.DATASETS.TRAIN for entry in DatasetCatalog.get(name)]
    check_outputs([args.output], [args.config_file, args.json, *(entry["file_name"] for entry in entries)])
    check_files_writable([args.output])
    check_pictures([args.output])
    if not entries:
        raise CellSegError(f"the datasets {', '.join(cfg.DATASETS.TRAIN)} have no image")
    index = args.image_index
    if index is None:
        by_cells = sorted(range(len(entries)), key=lambda i: len(entries[i]["annotations"]))
        index = by_cells[len(by_cells) // 2]
    if not 0 <= index < len(entries):
        raise CellSegError(f"--image-index {index}: there are {len(entries)} images, counted from 0")
    mapper = CellDatasetMapper(cfg, is_train=True)
    title = f"{Path(entries[index]['file_name']).name}: {describe_augmentations(cfg)}"
    sheet = augmentation_sheet(mapper, entries[index], title, count=args.count, columns=args.columns, seed=args.seed)
    save_image(args.output, sheet)
    print(f"image {index} of {len(entries)}, {describe_augmentations(cfg)}: {args.output}")
    return 0


def draw_fields(args: argparse.Namespace) -> int:
    from cellseg_d2.config import load_config
    from cellseg_d2.images.read import find_images, read_image
    from cellseg_d2.inference.model import CellSegmenter
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.io.progress import track
    from cellseg_d2.visualization.field_sheet import field_sheet
    from cellseg_d2.visualization.overlays import save_image
    from cellseg_d2.weights.weights import find_weights

    found, output = find_images(args.images), Path(args.output)
    paths = found[: args.limit]
    files = picture_files(paths, output)
    check_outputs(files.values(), [*found, args.config_file, args.weights, args.postprocess])
    cfg = load_config(args.config_file, [*postprocess_opts(args), *args.opts], postprocess=args.postprocess)
    segmenter = CellSegmenter.from_config(cfg, args.weights or find_weights(args.config_file))
    with claimed(output):
        for path in track(paths, "drawing"):
            image = read_image(path)
            maps, cells = segmenter.dense_maps(image), segmenter.segment(image)
            save_image(files[path], field_sheet(image, maps, cells.crops, path.stem, args.columns))
    print(f"{len(paths)} pictures: {output}")
    return 0


def picture_files(paths: list[Path], output: Path, reserved: Sequence[str] = ()) -> dict[Path, Path]:
    """The picture of each image; two of one name, or of a reserved one, are an error."""
    from cellseg_d2.io.file_names import check_distinct, file_stem

    check_distinct(paths, reserved=reserved)
    return {path: output / f"{file_stem(path.stem)}.png" for path in paths}


def draw_images(args: argparse.Namespace) -> int:
    from cellseg_d2.datasets.find import ImageSizes
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.images.read import find_images, read_image
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.io.progress import track
    from cellseg_d2.masks.crop import coco_to_crop
    from cellseg_d2.metrics.competition import score_image
    from cellseg_d2.predictions.truth import read_predictions, read_truth
    from cellseg_d2.visualization.comparison import comparison_panel, contact_sheet
    from cellseg_d2.visualization.overlays import overlay_picture, save_image

    found = find_images(args.images)
    truth = read_truth(args.ground_truth, ImageSizes({path.stem: path for path in found}))
    paths = [path for path in found if path.stem in truth.images][: args.limit]
    if not paths:
        raise CellSegError(f"none of the images is in {args.ground_truth}; names without suffix must be its ids")
    output, sheet = Path(args.output), Path(args.output) / "sheet.png"
    files = picture_files(paths, output, reserved=[sheet.stem])
    named = [args.ground_truth, args.predictions] if args.command == "comparison" else [args.ground_truth]
    check_outputs([*files.values(), sheet], [*found, *named])
    if args.command == "comparison":
        predictions = read_predictions(args.predictions, truth, args.score_threshold)

    def picture(path: Path):
        entry = truth.images[path.stem]
        crops = [coco_to_crop(rle) for rle in entry.masks]
        title = f"{path.stem} ({entry.cell_type})" if entry.cell_type else path.stem
        if args.command == "dataset":
            kinds = [entry.cell_type or "cell"] * len(crops)
            return overlay_picture(read_image(path), crops, kinds, title=title)
        masks = predictions.masks.get(path.stem, [])
        score = score_image(masks, entry.masks).score
        return comparison_panel(read_image(path), crops, [coco_to_crop(rle) for rle in masks], title, score)

    pictures = []
    with claimed(output):
        for path in track(paths, "drawing"):
            pictures.append(picture(path))
            save_image(files[path], pictures[-1])
        save_image(sheet, contact_sheet(pictures, columns=args.columns, max_width=2400))
    print(f"{len(paths)} pictures and {sheet}")
    return 0
