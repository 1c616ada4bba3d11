"""What the processes of the tests beside this do; functions that they can import."""

from __future__ import annotations

import multiprocessing.util
import os
import signal
from pathlib import Path

import torch

from cellseg_d2.errors import CellSegError

SHARED = "discs_train", "discs_val", "one_val"


def train_and_predict(config_file: Path, folder: Path, images: Path) -> list:
    """Train, evaluate on each data set, and segment files, all into ``folder``; returns what the processes agree on."""
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    from cellseg_d2.config import load_config
    from cellseg_d2.engine.setup import prepare_training
    from cellseg_d2.engine.trainer import CellTrainer
    from cellseg_d2.inference.batch import segment_files
    from cellseg_d2.inference.model import CellSegmenter

    torch.set_num_threads(1)
    # Nothing is left to chance, and every sum of losses has as many terms in each image: all candidates are taken, and
    # only the annotated boxes, of which each image has equally many, are near enough to one to count as found.
    everything = ["MODEL.RPN.BATCH_SIZE_PER_IMAGE", 10**6, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 10**4]
    everything += ["MODEL.RPN.POST_NMS_TOPK_TRAIN", 8, "MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.999]]
    plain = ["INPUT.AUGMENTATIONS", [], "DATALOADER.FILTER_EMPTY_ANNOTATIONS", True, "SOLVER.OPTIMIZER", "SGD"]
    steps = ["SOLVER.BASE_LR", 0.02, "SOLVER.MAX_ITER", 3, "SOLVER.IMS_PER_BATCH", 2, "TEST.EVAL_PERIOD", 0]
    scores = ["TEST.EVALUATORS", ["competition", "coco", "livecell"], "TEST.SAVE_DETECTIONS", True]
    cfg = load_config(config_file, ["OUTPUT_DIR", str(folder), "SEED", 1, *everything, *plain, *steps, *scores])
    cfg.DATASETS.TEST = SHARED[1:]
    cfg.TEST.POSTPROCESS.SCORE_THRESHOLDS = [0.3]
    cfg = prepare_training(cfg)
    seed_all_rng(1)
    trainer = CellTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    # The rest with one process's weights, which another number of processes meets only up to rounding.
    weights = Path(config_file).with_name("model.pth")
    scored = CellTrainer.test(cfg, _trained(cfg, weights))
    model = CellSegmenter.from_config(cfg, weights)
    result = segment_files(model, sorted(images.iterdir()), folder / "segmented", ["submission", "csv", "labels"])
    scored = scored if comm.is_main_process() else None
    return [comm.get_rank(), scored, result]


def _trained(cfg, weights: Path):
    from cellseg_d2.engine.trainer import CellTrainer
    from cellseg_d2.weights.weights import load_trained

    model = CellTrainer.build_model(cfg)
    load_trained(model, weights)
    return model


def share(folder: Path) -> int:
    """Leave a file of this process, and return something."""
    from detectron2.utils import comm

    (folder / f"rank{comm.get_rank()}").touch()
    comm.synchronize()
    return 40 + comm.get_rank()


def report_group(folder: Path) -> None:
    """Say at the end of each process whether it is still in a group."""

    def report(rank: int) -> None:
        (folder / f"rank{rank}").write_text(str(torch.distributed.is_initialized()))

    multiprocessing.util.Finalize(None, report, args=(torch.distributed.get_rank(),), exitpriority=0)


def fail() -> None:
    """The second process fails of something that a user can mend, while the first waits for it."""
    from detectron2.utils import comm

    if comm.get_rank() == 1:
        raise CellSegError("there is no such thing")
    comm.synchronize()


def die() -> None:
    """The second process is killed, while the first waits for it."""
    from detectron2.utils import comm

    if comm.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    comm.synchronize()
