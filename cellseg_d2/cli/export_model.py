"""Make a folder to hand on of a trained model: short configuration and safetensors."""

from __future__ import annotations

import argparse

from cellseg_d2.cli.common import make_parser

EXAMPLES = """\
  cellseg-d2 export-model --config-file output/mine/config.yaml --output models/mine
  cellseg-d2 export-model --config-file output/mine/config.yaml --weights output/mine/model_final.pth \\
      --postprocess tuned.yaml --output models/mine INPUT.ZOOM_TEST 1.35
  cellseg-d2 export-model --config-file output/mine/config.yaml --output plain --plain-detectron2
  cellseg-d2 export-model --config-file output/mine/config.yaml --output traced --torchscript
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "export_model",
        "Package a trained model for sharing: a folder with config.yaml (the keys that prediction needs and that\n"
        "differ from the defaults, with the post-processing) and model.safetensors (which cannot run code), for\n"
        "cellseg-d2 infer and CellSegmenter.",
        EXAMPLES,
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config.yaml of the training run")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        help="checkpoint (default: model_best.pth beside the config file, else model_final.pth)",
    )
    parser.add_argument(
        "--postprocess",
        metavar="YAML",
        help="other values for TEST.POSTPROCESS, such as those of cellseg-d2 tune-postprocess",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--full-precision", action="store_true", help="keep weights with 32 bits instead of 16")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--plain-detectron2",
        action="store_true",
        help="write a config.yaml of Detectron2's own keys and model_final.pth instead, which give the same detections "
        "without this package; for networks of Detectron2's own parts",
    )
    instead.add_argument(
        "--torchscript",
        action="store_true",
        help="write model.ts instead, for programs with PyTorch and torchvision only: image in, boxes, classes, masks "
        "and scores out, compared with the network; without post-processing, for networks without a dense branch",
    )
    parser.add_settings()
    args = parser.parse_args(argv)
    if args.postprocess and (args.plain_detectron2 or args.torchscript):
        parser.error("--postprocess goes with models for this package: others have no such step")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from pathlib import Path

    from cellseg_d2.config import load_config, postprocess_beside
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.weights.model_folder import CONFIG, WEIGHTS, export_model
    from cellseg_d2.weights.plain_detectron2 import PLAIN_WEIGHTS, export_plain_detectron2
    from cellseg_d2.weights.torchscript import SCRIPT, export_torchscript
    from cellseg_d2.weights.weights import find_weights

    weights = Path(args.weights or find_weights(args.config_file))
    written = (SCRIPT,) if args.torchscript else (CONFIG, PLAIN_WEIGHTS if args.plain_detectron2 else WEIGHTS)
    check_outputs([Path(args.output) / name for name in written], [args.config_file, weights, args.postprocess])
    cfg = load_config(args.config_file, args.opts, postprocess=args.postprocess)
    if args.plain_detectron2:
        with claimed(args.output):
            folder = export_plain_detectron2(cfg, weights, args.output)
        size = (folder / PLAIN_WEIGHTS).stat().st_size / 1e6
        print(f"{weights} ({size:.1f} MB) for plain Detectron2: {folder}; its config.yaml says how to load it")
        return
    if args.torchscript:
        with claimed(args.output):
            script = export_torchscript(cfg, weights, args.output)
        size = script.stat().st_size / 1e6
        print(f"{script} ({size:.1f} MB): torch.jit.load opens it after import torchvision; what it gives was compared")
        return
    with claimed(args.output):
        folder = export_model(cfg, weights, args.output, half=not args.full_precision)
    size = (folder / WEIGHTS).stat().st_size / 1e6
    source = args.postprocess or postprocess_beside(args.config_file) or "the configuration"
    print(f"{weights} ({size:.1f} MB), post-processing of {source}: {folder}")
