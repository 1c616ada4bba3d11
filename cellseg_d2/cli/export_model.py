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
  cellseg-d2 export-model --config-file output/mine/config.yaml --output maps --onnx
  cellseg-d2 export-model --config-file output/mine/config.yaml --output zoo --bioimageio \\
      --name "Cells in phase contrast" --author "Ada Lovelace" --license CC-BY-4.0
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
    instead.add_argument(
        "--onnx",
        action="store_true",
        help="write model.onnx instead, for ONNX Runtime: image in, maps of the dense branch out (foreground, "
        "boundary, flow), compared with the network; for networks with a dense branch; needs the extra onnx",
    )
    instead.add_argument(
        "--bioimageio",
        action="store_true",
        help="write model.bioimageio.zip instead, a model of the BioImage Model Zoo that has passed its validator: the "
        "same maps by TorchScript, test data, cover, documentation; needs --name, --author, --license and the extra "
        "bioimageio",
    )
    about = parser.add_argument_group("of --bioimageio")
    about.add_argument("--name", help="the model's name, 5 to 128 characters")
    about.add_argument("--author", action="append", metavar="NAME", help="who made the model; once for each")
    about.add_argument("--license", metavar="SPDX", help="licence of the weights, such as CC-BY-4.0 or Apache-2.0")
    parser.add_settings()
    args = parser.parse_args(argv)
    if args.postprocess and (args.plain_detectron2 or args.torchscript or args.onnx or args.bioimageio):
        parser.error("--postprocess goes with models for this package: others have no such step")
    given = (args.name, args.author, args.license)
    if args.bioimageio and not all(given):
        parser.error("--bioimageio needs --name, --author and --license, which only the model's makers know")
    if any(given) and not args.bioimageio:
        parser.error("--name, --author and --license go with --bioimageio")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from pathlib import Path

    from cellseg_d2.config import load_config, postprocess_beside
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.weights.bioimageio import PACKAGE, Description, export_bioimageio
    from cellseg_d2.weights.model_folder import CONFIG, WEIGHTS, export_model
    from cellseg_d2.weights.onnx_model import ONNX, export_onnx
    from cellseg_d2.weights.plain_detectron2 import PLAIN_WEIGHTS, export_plain_detectron2
    from cellseg_d2.weights.torchscript import SCRIPT, export_torchscript
    from cellseg_d2.weights.weights import find_weights

    weights = Path(args.weights or find_weights(args.config_file))
    if args.plain_detectron2:
        written = (CONFIG, PLAIN_WEIGHTS)
    else:
        single = {SCRIPT: args.torchscript, ONNX: args.onnx, PACKAGE: args.bioimageio}
        written = tuple(name for name, asked in single.items() if asked) or (CONFIG, WEIGHTS)
    check_outputs([Path(args.output) / name for name in written], [args.config_file, weights, args.postprocess])
    cfg = load_config(args.config_file, args.opts, postprocess=args.postprocess)
    with claimed(args.output):
        if args.torchscript:
            path, how = (
                export_torchscript(cfg, weights, args.output),
                "torch.jit.load opens it after import torchvision",
            )
        elif args.onnx:
            path, how = export_onnx(cfg, weights, args.output), "image in, maps out"
        elif args.bioimageio:
            path = export_bioimageio(cfg, weights, args.output, Description(args.name, args.author, args.license))
            how = "it passes the validator of bioimageio.spec"
        elif args.plain_detectron2:
            path = export_plain_detectron2(cfg, weights, args.output) / PLAIN_WEIGHTS
        else:
            path = export_model(cfg, weights, args.output, half=not args.full_precision) / WEIGHTS
    size = path.stat().st_size / 1e6
    if args.plain_detectron2:
        print(f"{weights} ({size:.1f} MB) for plain Detectron2: {path.parent}; its config.yaml says how to load it")
    elif written == (CONFIG, WEIGHTS):
        source = args.postprocess or postprocess_beside(args.config_file) or "the configuration"
        print(f"{weights} ({size:.1f} MB), post-processing of {source}: {path.parent}")
    else:
        print(f"{path} ({size:.1f} MB): {how}; what it gives was compared with the network")
