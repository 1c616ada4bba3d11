#!/usr/bin/env python3
"""Segment images with a trained model: submission.csv and overlay pictures."""

from __future__ import annotations

import argparse

from _cli import make_parser, run
from _postprocess import add_postprocess_options, choose_postprocess

EXAMPLES = """\
  python tools/infer.py --config-file output/quickstart/config.yaml --input output/demo/simulated/test --output out
  python tools/infer.py --config-file output/sartorius_R_50/config.yaml --weights model_best.pth \\
      --input 'test/*.png' --output out --score-threshold 0.3 0.5 0.6
  python tools/infer.py --config-file output/mine/config.yaml --postprocess tuned.yaml --input test --output out
  python tools/infer.py --config-file output/folds/*/config.yaml --tta --input test --output out  # an ensemble
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "Segment images with a trained model. Writes OUTPUT/submission.csv (valid for the competition: masks that "
        "share no pixel, an empty row for an image without cells) and OUTPUT/overlays/<image>.png. Exit code 1 says "
        "that some images could not be read; the others are done.",
        EXAMPLES,
    )
    group = parser.add_argument_group("model")
    group.add_argument(
        "--config-file",
        required=True,
        nargs="+",
        metavar="FILE",
        help="config.yaml of the training run; of several runs, their models are fused as an ensemble",
    )
    group.add_argument(
        "--weights",
        nargs="+",
        metavar="FILE",
        help="checkpoints, one a config file, or all for the only one (default: model_best.pth beside the config file)",
    )
    group.add_argument(
        "--tta",
        action="store_true",
        help="test-time augmentation: look at each image in the orientations and scales of TEST.TTA, 8 by default",
    )
    group.add_argument("--device", default="auto", help="cpu, cuda or auto (default: %(default)s)")
    group = parser.add_argument_group("images")
    group.add_argument("--input", required=True, nargs="+", metavar="PATH", help="files, folders or quoted globs")
    group.add_argument("--output", required=True, metavar="DIR", help="where the results go")
    group.add_argument("--no-overlays", action="store_true", help="write no pictures")
    add_postprocess_options(parser)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration options")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    from tabulate import tabulate

    from cellseg_d2.data.images import find_images
    from cellseg_d2.engine.setup import load_config
    from cellseg_d2.inference.batch import segment_files
    from cellseg_d2.inference.ensemble import build_segmenter
    from cellseg_d2.inference.weights import find_weights

    paths = find_images(args.input)
    opts = ["MODEL.DEVICE", args.device, *(["TEST.TTA.ENABLED", "True"] if args.tta else []), *args.opts]
    cfgs = [load_config(path, opts) for path in args.config_file]
    weights = args.weights or [find_weights(path) for path in args.config_file]
    segmenter = build_segmenter(cfgs, weights)
    segmenter.params, source = choose_postprocess(args, segmenter.params, weights)
    segmenter.params.check_classes(segmenter.class_names)

    print(f"{len(paths)} images on {cfgs[0].MODEL.DEVICE}; post-processing of {source}")
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
