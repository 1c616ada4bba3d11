"""Options of post-processing, for the commands that predict."""

from __future__ import annotations

import argparse


def add_postprocess_options(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`choose_postprocess` reads."""
    group = parser.add_argument_group(
        "post-processing", "Defaults: those of the YAML file where there is one, otherwise the configuration's."
    )
    group.add_argument(
        "--postprocess",
        metavar="FILE",
        help="YAML of tools/tune_postprocess.py (default: postprocess.yaml beside the weights of a single model, or "
        "beside saved predictions, if it is there), or 'config' for the configuration's",
    )
    group.add_argument("--score-threshold", nargs="+", type=float, metavar="S", help="one, or one for each class")
    group.add_argument("--mask-threshold", nargs="+", type=float, metavar="P", help="probability that a pixel needs")
    group.add_argument("--min-area", nargs="+", type=int, metavar="A", help="pixels; one, or one for each class")
    group.add_argument("--no-vote", action="store_true", help="an image may hold several types of cells")


def choose_postprocess(args, params, weights):
    """From the weakest to the strongest word: the configuration's ``params``, a YAML file, the command line.

    Returns the parameters, and in words where they are from.
    """
    from dataclasses import replace
    from pathlib import Path

    from cellseg_d2.postprocess.params import FILE_NAME, PostprocessParams

    beside = Path(weights[0]).with_name(FILE_NAME) if len(weights) == 1 else None
    path = args.postprocess or (beside if beside and beside.is_file() else "config")
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
