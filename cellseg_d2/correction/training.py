"""From annotated images to a model that has learnt from them, and a score before and after.

A training is a folder ``runs/NNNN`` of the project::

    plan.json        what was chosen
    datasets/        the images' annotations as COCO JSON
    training.yaml    the configuration
    part0/ …         trainings that are scored on images that they were not trained on
    final/           the training of the model on all images, where there are several parts
    result.json      scores before and after, thresholds, minutes

Each training is Detectron2's, by ``cellseg-d2 train-net`` in a process of its own, and goes on where it was when the
same is asked for again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from detectron2.config import CfgNode

from cellseg_d2.config import default_config, load_config, merge_config_file
from cellseg_d2.correction.plan import Plan, make_plan
from cellseg_d2.correction.project import CATEGORY, Project, next_number
from cellseg_d2.cross_validation.fold_process import run_training
from cellseg_d2.datasets.coco_json import category_ids, encode_record, relative_root, write_coco_files
from cellseg_d2.datasets.records import ImageRecord
from cellseg_d2.detections.saved import FILE_NAME as DETECTIONS
from cellseg_d2.detections.saved import load_many
from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.model import CellSegmenter
from cellseg_d2.inference.segmentation import Segmentation
from cellseg_d2.io.atomic import atomic_path, atomic_set, write_json_atomic, write_text_atomic
from cellseg_d2.io.progress import track
from cellseg_d2.io.text import read_json
from cellseg_d2.masks.crop import crop_to_coco
from cellseg_d2.masks.ignore import judged
from cellseg_d2.metrics.competition import score_image
from cellseg_d2.postprocess.params import PostprocessParams
from cellseg_d2.postprocess.tuning import space_of, tune
from cellseg_d2.postprocess.tuning_image import make_trials
from cellseg_d2.predictions.truth import read_truth
from cellseg_d2.processes import own_command
from cellseg_d2.weights.model_folder import CONFIG, WEIGHTS, export_model, find_model, prediction_settings
from cellseg_d2.weights.weights import find_weights

OVERLAY = "correction/training"
DATASET = "corrected"
# What is fitted to images that were not trained on. All else would be fitted to a few images by heart.
_TUNED = ("score_thresholds", "min_areas")
_TUNED_FROM = 4  # images


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a training.

    Attributes:
        folder: of the run.
        model: the folder of the new model.
        before, after: score of each image that was held out, by name; both empty where none was.
        params: how detections of the new model become cells.
        minutes: that all of it took, this time.
    """

    folder: Path
    model: Path
    before: dict[str, float]
    after: dict[str, float]
    params: PostprocessParams
    minutes: float

    def sentences(self) -> list[str]:
        """The scores, for people."""
        if not self.after:
            return ["no image was held out, so no score is known"]
        before, after = (sum(own.values()) / len(own) for own in (self.before, self.after))
        return [
            f"score of {len(self.after)} images that were not trained on: {before:.3f} before, {after:.3f} after",
            *([] if after > before else ["the new model is no better than the one before on these images"]),
        ]


class Data:
    """Annotated images to train on.

    Args:
        records: all of them.
        root: the folder to which their files are relative.
    """

    def __init__(self, records: Sequence[ImageRecord], root: Path):
        self.records, self.root = list(records), root

    def write(self, folder: Path, parts: Mapping[str, Iterable[str]]) -> None:
        """Write ``instances_<part>.json`` with the images of each part, by name."""
        numbers = category_ids([CATEGORY])
        encoded = {r.id: encode_record(_of_one_category(r), i, numbers) for i, r in enumerate(self.records, start=1)}
        info = {"description": "corrected cells", "image_root": relative_root(self.root, folder)}
        files = {
            folder / f"instances_{part}.json": ([encoded[name] for name in names], info)
            for part, names in parts.items()
        }
        write_coco_files(files, [CATEGORY])


def _of_one_category(record: ImageRecord) -> ImageRecord:
    return replace(record, cells=[replace(cell, cell_type=CATEGORY) for cell in record.cells])


def plan_training(
    data: Data, model: str, *, iterations: int | None = None, folds: int | None = None, seed: int = 0
) -> Plan:
    """Choose a training of a model on annotated images; see :func:`cellseg_d2.correction.plan.make_plan`.

    Args:
        data: the images.
        model: see :func:`cellseg_d2.weights.model_folder.find_model`.
        iterations, folds, seed: see there.

    Raises:
        CellSegError: there is nothing to learn, or the model does not tell which cells it knows.
    """
    cfg = load_config(find_model(model) / CONFIG)
    known = cfg.INPUT.CELL_DIAMETER * cfg.INPUT.ZOOM_TEST
    if not known:
        raise CellSegError(
            f"the model {model} does not tell the size of the cells that it knows: set INPUT.CELL_DIAMETER (pixels) "
            "and INPUT.ZOOM_TEST in its config.yaml"
        )
    return make_plan(data.records, known, iterations=iterations, folds=folds, seed=seed)


