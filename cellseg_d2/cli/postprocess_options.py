"""Options of post-processing, for the commands that predict."""

from __future__ import annotations

import argparse

PREFIX = "TEST.POSTPROCESS."


def add_postprocess_options(parser: argparse.ArgumentParser) -> None:
    """The options that :func:`postprocess_opts`, :func:`choose_postprocess` and :func:`describe_postprocess` read."""
    group = parser.add_argument_group("post-processing", "Defaults: TEST.POSTPROCESS of the configuration.")
    group.add_argument(
        "--postprocess",
        metavar="FILE",
        help="YAML with other values for TEST.POSTPROCESS, such as that of cellseg-d2 tune-postprocess",
    )
    group.add_argument("--score-threshold", nargs="+", type=float, metavar="S", help="one, or one for each class")
    group.add_argument("--mask-threshold", nargs="+", type=float, metavar="P", help="probability that a pixel needs")
    group.add_argument(
        "--min-area",
        nargs="+",
        type=int,
        metavar="A",
        help="smallest area in pixels, one or one for each class; sets MIN_AREA_SHARE and DOUBTFUL_AREAS to 0",
    )
    group.add_argument("--no-vote", action="store_true", help="an image may hold several types of cells")


def postprocess_opts(args: argparse.Namespace) -> list:
    """The options as ``KEY VALUE`` pairs of a configuration."""
    from cellseg_d2.postprocess.params import MIN_AREAS_ALONE

    named = {
        "SCORE_THRESHOLDS": args.score_threshold,
        "MASK_THRESHOLDS": args.mask_threshold,
        "MIN_AREAS": args.min_area,
        **{key.upper(): None if args.min_area is None else value for key, value in MIN_AREAS_ALONE.items()},
        "VOTE": False if args.no_vote else None,
    }
    return [word for key, value in named.items() if value is not None for word in (PREFIX + key, value)]


def describe_postprocess(args: argparse.Namespace, beside: object, otherwise: str = "the configuration") -> str:
    """Where the values come from, in words: from ``--postprocess``, the file ``beside``, or ``otherwise``."""
    words = [*postprocess_opts(args)[::2], *args.opts[::2]]
    changes = dict.fromkeys(key.removeprefix(PREFIX).lower() for key in words if key.startswith(PREFIX))
    source = str(args.postprocess or beside or otherwise)
    return source + (f" with {', '.join(changes)} of the command line" if changes else "")


def choose_postprocess(args: argparse.Namespace, params, beside=None):
    """``params`` where there is no configuration, with a file and the options over them.

    Args:
        args: arguments of the command line.
        params: the weakest word.
        beside: YAML that counts where ``--postprocess`` names none.
    """
    from dataclasses import replace

    if file := args.postprocess or beside:
        params = type(params).from_yaml(file, params)
    opts = postprocess_opts(args)
    return replace(
        params,
        **{key.removeprefix(PREFIX).lower(): value for key, value in zip(opts[::2], opts[1::2], strict=True)},
    )


def load_segmenter(args: argparse.Namespace, config_files):
    """The model of a configuration, or the ensemble of several, as the options say.

    Returns:
        It, the first configuration, and in words where the post-processing is from.
    """
    from cellseg_d2.config import load_config, postprocess_beside
    from cellseg_d2.inference.ensemble import build_segmenter
    from cellseg_d2.weights.weights import find_weights

    opts = ["MODEL.DEVICE", args.device, *(["TEST.TTA.ENABLED", "True"] if args.tta else [])]
    opts += [*postprocess_opts(args), *args.opts]
    cfgs = [load_config(path, opts, postprocess=args.postprocess) for path in config_files]
    segmenter = build_segmenter(cfgs, args.weights or [find_weights(path) for path in config_files])
    segmenter.params.check_classes(segmenter.class_names)
    return segmenter, cfgs[0], describe_postprocess(args, postprocess_beside(config_files[0]))
