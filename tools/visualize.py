#!/usr/bin/env python3
"""Pictures of data and predictions."""

from __future__ import annotations

import argparse

from _cli import make_parser, run

EXAMPLES = """\
  python tools/visualize.py comparison --images test/ --ground-truth test.csv --predictions out/submission.csv \\
      --output pictures
  python tools/visualize.py dataset --images train/ --ground-truth train.csv --output pictures --limit 12
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser("Pictures of data and predictions, one PNG an image and a contact sheet of all.", EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    files = argparse.ArgumentParser(add_help=False)
    files.add_argument("--images", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    files.add_argument("--ground-truth", required=True, metavar="FILE", help="train.csv (also .gz) or COCO JSON")
    files.add_argument("--output", required=True, metavar="DIR", help="folder for the pictures")
    files.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    files.add_argument("--columns", type=int, default=1, metavar="N", help="of the sheet (default: %(default)s)")

    commands.add_parser("dataset", parents=[files], help="annotated images with their cells outlined")
    comparison = commands.add_parser("comparison", parents=[files], help="image | truth | prediction, side by side")
    comparison.add_argument("--predictions", required=True, metavar="FILE", help="submission CSV or COCO results")
    comparison.add_argument(
        "--score-threshold", type=float, default=0.5, metavar="S", help="for COCO results (default: %(default)s)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from pathlib import Path

    from tqdm import tqdm

    from cellseg_d2.data.images import find_images, read_image
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.evaluation.truth import read_predictions, read_truth
    from cellseg_d2.masks import coco_to_crop
    from cellseg_d2.metrics import score_image
    from cellseg_d2.visualization.comparison import comparison_panel, contact_sheet
    from cellseg_d2.visualization.overlays import overlay_picture, save_image

    truth = read_truth(args.ground_truth)
    paths = [path for path in find_images(args.images) if path.stem in truth.images][: args.limit]
    if not paths:
        raise CellSegError(f"none of the images is in {args.ground_truth}; names without suffix must be its ids")
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

    output, pictures = Path(args.output), []
    for path in tqdm(paths, desc="drawing", unit="image"):
        pictures.append(picture(path))
        save_image(output / f"{path.stem}.png", pictures[-1])
    save_image(output / "sheet.png", contact_sheet(pictures, columns=args.columns, max_width=2400))
    print(f"{len(paths)} pictures and {output / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    run(main)
