"""Make a folder to hand on of a trained model: short configuration and safetensors."""

from __future__ import annotations

import argparse

from cellseg_d2.cli.common import make_parser

COMPARED = "; what it gives was compared with the network"
EXAMPLES = """\
  cellseg-d2 export-model --config-file output/mine/config.yaml --output models/mine
  cellseg-d2 export-model --config-file output/mine/config.yaml --weights output/mine/model_final.pth \\
      --postprocess tuned.yaml --output models/mine INPUT.ZOOM_TEST 1.35
  cellseg-d2 export-model --config-file output/mine/config.yaml --output models/mean \\
      --weights output/mine/model_final.pth output/longer/model_final.pth output/other_seed/model_final.pth
  cellseg-d2 export-model --config-file output/mine/config.yaml --output plain --plain-detectron2
  cellseg-d2 export-model --config-file output/mine/config.yaml --output traced --torchscript
  cellseg-d2 export-model --config-file output/mine/config.yaml --output maps --onnx
  cellseg-d2 export-model --config-file output/mine/config.yaml --output zoo --bioimageio \\
      --name "Cells in phase contrast" --author "Ada Lovelace" --license CC-BY-4.0
"""
# What can be written instead, and the help of the option of that name.
KINDS = {
    "plain-detectron2": (
        "write a config.yaml of Detectron2's own keys and model_final.pth instead, which give the same detections "
        "without this package; for networks of Detectron2's own parts"
    ),
    "torchscript": (
        "write model.ts instead, for programs with PyTorch and torchvision only: image in, boxes, classes, masks "
        "and scores out, compared with the network; without post-processing, for networks without a dense branch"
    ),
    "onnx": (
        "write model.onnx instead, for ONNX Runtime: image in, maps of the dense branch out (foreground, boundary, "
        "flow), compared with the network; for networks with a dense branch; needs the extra onnx"
    ),
    "bioimageio": (
        "write model.bioimageio.zip instead, a model of the BioImage Model Zoo that has passed its validator: the "
        "same maps by TorchScript, test data, cover, documentation; needs --name, --author, --license and the "
        "extra bioimageio"
    ),
}


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
        nargs="+",
        metavar="FILE",
        help="checkpoint (default: model_best.pth beside the config file, else model_final.pth); of several, left "
        "by runs from the same weights, their mean is written, often better than each, in no more time",
    )
    parser.add_argument(
        "--postprocess",
        metavar="YAML",
        help="other values for TEST.POSTPROCESS, such as those of cellseg-d2 tune-postprocess",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--full-precision", action="store_true", help="keep weights with 32 bits instead of 16")
    instead = parser.add_mutually_exclusive_group()
    for kind, text in KINDS.items():
        instead.add_argument(f"--{kind}", dest="kind", action="store_const", const=kind, help=text)
    about = parser.add_argument_group("of --bioimageio")
    about.add_argument("--name", help="the model's name, 5 to 128 characters")
    about.add_argument("--author", action="append", metavar="NAME", help="who made the model; once for each")
    about.add_argument("--license", metavar="SPDX", help="licence of the weights, such as CC-BY-4.0 or Apache-2.0")
    parser.add_settings()
    args = parser.parse_args(argv)
    if args.postprocess and args.kind:
        parser.error("--postprocess goes with models for this package: others have no such step")
    if len(args.weights or []) > 1 and args.kind:
        parser.error(
            f"--{args.kind} takes one file of --weights: export the mean of several first, and give its config.yaml"
        )
    given = (args.name, *(args.author or [None]), args.license)
    if args.kind == "bioimageio" and not all(word and word.strip() for word in given):
        parser.error("--bioimageio needs --name, --author and --license, which only the model's makers know")
    if any(given) and args.kind != "bioimageio":
        parser.error("--name, --author and --license go with --bioimageio")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from pathlib import Path

    from cellseg_d2.config import load_config, postprocess_beside
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs
    from cellseg_d2.weights.bioimageio import PACKAGE, Description, export_bioimageio
    from cellseg_d2.weights.model_folder import CONFIG, WEIGHTS, check_free, export_model
    from cellseg_d2.weights.onnx_model import ONNX, export_onnx
    from cellseg_d2.weights.plain_detectron2 import PLAIN_WEIGHTS, export_plain_detectron2
    from cellseg_d2.weights.torchscript import SCRIPT, export_torchscript
    from cellseg_d2.weights.weights import find_weights

    weights = [Path(file) for file in args.weights or [find_weights(args.config_file)]]
    written = {
        None: (CONFIG, WEIGHTS),
        "plain-detectron2": (CONFIG, PLAIN_WEIGHTS),
        "torchscript": (SCRIPT,),
        "onnx": (ONNX,),
        "bioimageio": (PACKAGE,),
    }[args.kind]
    check_outputs([Path(args.output) / name for name in written], [args.config_file, *weights, args.postprocess])
    if args.kind is None:
        check_free(args.output, WEIGHTS)
    cfg = load_config(args.config_file, args.opts, postprocess=args.postprocess)
    given = cfg, weights[0], args.output
    with claimed(args.output):
        if args.kind is None:
            folder = export_model(cfg, weights, args.output, half=not args.full_precision)
            source = args.postprocess or postprocess_beside(args.config_file) or "the configuration"
            what = weights[0] if len(weights) == 1 else f"the mean of {len(weights)} files of weights"
            words = f", post-processing of {source}: {folder}"
        elif args.kind == "plain-detectron2":
            folder = export_plain_detectron2(*given)
            what, words = weights[0], f" for plain Detectron2: {folder}; its config.yaml says how to load it"
        elif args.kind == "torchscript":
            what, words = export_torchscript(*given), ": torch.jit.load opens it after import torchvision"
        elif args.kind == "onnx":
            what, words = export_onnx(*given), ": image in, maps out"
        else:
            what = export_bioimageio(*given, Description(args.name, args.author, args.license))
            words = ": it passes the validator of bioimageio.spec"
    size = (Path(args.output) / written[-1]).stat().st_size / 1e6
    print(f"{what} ({size:.1f} MB){words}{COMPARED if len(written) == 1 else ''}")