def configure(model: str, plan: Plan) -> CfgNode:
    """The configuration of a training that goes on from a model: of the model's own, only what prediction reads, and
    nothing of the data, the length and the rest of the training that it came from.
    """
    folder = find_model(model)
    source, cfg = load_config(folder / CONFIG), default_config()
    zoomed = source.INPUT.ZOOM_TEST * source.INPUT.CELL_DIAMETER
    cfg.merge_from_other_cfg(CfgNode(prediction_settings(source)))
    merge_config_file(cfg, OVERLAY)
    cfg.MODEL.DEVICE = source.MODEL.DEVICE
    cfg.MODEL.WEIGHTS = str(find_weights(folder / CONFIG).resolve())
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.MODEL.CLASS_NAMES = [CATEGORY]
    if len(cfg.MODEL.DENSE.CLASS_FUSION_WEIGHTS) > 1:
        cfg.MODEL.DENSE.CLASS_FUSION_WEIGHTS = []
    cfg.INPUT.ROTATE_ZOOM_CROP.ZOOM = list(plan.zoom)
    cfg.SOLVER.MAX_ITER = plan.iterations
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, plan.iterations // 4)
    cfg.SEED = plan.seed + 1
    params = PostprocessParams.from_config(cfg)
    one_class = {name: (getattr(params, name)[0],) for name in ("score_thresholds", "mask_thresholds")}
    # What is annotated is neither too small for a cell nor doubtful for its size.
    areas = {name: (min(*getattr(params, name), plan.smallest),) for name in ("min_areas", "doubtful_areas")}
    beside = {"mask_offset": (0.0, 0.0)}  # how other annotations lie beside their cells says nothing of these
    cfg.TEST.POSTPROCESS.update(replace(params, **one_class, **areas, **beside, min_area_share=0.0).to_config())
    if plan.one_size is not None:
        cfg.INPUT.CELL_DIAMETER = round(plan.one_size, 1)
        cfg.INPUT.ZOOM_TEST = round(zoomed / cfg.INPUT.CELL_DIAMETER, 3)
        cfg.TEST.SCALES, cfg.TEST.SCALE_NEIGHBORS = [1.0], 0
    cfg.TEST.SAVE_DETECTIONS = True
    return cfg


def train(
    project: str | Path,
    data: Data,
    model: str,
    plan: Plan,
    *,
    on_stage: Callable[[str], None] = lambda said: None,
    progress: bool = True,
) -> Outcome:
    """Train a model, score it beside the one before, and make it the model of the project.

    Args:
        project: the folder of the project. The model before stays in ``models``.
        data: the annotated images.
        model: that is trained on.
        plan: of :func:`plan_training`.
        on_stage: told what is done next.
        progress: whether a bar is shown while the model before is scored.

    Raises:
        CellSegError: a training failed; what it said is in its ``console.log``.
    """
    project, began = Path(project), time.perf_counter()
    run = _run_folder(project / "runs", {"plan": asdict(plan), "model": _digest(model), "data": _fingerprint(data)})
    sets = {f"part{i}_{name}": getattr(part, name) for i, part in enumerate(plan.parts) for name in ("train", "val")}
    sets["all"] = tuple(record.id for record in data.records)
    data.write(run / "datasets" / DATASET, sets)
    cfg = configure(model, plan)
    write_text_atomic(run / "training.yaml", cfg.dump())

    before = {}
    held_out = [name for part in plan.parts for name in part.val]
    if held_out:
        on_stage(f"scoring the model as it is on {len(held_out)} images")
        before = _score(data, model, held_out, run / "before.json", progress)
    detections = []
    for number, part in enumerate(plan.parts):
        name = f"part{number}"
        what = f"training {number + 1} of {len(plan.parts) + plan.cross_validated}"
        on_stage(f"{what}: {len(part.train)} images, scored on {len(part.val)} others")
        _train(run, name, (f"{DATASET}_{name}_train",), (f"{DATASET}_{name}_val",))
        detections.append(run / name / "inference" / f"{DATASET}_{name}_val" / DETECTIONS)
    params, after = PostprocessParams.from_config(cfg), {}
    if detections:
        on_stage("choosing thresholds on images that were not trained on")
        params, after = _choose_params(detections, run / "datasets" / DATASET / "instances_all.json", params)
    final = "part0"
    if plan.cross_validated:
        final = "final"
        on_stage(f"training the model on all {len(data.records)} images")
        _train(run, final, (f"{DATASET}_all",), ())

    cfg.TEST.POSTPROCESS.update(params.to_config())
    cfg.TEST.SAVE_DETECTIONS = False
    place, first = project / "models" / run.name, project / "models" / "0000"
    if (project / CONFIG).is_file() and not first.parent.exists():  # a model of other origin
        for name in (CONFIG, WEIGHTS):
            with atomic_path(first / name) as temporary:
                shutil.copyfile(project / name, temporary)
    with atomic_set():
        for folder in (place, project):
            export_model(cfg, run / final / "model_final.pth", folder)
        minutes = (time.perf_counter() - began) / 60
        scores = {"before": before, "after": after, "minutes": round(minutes, 2), "model": str(model)}
        write_json_atomic(run / "result.json", scores | {"postprocess": params.to_config()}, indent=1)
    return Outcome(run, place, before, after, params, minutes)


