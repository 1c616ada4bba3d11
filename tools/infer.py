#!/usr/bin/env python3
"""Segment images with a trained model: submission.csv and overlay pictures."""

from __future__ import annotations

import argparse

from _cli import make_parser, run

EXAMPLES = """\
  python tools/infer.py --config-file output/quickstart/config.yaml --input output/demo/simulated/test --output out
  python tools/infer.py --config-file output/sartorius_R_50/config.yaml --weights model_best.pth \\
      --input 'test/*.png' --output out --score-threshold 0.3 0.5 0.6
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Segment images with a trained model. Writes OUTPUT/submission.csv (valid for the competition: masks that "
        "share no pixel, an empty row for an image without cells) and OUTPUT/overlays/<image>.png. Exit code 1 says "
        "that some images could not be read; the others are done.",
        EXAMPLES,
    )
    group = parser.add_argument_group("model")
    group.add_argument("--config-file", required=True, metavar="FILE", help="config.yaml of the training run")
    group.add_argument("--weights", metavar="FILE", help="checkpoint (default: model_best.pth beside the config file)")
    group.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    group = parser.add_argument_group("images")
    group.add_argument("--input", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    group.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    group.add_argument("--no-overlays", action="store_true", help="write no pictures")
    group = parser.add_argument_group("post-processing (defaults: the configuration's)")
    group.add_argument("--score-threshold", nargs="+", type=float, metavar="S", help="one, or one for each class")
    group.add_argument("--mask-threshold", type=float, metavar="P", help="probability that a pixel needs")
    group.add_argument("--min-area", nargs="+", type=int, metavar="A", help="pixels; one, or one for each class")
    group.add_argument("--no-vote", action="store_true", help="an image may hold several types of cells")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration options")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from dataclasses import replace

    from tabulate import tabulate

    from cellseg_d2.data.images import find_images
    from cellseg_d2.engine.setup import load_config
    from cellseg_d2.inference.batch import segment_files
    from cellseg_d2.inference.segmenter import CellSegmenter
    from cellseg_d2.inference.weights import find_weights

    paths = find_images(args.input)
    cfg = load_config(args.config_file, ["MODEL.DEVICE", args.device, *args.opts])
    segmenter = CellSegmenter.from_config(cfg, args.weights or find_weights(args.config_file))
    changes = {
        "score_thresholds": args.score_threshold,
        "mask_threshold": args.mask_threshold,
        "min_areas": args.min_area,
        "vote": False if args.no_vote else None,
    }
    segmenter.params = replace(segmenter.params, **{k: v for k, v in changes.items() if v is not None})

    print(f"{len(paths)} images on {cfg.MODEL.DEVICE}")
    result = segment_files(segmenter, paths, args.output, overlays=not args.no_overlays)
    rows = [[name, *counts.values(), sum(counts.values())] for name, counts in result.counts.items()]
    print(tabulate(rows[:20], headers=["image", *segmenter.class_names, "cells"]))
    if len(rows) > 20:
        print(f"… and {len(rows) - 20} more images")
    print(f"\n{sum(row[-1] for row in rows)} cells in {len(rows)} images: {args.output}/submission.csv")
    if not args.no_overlays:
        print(f"pictures: {args.output}/overlays/")
    if result.failed:
        print(f"{len(result.failed)} images could not be read (named above)")
    return 1 if result.failed else 0


if __name__ == "__main__":
    run(main)
