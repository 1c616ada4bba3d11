"""Train or evaluate a Mask R-CNN on cells, with Detectron2's options and launcher.

usage: python tools/train_net.py --config-file FILE [options] [KEY VALUE ...]

  --config-file FILE   the configuration, for example one of configs/
  --resume             go on from the last checkpoint in OUTPUT_DIR, as if the run had never been interrupted; where
                       there is none yet, begin
  --eval-only          score MODEL.WEIGHTS on DATASETS.TEST, without training
  --num-gpus N         GPUs of each machine (default 1; a machine without a GPU trains on its CPU)
  --num-machines N     machines (default 1)
  --machine-rank R     which of them this is, from 0
  --dist-url URL       where several machines meet: tcp://HOST:PORT of the first
  -h, --help           this text
  KEY VALUE ...        configuration options, for example SOLVER.BASE_LR 0.001 OUTPUT_DIR output/mine

OUTPUT_DIR then holds model_best.pth (best score on DATASETS.TEST), model_final.pth, config.yaml and run.json (all that
is needed to repeat the run), losses.csv, curves.png, metrics.json, TensorBoard events, and inference/ with the score
and a submission for each dataset of DATASETS.TEST.

examples:
  python tools/train_net.py --config-file configs/quickstart/mask_rcnn_R_18_FPN_GN.yaml
  python tools/train_net.py --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml --num-gpus 4 SOLVER.IMS_PER_BATCH 16
  python tools/train_net.py --config-file configs/sartorius/mask_rcnn_R_50_FPN.yaml --resume
  python tools/train_net.py --config-file output/mine/config.yaml --eval-only MODEL.WEIGHTS output/mine/model_best.pth
  python tools/train_net.py --config-file FILE --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST:PORT
"""

import argparse
import sys

from cellseg_d2.cli.common import as_called, quieten


def setup(args: argparse.Namespace):
    """The configuration of this process, with logging and seeds set up, and the run folder claimed."""
    from detectron2.utils import comm

    from cellseg_d2.config import load_config
    from cellseg_d2.engine.setup import check_resumed, check_weights_stay, prepare_training, set_up_process
    from cellseg_d2.io.claim import claim

    if not args.config_file:
        from cellseg_d2.errors import CellSegError

        raise CellSegError("--config-file is missing; configs/ holds configurations to begin with")
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


def train_or_evaluate(args: argparse.Namespace) -> dict | None:
    """What each process runs; the files that describe the run are written when nothing is left to be checked."""
    quieten()
    from cellseg_d2.engine.run_record import write_run_files
    from cellseg_d2.engine.setup import training_datasets
    from cellseg_d2.engine.trainer import CellTrainer

    cfg = setup(args)
    if args.eval_only:
        model = CellTrainer.build_trained(cfg, args.resume)
        write_run_files(cfg, cfg.DATASETS.TEST, "eval.json", keep_config=True)
        return CellTrainer.test(cfg, model)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    write_run_files(cfg, (*training_datasets(cfg), *cfg.DATASETS.TEST), "run.json")
    return trainer.train()


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if not argv or "-h" in argv or "--help" in argv:  # Detectron2's parser would first import PyTorch
        print(as_called(__doc__))
        return
    from detectron2.engine import default_argument_parser

    from cellseg_d2.engine.launcher import MACHINES, launch_work

    parser = default_argument_parser(epilog=as_called(__doc__))
    parser.prog = as_called("python tools/train_net.py")
    parser.set_defaults(dist_url="auto")
    args = parser.parse_args(argv)
    machines = {name: getattr(args, name) for name in MACHINES}
    launch_work(train_or_evaluate, (args,), **machines)
