"""Train or evaluate a network on cells, with Detectron2's options and launcher; see --help."""

from __future__ import annotations

import argparse

from cellseg_d2.cli.common import make_parser
from cellseg_d2.cli.numbers import count
from cellseg_d2.data.augmentations.registry import AUGMENTATION_REGISTRY
from cellseg_d2.evaluation.registry import EVALUATOR_REGISTRY
from cellseg_d2.registry import table

NOTES = f"""\
OUTPUT_DIR then holds model_best.pth (best score on DATASETS.TEST), model_final.pth, config.yaml and run.json (all that
is needed to repeat the run), losses.csv, curves.png, metrics.json, TensorBoard events, and inference/ with the score
and a submission for each dataset of DATASETS.TEST.

what INPUT.AUGMENTATIONS can name:
{table(AUGMENTATION_REGISTRY.summaries)}
what TEST.EVALUATORS can name:
{table(EVALUATOR_REGISTRY.summaries)}"""
EXAMPLES = """\
  cellseg-d2 train-net --config-file configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml
  cellseg-d2 train-net --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml --num-gpus 4 SOLVER.IMS_PER_BATCH 16
  cellseg-d2 train-net --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml --resume
  cellseg-d2 train-net --config-file output/mine/config.yaml --eval-only MODEL.WEIGHTS output/mine/model_best.pth
  cellseg-d2 train-net --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
"""


def setup(args: argparse.Namespace):
    """The configuration of this process, with logging and seeds set up, and the run folder claimed."""
    from detectron2.utils import comm

    from cellseg_d2.config import load_config
    from cellseg_d2.engine.setup import check_resumed, check_weights_stay, prepare_training, set_up_process
    from cellseg_d2.io.claim import claim

    cfg = prepare_training(load_config(args.config_file, args.opts, args.resume), train=not args.eval_only)
    cfg.SEED = comm.all_gather(cfg.SEED)[0]  # where it was drawn, each process has drawn its own
    cfg.freeze()
    if args.resume:
        check_resumed(cfg)
    elif not args.eval_only:
        check_weights_stay(cfg)
    if comm.is_main_process() and not args.eval_only:
        claim(cfg.OUTPUT_DIR)
    set_up_process(cfg, args)
    return cfg


def train(args: argparse.Namespace) -> dict | None:
    """What each process runs; the files that describe the run are written when nothing is left to be checked."""
    from cellseg_d2.data.categories import training_datasets
    from cellseg_d2.engine.console import tell_beginning, tell_end
    from cellseg_d2.engine.run_record import write_run_files
    from cellseg_d2.engine.trainer import CellTrainer

    cfg = setup(args)
    if args.eval_only:
        model = CellTrainer.build_trained(cfg, args.resume)
        write_run_files(cfg, cfg.DATASETS.TEST, "eval.json", keep_config=True)
        return CellTrainer.test(cfg, model)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    record = write_run_files(cfg, (*training_datasets(cfg), *cfg.DATASETS.TEST), "run.json")
    if record is not None:
        tell_beginning(cfg, record["datasets"], trainer.start_iter)
    results = trainer.train()
    if record is not None:
        tell_end(cfg, trainer.storage)
    return results


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    description = "Train a network on cells, resume a training, or evaluate one."
    parser = make_parser("train_net", description, EXAMPLES, NOTES)
    add = parser.add_argument
    add("--config-file", required=True, metavar="FILE", help="the configuration, for example one of configs/")
    add(
        "--resume",
        action="store_true",
        help="continue from the last checkpoint in OUTPUT_DIR, with the same results as an uninterrupted run; start "
        "if there is none",
    )
    add("--eval-only", action="store_true", help="score MODEL.WEIGHTS on DATASETS.TEST, without training")
    add("--num-gpus", type=count, default=1, metavar="N", help="GPUs of each machine (default: 1), or CPU processes")
    add("--num-machines", type=count, default=1, metavar="N", help="machines (default: 1)")
    add("--machine-rank", type=int, default=0, metavar="R", help="number of this machine, from 0")
    add("--dist-url", default="auto", metavar="URL", help="address for several machines: tcp://HOST:PORT of the first")
    parser.add_settings()
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)

    from cellseg_d2.engine.launcher import MACHINES, launch_work

    launch_work(train, (args,), **{name: getattr(args, name) for name in MACHINES})
