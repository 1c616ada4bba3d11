"""Measurements of this project against stock Detectron2; see --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.common import make_parser

PARTS = ("rates", "targets", "round-trip", "outside", "waiting", "memory")
# Of the checkout; an installed package has no configs/.
MEMORY_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "sartorius" / "mask_rcnn_R_50_FPN.yaml"
EXAMPLES = """\
  python tools/benchmark.py data --csv train.csv --images train/ --images-limit 20
  python tools/benchmark.py data --json datasets/sartorius/instances_train.json --run output/quickstart \\
      --output benchmark.json
  python tools/benchmark.py data --json datasets/sartorius/instances_train.json --parts targets outside
  python tools/benchmark.py convert --csv train.csv
  python tools/benchmark.py models --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml configs/quickstart/*GN.yaml
  python tools/benchmark.py predict --output benchmark.json
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "benchmark", "Measurements of this project against stock Detectron2, both in the same run.", EXAMPLES
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    data = commands.add_parser(
        "data",
        help="training data: speed, size and quality of samples",
        description="Speed of the mappers with rotation by any angle, short side 1000 and flip; size of the targets; "
        "masks after a rotation and back; pixels from outside the image; time spent waiting for data; GPU memory. "
        "On an image with 800 cells the stock mapper takes 3 GB of memory and many seconds.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = data.add_argument_group("images (noise takes the place of missing files)")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--json", type=Path, metavar="FILE", help="instances_<part>.json of a converted dataset")
    source.add_argument("--csv", type=Path, metavar="FILE", help="the competition's train.csv, also gzipped")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder of images, for --csv")
    group.add_argument(
        "--images-limit", type=int, default=0, metavar="N", help="average over N random images (default: all)"
    )

    group = data.add_argument_group("measurements")
    group.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"some of: {' '.join(PARTS)}"
    )
    group.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="turns on the densest image (default: %(default)s)"
    )
    group.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of OpenCV and PyTorch (default: 1, as in a data worker)"
    )
    group.add_argument("--draws", type=int, default=200, metavar="N", help="rotations drawn (default: %(default)s)")
    group.add_argument("--run", nargs="+", default=[], metavar="DIR", help="training runs, for the time spent waiting")
    group.add_argument(
        "--memory-config",
        type=Path,
        default=MEMORY_CONFIG,
        metavar="FILE",
        help="model for the GPU memory, from scratch (default: configs/sartorius/mask_rcnn_R_50_FPN.yaml)",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of all random draws (default: %(default)s)")
    group = data.add_argument_group("output")
    group.add_argument("--output", type=Path, metavar="FILE", help="also write all figures as JSON")

    conversion = commands.add_parser("convert", help="conversion of run lengths, beside one float mask per row")
    conversion.add_argument("--csv", type=Path, required=True, metavar="FILE", help="train.csv, also gzipped")
    conversion.add_argument(
        "--images-limit", type=int, default=25, metavar="N", help="images for float masks (default: %(default)s)"
    )

    prediction = commands.add_parser(
        "predict",
        help="post-processing and run-lengths of one crowded image",
        description="From the detections of one image to run-lengths: this project; stock Detectron2's pasting with "
        "one pycocotools call a mask, overlaps left and removed; and full-size masks compared in pairs and read pixel "
        "by pixel. Times are medians, the ways in turn. The last way is measured on a few cells and scaled up.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    group = prediction.add_argument_group("image (simulated unless --detections is given)")
    group.add_argument("--cells", type=int, default=None, metavar="N", help="detections (default: 800, or all of FILE)")
    group.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of a simulated image (default: 520 704)"
    )
    group.add_argument("--detections", type=Path, metavar="FILE", help="detections.npz; its image with most of them")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="of the simulation (default: %(default)s)")
    group = prediction.add_argument_group("measurements")
    group.add_argument("--repeats", type=int, default=5, metavar="N", help="of all ways (default: %(default)s)")
    group.add_argument("--threads", type=int, default=1, metavar="N", help="of OpenCV and PyTorch (default: 1)")
    group.add_argument("--full", action="store_true", help="go the slow way with all cells: about a minute a repeat")
    group = prediction.add_argument_group("output")
    group.add_argument("--output", type=Path, metavar="FILE", help="also write all figures as JSON")

    models = commands.add_parser(
        "models",
        help="time and memory of training and prediction, by configuration",
        description="Time and memory of a training iteration and of a prediction of an image of 704 × 520, with\n"
        "random weights, for each configuration in processes of its own. On a GPU where there is one.",
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument("--config-file", type=Path, nargs="+", required=True, metavar="FILE", help="configurations")
    models.add_argument("--repeats", type=int, default=3, metavar="N", help="after a first one (default: %(default)s)")
    models.add_argument("--threads", type=int, default=1, metavar="N", help="of PyTorch (default: 1)")
    models.add_argument("--output", type=Path, metavar="FILE", help="also write all figures as JSON")
    models.add_argument("--opts", nargs="+", default=[], metavar="KEY VALUE", help="configuration options, for all")

    args = parser.parse_args(argv)
    if args.command == "models":
        if min(args.repeats, args.threads) < 1:
            models.error("--repeats and --threads must be at least 1")
        return args
    if args.command == "convert":
        return args
    if args.command == "predict":
        if args.size and args.detections:
            prediction.error("--size does not go with --detections")
        for name, least in (("cells", 1), ("repeats", 1), ("threads", 1), ("seed", 0)):
            if getattr(args, name) is not None and getattr(args, name) < least:
                prediction.error(f"--{name} must be at least {least}")
        if args.size and min(args.size) < 1:
            prediction.error("--size must be two numbers of at least 1")
        return args
    if args.images and not args.csv:
        data.error("--images only goes with --csv")
    for name, least in (("repeats", 1), ("threads", 1), ("draws", 1), ("images_limit", 0), ("seed", 0)):
        if getattr(args, name) < least:
            data.error(f"--{name.replace('_', '-')} must be at least {least}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.command == "convert":
        return benchmark_conversion(args)
    if args.command == "predict":
        return benchmark_prediction(args)
    if args.command == "models":
        return benchmark_models(args)

    import tempfile

    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        benchmark_data(args, Path(folder))


def benchmark_conversion(args: argparse.Namespace) -> None:
    from cellseg_d2.benchmarks.conversion import measure_conversion
    from cellseg_d2.benchmarks.report import conversion_table

    print(conversion_table(measure_conversion(args.csv, args.images_limit)))


def benchmark_prediction(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    import cv2
    import torch

    from cellseg_d2.benchmarks import prediction, report
    from cellseg_d2.benchmarks.prediction_ways import OURS
    from cellseg_d2.files import write_json_atomic

    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    if args.detections:
        name, detections = prediction.densest_detections(args.detections, args.cells)
        source = f"image {name} of {args.detections}"
    else:
        detections = prediction.simulated_detections(args.cells or 800, *(args.size or (520, 704)), args.seed)
        source = f"a simulated image, seed {args.seed}"
    height, width = detections.height, detections.width
    print(f"{len(detections)} detections on {height} × {width} pixels, {source}; median of {args.repeats}")
    costs = prediction.measure_ways(detections, args.repeats, args.full)
    print(report.prediction_table(costs))
    if any(cost.treated < cost.detections for cost in costs.values()):
        print("note: the way in loops was measured on a few cells and scaled up; --full goes it with all")
    if args.output:
        slower = {name: cost.times_slower_than(costs[OURS]) for name, cost in costs.items()}
        figures = {"source": source, "height": height, "width": width, "threads": args.threads, "slower": slower}
        figures["ways"] = {name: asdict(cost) for name, cost in costs.items()}
        write_json_atomic(args.output, figures, indent=1)
        print(f"\nwrote {args.output}")


def benchmark_models(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tqdm import tqdm

    from cellseg_d2.benchmarks.models import measure_model
    from cellseg_d2.benchmarks.report import models_table
    from cellseg_d2.files import write_json_atomic

    costs = {
        f"{path.parent.name}/{path.stem}": measure_model(path, args.opts, args.repeats, args.threads)
        for path in tqdm(args.config_file, desc="measuring", unit="model", leave=False)
    }
    print(models_table(costs))
    if args.output:
        write_json_atomic(args.output, {name: asdict(cost) for name, cost in costs.items()}, indent=1)
        print(f"\nwrote {args.output}")


def benchmark_data(args: argparse.Namespace, folder: Path) -> None:
    import warnings
    from dataclasses import asdict

    import cv2
    import torch

    from cellseg_d2.benchmarks import inputs, mappers, report, rotation, training
    from cellseg_d2.files import write_json_atomic

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # stock Detectron2's masks
    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    waiting = {name: training.measure_waiting(name) for name in args.run}  # a wrong path is told at once

    json_file = args.json or inputs.convert_csv(args.csv, args.images, folder / "converted")
    dataset = inputs.register_json(json_file)
    entries = inputs.annotated_entries(dataset)
    [dense], dense_missing = inputs.with_stand_ins([inputs.densest(entries)], folder)
    chosen, missing = inputs.with_stand_ins(inputs.some(entries, args.images_limit, args.seed), folder)
    cells = sum(len(entry["annotations"]) for entry in chosen) / len(chosen)
    print(
        f"{len(entries)} images with cells in {args.json or args.csv}; average over {len(chosen)} of them, {cells:.0f} "
        f"cells each; densest: {Path(dense['file_name']).stem}, {len(dense['annotations'])} cells"
    )
    if missing or dense_missing:
        densest = ", the densest one too" if dense_missing else ""
        print(f"note: {missing} of the {len(chosen)} have no image file{densest}; noise takes its place")
    results = {"source": str(args.json or args.csv), "images": len(chosen), "cells_each": cells}
    results |= {"densest_cells": len(dense["annotations"]), "stand_ins": missing, "threads": args.threads}

    def show(title: str, key: str, table: str, figures: dict) -> None:
        print(f"\n{title}\n{table}", flush=True)
        results[key] = {name: asdict(figure) for name, figure in figures.items()}

    if "rates" in args.parts:
        what = f"rotation, short side {mappers.SHORT_SIDE}, flip; {args.threads} thread(s)"
        for key, images, turns in (("densest", [dense], args.repeats), ("average", chosen, 1)):
            compared = mappers.compared_mappers(dense["height"], dense["width"])
            rates = mappers.measure_rates(compared, images, turns, key)
            how = f"the densest image, {turns} turns" if key == "densest" else f"{len(images)} images"
            show(f"Mapper on {how} ({what})", f"rates_{key}", report.rates_table(rates), rates)
            stock = rates[mappers.STOCK]
            gains = {name: rate.times_faster_than(stock) for name, rate in rates.items() if rate is not stock}
            results[f"faster_{key}"] = gains
    if "targets" in args.parts:
        sizes = mappers.measure_targets(dense)
        show("Targets of the densest image, short side 1000", "targets", report.targets_table(sizes), sizes)
    if "round-trip" in args.parts:
        trips = rotation.measure_round_trips(chosen, args.seed)
        show("Masks rotated by a random angle and back", "round_trip", report.round_trips_table(trips), trips)
    if "outside" in args.parts:
        outside = rotation.measure_outside(rotation.rotations(), chosen, args.draws, args.seed)
        show("Rotated samples and what is outside the image", "outside", report.outside_table(outside), outside)
    if waiting:
        show("Waiting for data in training", "waiting", report.waiting_table(waiting), waiting)
    elif "waiting" in args.parts:
        print("\nTime spent waiting for data was not measured: name training runs with --run")
    if "memory" in args.parts:
        if args.memory_config == MEMORY_CONFIG and not MEMORY_CONFIG.is_file():
            print("\nGPU memory was not measured: there is no configs/ here, name a file with --memory-config")
        elif torch.cuda.is_available():
            memory = training.measure_memory(memory_config(args.memory_config, dataset), dense)
            title = f"Memory of training on the densest image ({torch.cuda.get_device_name()})"
            show(title, "memory", report.memory_table(memory), memory)
        else:
            print("\nGPU memory was not measured: PyTorch finds no CUDA GPU")
    if args.output:
        write_json_atomic(args.output, results, indent=1)
        print(f"\nwrote {args.output}")


def memory_config(config_file: Path, dataset: str):
    from detectron2.data import MetadataCatalog

    from cellseg_d2.config import load_config

    classes = str(len(MetadataCatalog.get(dataset).thing_classes))
    scratch = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0"]
    return load_config(config_file, [*scratch, "MODEL.ROI_HEADS.NUM_CLASSES", classes, "MODEL.DEVICE", "cuda"])
