"""Measurements of this project against stock Detectron2; see --help."""

from __future__ import annotations

import argparse
from pathlib import Path

from cellseg_d2.cli.benchmark_options import parse_args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.io.atomic import check_files_writable
    from cellseg_d2.io.outputs import check_outputs

    measure = {
        "data": benchmark_data,
        "convert": benchmark_conversion,
        "predict": benchmark_prediction,
        "models": benchmark_models,
        "mosaic": benchmark_mosaic,
        "corrections": benchmark_corrections,
    }
    output = getattr(args, "output", None)
    check_outputs([output], read_files(args))
    check_files_writable([output])
    measure[args.command](args)
    if output:
        print(f"\nwrote {output}")


def read_files(args: argparse.Namespace) -> list[Path | None]:
    """The files that the options of any of the commands name."""
    names = ("csv", "json", "detections", "memory_config", "config_file")
    values = [getattr(args, name, None) for name in names]
    return [path for value in values for path in (value if isinstance(value, list) else [value])]


def write_figures(args: argparse.Namespace, figures: object) -> None:
    """Write what was measured as JSON, if that is asked for."""
    from cellseg_d2.io.atomic import write_json_atomic

    if args.output:
        write_json_atomic(args.output, figures, indent=1)


def benchmark_conversion(args: argparse.Namespace) -> None:
    from cellseg_d2.benchmarks.conversion import measure_conversion
    from cellseg_d2.benchmarks.tables import conversion_table

    print(conversion_table(measure_conversion(args.csv, args.images_limit)))


def benchmark_prediction(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    import cv2
    import torch

    from cellseg_d2.benchmarks import prediction, tables
    from cellseg_d2.benchmarks.prediction_ways import OURS

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
    slower = {name: cost.times_slower_than(costs[OURS]) for name, cost in costs.items()}
    figures = {"source": source, "height": height, "width": width, "threads": args.threads, "slower": slower}
    write_figures(args, figures | {"ways": {name: asdict(cost) for name, cost in costs.items()}})
    print(tables.prediction_table(costs))
    if any(cost.treated < cost.detections for cost in costs.values()):
        print("note: the way in loops was measured on a few cells and scaled up; --full goes it with all")


def benchmark_models(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from cellseg_d2.benchmarks.models import measure_model
    from cellseg_d2.benchmarks.tables import models_table
    from cellseg_d2.config import load_config
    from cellseg_d2.io.progress import track

    for path in args.config_file:  # a wrong one is told at once, not after others were measured
        load_config(path, args.opts)
    costs = {}
    for path in track(args.config_file, "measuring", "model"):
        costs[f"{path.parent.name}/{path.stem}"] = measure_model(path, args.opts, args.repeats, args.threads)
        # After each, as large models take their time on a CPU.
        write_figures(args, {name: asdict(cost) for name, cost in costs.items()})
    print(models_table(costs))


def benchmark_mosaic(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from cellseg_d2.benchmarks.mosaic import measure_mosaic
    from cellseg_d2.benchmarks.tables import mosaic_table
    from cellseg_d2.io.progress import track

    costs = [measure_mosaic(side, args.seed) for side in track(args.sides, "measuring")]
    write_figures(args, [asdict(cost) for cost in costs])
    print(mosaic_table(costs))


def benchmark_corrections(args: argparse.Namespace) -> None:
    from dataclasses import asdict

    from tabulate import tabulate

    from cellseg_d2.benchmarks.corrections import ORDERS, run_loop
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.io.atomic import write_json_atomic
    from cellseg_d2.io.claim import claimed

    if args.folder.exists() and any(args.folder.iterdir()):
        raise CellSegError(f"{args.folder} holds other files: name a new folder")
    orders, done = args.orders or ORDERS, []
    options = {"held_out": args.held_out, "steps": sorted(set(args.steps)), "orders": orders, "model": args.model}
    with claimed(args.folder):
        loop = run_loop(args.json, args.folder, **options, iterations=args.iterations, seed=args.seed, on_stage=print)
        for step in loop:
            done.append(asdict(step))
            write_json_atomic(args.folder / "steps.json", done, indent=1)
    print(tabulate(done, headers="keys", floatfmt=("", "", ".3f", ".1f")))


def benchmark_data(args: argparse.Namespace) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="benchmark") as folder:
        benchmark_data_in(args, Path(folder))


def benchmark_data_in(args: argparse.Namespace, folder: Path) -> None:
    """With a folder for what is converted, and for images that take the place of missing ones."""
    import warnings
    from dataclasses import asdict

    import cv2
    import torch

    from cellseg_d2.benchmarks import inputs, mappers, rotation, tables, training
    from cellseg_d2.data.catalog import register_json

    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # stock Detectron2's masks
    cv2.setNumThreads(args.threads)
    torch.set_num_threads(args.threads)
    waiting = {name: training.measure_waiting(name) for name in args.run}  # a wrong path is told at once

    json_file = args.json or inputs.convert_csv(args.csv, args.images, folder / "converted")
    dataset = register_json(json_file)
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
            show(f"Mapper on {how} ({what})", f"rates_{key}", tables.rates_table(rates), rates)
            stock = rates[mappers.STOCK]
            gains = {name: rate.times_faster_than(stock) for name, rate in rates.items() if rate is not stock}
            results[f"faster_{key}"] = gains
    if "targets" in args.parts:
        sizes = mappers.measure_targets(dense)
        show("Targets of the densest image, short side 1000", "targets", tables.targets_table(sizes), sizes)
    if "round-trip" in args.parts:
        trips = rotation.measure_round_trips(chosen, args.seed)
        show("Masks rotated by a random angle and back", "round_trip", tables.round_trips_table(trips), trips)
    if "outside" in args.parts:
        outside = rotation.measure_outside(rotation.rotations(), chosen, args.draws, args.seed)
        show("Rotated samples and what is outside the image", "outside", tables.outside_table(outside), outside)
    if waiting:
        show("Waiting for data in training", "waiting", tables.waiting_table(waiting), waiting)
    elif "waiting" in args.parts:
        print("\nTime spent waiting for data was not measured: name training runs with --run")
    if "memory" in args.parts:
        if torch.cuda.is_available():
            memory = training.measure_memory(memory_config(args.memory_config, dataset), dense)
            title = f"Memory of training on the densest image ({torch.cuda.get_device_name()})"
            show(title, "memory", tables.memory_table(memory), memory)
        else:
            print("\nGPU memory was not measured: PyTorch finds no CUDA GPU")
    write_figures(args, results)


def memory_config(config_file: Path, dataset: str):
    from detectron2.data import MetadataCatalog

    from cellseg_d2.config import load_config

    classes = str(len(MetadataCatalog.get(dataset).thing_classes))
    scratch = ["MODEL.WEIGHTS", "", "MODEL.RESNETS.NORM", "GN", "MODEL.BACKBONE.FREEZE_AT", "0"]
    return load_config(config_file, [*scratch, "MODEL.ROI_HEADS.NUM_CLASSES", classes, "MODEL.DEVICE", "cuda"])