def correction_data(project: Project) -> Data:
    """What a project has to train on."""
    return Data(project.records(), project.folder / "images")


def _run_folder(runs: Path, content: dict) -> Path:
    """A new run, or the last one if it was not finished and was the same."""
    number = next_number(runs)
    last = runs / f"{number - 1:04d}"
    content = json.loads(json.dumps(content))
    if (
        not (last / "result.json").exists()
        and (last / "plan.json").is_file()
        and read_json(last / "plan.json") == content
    ):
        return last
    folder = runs / f"{number:04d}"
    write_json_atomic(folder / "plan.json", content, indent=1)
    return folder


def _digest(model: str) -> str:
    folder = find_model(model)
    return sha256((folder / CONFIG).read_bytes() + find_weights(folder / CONFIG).read_bytes()).hexdigest()


def _fingerprint(data: Data) -> str:
    digest = sha256()
    for record in data.records:
        encoded = encode_record(_of_one_category(record), 1, category_ids([CATEGORY]))
        digest.update(repr((record.id, encoded)).encode())
    return digest.hexdigest()


def _score(data: Data, model: str, names: Iterable[str], path: Path, progress: bool) -> dict[str, float]:
    """The score of each image with the model as it is; remembered in ``path``."""
    if path.is_file():
        return read_json(path)
    segmenter, scores = CellSegmenter.from_pretrained(model), {}
    records = {record.id: record for record in data.records}
    for name in track(list(names), "scoring", shown=progress):
        scores[name] = score_of(segmenter.segment(data.root / records[name].file_name), records[name])
    write_json_atomic(path, scores, indent=1)
    return scores


def score_of(found: Segmentation, record: ImageRecord) -> float:
    """The competition score of the cells found in an image; those where nobody annotated are not judged."""
    height, width = record.height, record.width
    predicted = [crop_to_coco(crop, height, width) for crop in found.crops]
    ignore = None if record.ignore is None else crop_to_coco(record.ignore, height, width)
    true = [crop_to_coco(cell.crop, height, width) for cell in record.cells]
    return score_image([predicted[i] for i in judged(predicted, ignore)], true).score


def _train(run: Path, name: str, train: Sequence[str], test: Sequence[str]) -> None:
    """One training in a process of its own; one that is finished is not repeated."""
    folder = run / name
    if (folder / "model_final.pth").is_file() and all((folder / "inference" / t / DETECTIONS).is_file() for t in test):
        return
    options = {"OUTPUT_DIR": str(folder), "DATASETS.TRAIN": repr(tuple(train)), "DATASETS.TEST": repr(tuple(test))}
    words = [*own_command("train-net"), "--config-file", str(run / "training.yaml"), "--resume"]
    words += [word for item in options.items() for word in item]
    attempt = run_training(words, folder, name, environment={"DETECTRON2_DATASETS": str(run / "datasets")})
    if attempt.exit_code:
        raise CellSegError(f"the training failed ({attempt.reason}); see {folder / 'console.log'}")


def _choose_params(
    detections: Sequence[Path], truth_file: Path, start: PostprocessParams
) -> tuple[PostprocessParams, dict[str, float]]:
    """Thresholds, and the score of each image with those that were found without it."""
    raw, truth = load_many(detections), read_truth(truth_file)
    trials = make_trials(raw.images, truth, raw.images)
    if len(trials) < _TUNED_FROM:
        return start, {name: trial.score(start) for name, trial in trials.items()}
    result = tune(trials, 1, start=start, space=space_of(_TUNED), folds=min(5, len(trials)))
    if result.held_out.mean() <= result.default.mean():
        return start, dict(zip(result.names, result.default.tolist(), strict=True))
    return result.params, dict(zip(result.names, result.held_out.tolist(), strict=True))
