"""Train all folds of a dataset and report mean ± spread of the score; see --help."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cellseg_d2.cli.common import command_line, make_parser
from cellseg_d2.cli.numbers import count
from cellseg_d2.processes import own_command
from cellseg_d2.registry import IMPORTED

TRAIN_NET = own_command("train-net")
WRITTEN = ("oof.csv", "summary.json", "summary.md")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(
        "cross_validate",
        "Train the folds of a dataset one after another, each in its own process and in OUTPUT_DIR/fold<k>, and score "
        "each on the images that it was not trained on, with the weights at the end of its training (the best\n"
        "of several checkpoints would be chosen on the very images that are scored). OUTPUT_DIR then also holds\n"
        "oof.csv, the out-of-fold predictions of all images as one submission, summary.json, and summary.md with a\n"
        "row for a table of results. A fold that fails does not stop the others; the exit code is then 1.",
        "  cellseg-d2 convert-to-coco --csv train.csv --images train/ --folds 5 --output datasets/sartorius\n"
        "  cellseg-d2 cross-validate --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml \\\n"
        "      --dataset sartorius --folds 5 --score-exclude 1e55de6c2a34 OUTPUT_DIR output/r50_cv\n"
        "  cellseg-d2 cross-validate --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml \\\n"
        "      --dataset sartorius --folds 5 --only-folds 0 2 --resume OUTPUT_DIR output/r50_cv",
    )
    group = parser.add_argument_group("training")
    group.add_argument("--config-file", type=Path, required=True, metavar="F", help="for example one of configs/")
    group.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="converted with --folds K to a folder NAME: NAME_fold0_train, NAME_fold0_val …",
    )
    group.add_argument("--folds", type=int, required=True, metavar="K", help="number of folds")
    group.add_argument(
        "--only-folds", type=int, nargs="+", metavar="k", help="train only these, counted from 0 (default: all)"
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="skip finished folds of OUTPUT_DIR, continue others from their last checkpoint",
    )
    group.add_argument("--num-gpus", type=count, default=1, metavar="N", help="for each fold (default: %(default)s)")
    group = parser.add_argument_group("score (of all finished folds in OUTPUT_DIR)")
    group.add_argument(
        "--score-exclude", nargs="+", default=[], metavar="ID", help="images that are trained on but not scored"
    )
    group.add_argument("--name", metavar="TEXT", help="name in the row of results (default: name of the configuration)")
    parser.add_settings()
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv)
    args.command = command_line("cross_validate", argv)
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)

    import signal

    from cellseg_d2.config import load_config
    from cellseg_d2.cross_validation.cross_validation import plan, prepare_output
    from cellseg_d2.cross_validation.fold_summary import check_excluded
    from cellseg_d2.errors import CellSegError
    from cellseg_d2.io.claim import claimed
    from cellseg_d2.io.outputs import check_outputs

    # As for Ctrl-C: the fold that is being trained must not go on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cfg = load_config(args.config_file, args.opts)
    check_outputs([Path(cfg.OUTPUT_DIR) / name for name in WRITTEN], [args.config_file])
    validation = plan(cfg, args.dataset, args.folds)
    check_excluded(validation, args.score_exclude)
    wanted = range(args.folds) if args.only_folds is None else sorted(set(args.only_folds))
    if not set(wanted) <= set(range(args.folds)):
        raise CellSegError(f"--only-folds must be from 0 to {args.folds - 1}")
    chosen = [validation.folds[k] for k in wanted]
    with claimed(validation.output):
        prepare_output(validation, chosen, args.resume)
        failed = train(args, chosen)
        said = summarize(args, validation, failed)
    print(said, end="")
    if failed:
        numbers = ", ".join(map(str, failed))
        print(f"error: failed: fold {numbers}; repair it and run again with --resume", file=sys.stderr)
    return 1 if failed else 0


def train(args: argparse.Namespace, chosen: list) -> dict[int, str]:
    """Train the folds; returns why those failed that did."""
    from cellseg_d2.cross_validation.cross_validation import train_fold

    failed = {}
    for fold in chosen:
        if fold.finished:
            print(f"fold {fold.index}: finished before", flush=True)
            continue
        print(f"fold {fold.index}: training, see {fold.folder / 'console.log'}", flush=True)
        program = [*TRAIN_NET, *(f"--import={name}" for name in IMPORTED)]
        attempt = train_fold(fold, args.config_file, args.opts, program, num_gpus=args.num_gpus)
        if not fold.finished:
            failed[fold.index] = reason = attempt.reason or f"it left no {fold.submission}"
            print(f"error: fold {fold.index} failed after {attempt.seconds:.0f} s: {reason}", file=sys.stderr)
        else:
            peak = attempt.peak_memory_mib
            memory = "" if peak is None else f", peak memory {peak / 1024:.1f} GiB"
            print(f"fold {fold.index}: done in {attempt.seconds:.0f} s{memory}", flush=True)
    return failed


def summarize(args: argparse.Namespace, validation, failed: dict[int, str]) -> str:
    """Write the files about all finished folds; returns what to print about them."""
    from cellseg_d2.cross_validation.fold_summary import summarize_folds
    from cellseg_d2.io.atomic import atomic_set, write_json_atomic, write_text_atomic

    if not any(fold.finished for fold in validation.folds):
        return ""
    oof, summary_json, summary_text = (validation.output / name for name in WRITTEN)
    with atomic_set():
        summary = summarize_folds(validation, oof, args.score_exclude)
        row = summary.markdown(args.name or args.config_file.stem, args.command)
        report = {"command": args.command, "config_file": str(args.config_file), "failed": failed, **summary.to_dict()}
        write_json_atomic(summary_json, report, indent=1)
        write_text_atomic(summary_text, row + "\n")
    return f"\n{summary.table()}\n\n{row}\n\nwrote {', '.join(WRITTEN)} to {validation.output}\n"
