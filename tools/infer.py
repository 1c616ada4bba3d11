#!/usr/bin/env python3
"""Segment images with a trained model: submission.csv and overlay pictures."""

from __future__ import annotations

import argparse

from _cli import make_parser, run

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
    group = parser.add_argument_group(
        "post-processing", "Defaults: those of the YAML file where there is one, otherwise the configuration's."
    )
    group.add_argument(
        "--postprocess",
        metavar="FILE",
        help="YAML of tools/tune_postprocess.py (default: postprocess.yaml beside the weights of a single model, if it "
        "is there), or 'config' for the configuration's",
    )
    group.add_argument("--score-threshold", nargs="+", type=float, metavar="S", help="one, or one for each class")
    group.add_argument("--mask-threshold", nargs="+", type=float, metavar="P", help="probability that a pixel needs")
    group.add_argument("--min-area", nargs="+", type=int, metavar="A", help="pixels; one, or one for each class")
    group.add_argument("--no-vote", action="store_true", help="an image may hold several types of cells")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration options")
    return parser.parse_intermixed_args(argv)


def choose_postprocess(args, params, weights):
    """From the weakest to the strongest word: the configuration's ``params``, a YAML file, the command line.

    Returns the parameters, and in words where they are from.
    """
    from dataclasses import replace
    from pathlib import Path

    from cellseg_d2.inference.postprocess_params import FILE_NAME, PostprocessParams

    beside = Path(weights[0]).with_name(FILE_NAME)
    path = args.postprocess or (beside if len(weights) == 1 and beside.is_file() else "config")
    named = {
        "score_thresholds": args.score_threshold,
        "mask_thresholds": args.mask_threshold,
        "min_areas": args.min_area,
        "vote": False if args.no_vote else None,
    }
    prefix = "TEST.POSTPROCESS."
    options = [key.removeprefix(prefix).lower() for key in args.opts[::2] if key.startswith(prefix)]
    changes = {name: getattr(params, name) for name in options if hasattr(params, name)}
    changes |= {name: value for name, value in named.items() if value is not None}
    if str(path) != "config":
        params = PostprocessParams.from_yaml(path)
    source = "the configuration" if str(path) == "config" else str(path)
    if changes:
        source += f" with {', '.join(changes)} of the command line"
    return replace(params, **changes), source


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
