"""Train the folds of a dataset one after another, each in its own process.

The process frees its memory when its fold is done, and a crash does not affect the other folds. The predictions for the
images that a fold was not trained on are collected by :mod:`cellseg_d2.cross_validation.fold_summary`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from cellseg_d2.cross_validation.fold_process import Attempt, run_training
from cellseg_d2.data.catalog import require_datasets
from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.datasets.names import key_of
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import write_json_atomic
from cellseg_d2.io.settings import differences, flat

SETTINGS = "cross_validation.json"
# Keys that differ between the folds, or that do not change what is learnt.
FREE_KEYS = {"OUTPUT_DIR", "DATASETS.TRAIN", "DATASETS.TEST", "SEED", "MODEL.DEVICE", "SOLVER.AMP.ENABLED"}
FREE_KEYS |= {"DATALOADER.NUM_WORKERS", "DATALOADER.CACHE_MB", "VIS_PERIOD"}


@dataclass(frozen=True)
class Fold:
    """One fold of a dataset and the folder of its run.

    Attributes:
        index: from 0.
        train, val: names of the registered datasets.
        folder: the run's OUTPUT_DIR.
        names: of the images of ``val``: what no other of the dataset is called, by the name in the fold's own files.
            They only differ where two folds have images of one name, in different folders.
    """

    index: int
    train: str
    val: str
    folder: Path
    names: Mapping[str, str] = field(repr=False)

    @property
    def images(self) -> frozenset[str]:
        """Names of the images of ``val``, unique in the dataset."""
        return frozenset(self.names.values())

    @property
    def submission(self) -> Path:
        """The submission with the trained fold's predictions for ``val``."""
        return self.folder / "inference" / self.val / "submission.csv"

    @property
    def attempts(self) -> list[Attempt]:
        """The processes that have trained the fold so far, in order."""
        try:
            record = json.loads((self.folder / "fold.json").read_text(encoding="utf-8"))
            return [Attempt(**attempt) for attempt in record["attempts"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CellSegError(
                f"{self.folder / 'fold.json'} cannot be read ({type(error).__name__}: {error}); "
                f"delete {self.folder} to train this fold again"
            ) from None

    @property
    def finished(self) -> bool:
        """Whether the fold was trained to its end and its predictions are there."""
        attempts = self.attempts
        return bool(attempts) and attempts[-1].exit_code == 0 and self.submission.is_file()

    def record(self, attempt: Attempt) -> None:
        """Add an attempt to ``fold.json``."""
        attempts = [*self.attempts, attempt]
        write_json_atomic(
            self.folder / "fold.json", {"fold": self.index, "attempts": [asdict(a) for a in attempts]}, indent=1
        )


@dataclass(frozen=True)
class CrossValidation:
    """The folds of a dataset, made by :func:`plan`.

    Attributes:
        dataset: name of the converted folder.
        output: folder of the folds' folders.
        folds: all of them, in order.
        settings: what must be the same for all folds: the flat configuration and the datasets' SHA-256.
    """

    dataset: str
    output: Path
    folds: list[Fold]
    settings: dict = field(repr=False)

    @property
    def images(self) -> frozenset[str]:
        """Names of all images that the folds validate."""
        return frozenset().union(*(fold.images for fold in self.folds))


def plan(cfg: CfgNode, dataset: str, count: int) -> CrossValidation:
    """Find and check the folds ``<dataset>_fold<k>_{train,val}`` that ``cellseg-d2 convert-to-coco --folds`` made.

    Args:
        cfg: result of :func:`cellseg_d2.config.load_config`; fold k is trained in ``OUTPUT_DIR/fold<k>``.
        dataset: name of the converted folder.
        count: number of folds.

    Raises:
        CellSegError: a fold is missing, two folds do not fit together, or the predictions would not be kept.
    """
    if count < 2:
        raise CellSegError(f"cross-validation needs at least 2 folds, not {count}")
    if "competition" not in cfg.TEST.EVALUATORS:
        raise CellSegError(
            f"TEST.EVALUATORS is {list(cfg.TEST.EVALUATORS)}, but out-of-fold predictions come from the evaluator "
            "'competition': add it"
        )
    output = Path(cfg.OUTPUT_DIR)
    names = [(f"{dataset}_fold{k}_train", f"{dataset}_fold{k}_val") for k in range(count)]
    require_datasets([name for pair in names for name in pair])
    folds = []
    trained: set[str] = set()
    validated: dict[str, int] = {}
    known, hashes = _names_of([name for pair in names for name in pair], [val for _, val in names])
    for k, (train, val) in enumerate(names):
        images, others = (set(known[name].values()) for name in (val, train))
        if both := sorted(images & others):
            raise CellSegError(f"image {both[0]} is in {train} and in {val}: the score would say nothing")
        if twice := sorted(images & validated.keys()):
            raise CellSegError(
                f"image {twice[0]} is validated in the folds {validated[twice[0]]} and {k} of {dataset}: they are not "
                f"of one split; convert again with --folds {count} into an empty folder"
            )
        trained |= others
        validated |= dict.fromkeys(images, k)
        folds.append(Fold(k, train, val, output / f"fold{k}", known[val]))
    if missing := sorted(trained - validated.keys()):
        raise CellSegError(
            f"images of {dataset} that none of the {count} folds validates: {len(missing)}, such as {missing[0]}; "
            "was it converted with another number of --folds?"
        )
    config = {key: value for key, value in sorted(flat(cfg).items()) if key not in FREE_KEYS}
    settings = {"folds": count, "config": config, "datasets": hashes}
    return CrossValidation(dataset, output, folds, settings)


def _names_of(datasets: Iterable[str], validated: Collection[str]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """The images of registered datasets, the parts of one.

    Args:
        datasets: their names.
        validated: those of them that together have every image once.

    Returns:
        By dataset, the name of each image in the whole by that in its own JSON (its file's without suffix, where this
        is unique, else what it was called before, else its path); and the SHA-256 of the JSON.
    """
    short, long, paths, hashes = {}, {}, {}, {}
    for dataset in datasets:
        path = Path(MetadataCatalog.get(dataset).json_file)
        file, hashes[dataset] = read_coco(path), sha256(path.read_bytes()).hexdigest()
        short[dataset] = {name: file.stems[number] for number, name in file.names.items()}
        long[dataset] = {file.names[number]: name for number, name in file.image_names().items()}
        paths[dataset] = {name: key_of(file.images[number]["file_name"]) for number, name in file.names.items()}

    def distinct(names: dict[str, dict[str, str]]) -> bool:
        of_all = [name for dataset in validated for name in names[dataset].values()]
        return len(set(of_all)) == len(of_all)

    return next((names for names in (short, long) if distinct(names)), paths), hashes


def prepare_output(validation: CrossValidation, chosen: Iterable[Fold], resume: bool) -> None:
    """Check that the output folder is free, or that what is in it was made with the same settings; note them there.

    Raises:
        CellSegError: a chosen fold has a run already and ``resume`` is False, or the settings differ.
    """
    path = validation.output / SETTINGS
    if any(fold.folder.exists() for fold in validation.folds):
        try:
            _check_same(json.loads(path.read_text(encoding="utf-8")), validation.settings, validation.output)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise CellSegError(
                f"{validation.output} holds folds, but no {SETTINGS} that says how they were trained; "
                "choose another OUTPUT_DIR"
            ) from None
    taken = [fold for fold in chosen if fold.folder.exists()]
    if taken and not resume:
        raise CellSegError(
            f"{taken[0].folder} holds a run already; add --resume to continue it, or choose another OUTPUT_DIR"
        )
    write_json_atomic(path, validation.settings, indent=1)


def _check_same(before: dict, now: dict, output: Path) -> None:
    changed = sorted(differences(now["config"], before["config"]))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise CellSegError(
            f"{output} holds folds with {changed[0]} {before['config'].get(changed[0])!r}, now it is "
            f"{now['config'].get(changed[0])!r}{more}; choose another OUTPUT_DIR"
        )
    if before["folds"] != now["folds"] or before["datasets"] != now["datasets"]:
        raise CellSegError(
            f"{output} holds folds of another dataset, or of the same one converted again; choose another OUTPUT_DIR"
        )


def train_fold(
    fold: Fold, config_file: str | Path, opts: Sequence[str], program: Sequence[str | Path], *, num_gpus: int = 1
) -> Attempt:
    """Train one fold in a new process and wait for it, from its last checkpoint if there is one.

    Args:
        fold: the fold.
        config_file, opts: as for ``cellseg-d2 train-net``; datasets and OUTPUT_DIR are set here.
        program: the command of ``cellseg-d2 train-net`` without its arguments.
        num_gpus: passed on.

    Returns:
        The outcome, which is also recorded in ``fold.json``.
    """
    command = [*map(str, program), "--config-file", str(config_file), "--num-gpus", str(num_gpus)]
    command += ["--resume", *opts, "OUTPUT_DIR", str(fold.folder)]
    command += ["DATASETS.TRAIN", f"('{fold.train}',)", "DATASETS.TEST", f"('{fold.val}',)"]
    return run_training(command, fold.folder, f"fold {fold.index}", on_end=fold.record)
