"""Map the categories of datasets to the classes of a model, so that several datasets can be trained on together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.utils import comm

from cellseg_d2.datasets.coco_file import read_coco
from cellseg_d2.errors import CellSegError
from cellseg_d2.io.atomic import write_json_atomic

OTHERS = "*"  # in a category map: all categories that it does not name


def map_categories(names: Sequence[str], category_map: Sequence[Sequence[str]]) -> list[str]:
    """Rename categories by ``DATASETS.CATEGORY_MAP``.

    Args:
        names: names of a dataset's categories.
        category_map: pairs of a name and the new one; the name ``"*"`` stands for all that have no pair of their own.
            A category without either keeps its name.

    Returns:
        The new names; several categories may have the same.

    Example:
        >>> map_categories(["astro", "A172"], [["A172", "glioma"]])
        ['astro', 'glioma']
        >>> map_categories(["astro", "A172"], [["*", "cell"]])
        ['cell', 'cell']
    """
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in category_map):
        raise CellSegError(
            f"DATASETS.CATEGORY_MAP is {list(category_map)}; it takes pairs of names, for example [['*', 'cell']]"
        )
    new_names = {str(old): str(new) for old, new in category_map}
    if len(new_names) < len(category_map):
        raise CellSegError(f"DATASETS.CATEGORY_MAP names a category twice: {[str(old) for old, _ in category_map]}")
    return [new_names.get(name, new_names.get(OTHERS, name)) for name in names]


def choose_classes(
    categories: Mapping[str, Sequence[str]], category_map: Sequence[Sequence[str]], class_names: Sequence[str] = ()
) -> list[str]:
    """Choose the classes of a model that learns from several datasets.

    Args:
        categories: names of the categories by dataset.
        category_map: see :func:`map_categories`.
        class_names: the classes, where they are fixed; every category must then be one of them.

    Returns:
        ``class_names`` where given. Otherwise the categories after the map, in the order in which they come first;
        without a map all datasets must have the same.

    Raises:
        CellSegError: a category is not a class, or the datasets differ.
    """
    mapped = {dataset: map_categories(names, category_map) for dataset, names in categories.items()}
    if class_names:
        for dataset, names in mapped.items():
            foreign = [name for name in names if name not in class_names]
            if foreign:
                raise CellSegError(
                    f"dataset {dataset} has the category {foreign[0]!r}, which is not one of MODEL.CLASS_NAMES "
                    f"{list(class_names)}: map it with DATASETS.CATEGORY_MAP"
                )
        return list(class_names)
    if not category_map and len({tuple(names) for names in mapped.values()}) > 1:
        differing = "; ".join(f"{dataset}: {', '.join(names)}" for dataset, names in mapped.items())
        raise CellSegError(
            f"the datasets do not have the same categories ({differing}): say what they are to be called with "
            f"DATASETS.CATEGORY_MAP (\"[['*','cell']]\" makes all one class), or name all in MODEL.CLASS_NAMES"
        )
    return list(dict.fromkeys(name for names in mapped.values() for name in names))


def in_classes(
    dataset: str, category_map: Sequence[Sequence[str]], classes: Sequence[str], folder: str | Path | None = None
) -> str:
    """Register a dataset with its categories replaced by the model's classes.

    Args:
        dataset: name in Detectron2's catalogs; it stays as it is.
        category_map: see :func:`map_categories`.
        classes: classes of the model, in order.
        folder: where to write ``truth.json``, a COCO JSON in the model's classes, for measures that compare classes.
            None writes nothing, and the metadata's ``json_file`` is the dataset's own.

    Returns:
        The name of a dataset with the same images, where ``category_id`` counts the model's classes; ``dataset``
        itself where they already agree.
    """
    source = MetadataCatalog.get(dataset)
    if source.get("thing_classes") is None:
        DatasetCatalog.get(dataset)  # reads the JSON, which sets the metadata
    names = map_categories(source.thing_classes, category_map)
    if names == list(source.thing_classes) == list(classes):
        return dataset
    numbers = [list(classes).index(name) for name in names]
    json_file = source.json_file
    if folder is not None:
        json_file = Path(folder) / "truth.json"
        if comm.is_main_process():  # which alone scores
            _write_truth(json_file, source, numbers, classes)
    view = f"{dataset} as {', '.join(classes)}"
    if view in DatasetCatalog.list():  # of an earlier call, maybe with another map
        DatasetCatalog.remove(view)
        MetadataCatalog.pop(view, None)

    def load() -> list[dict]:
        return [
            {**entry, "annotations": [{**a, "category_id": numbers[a["category_id"]]} for a in entry["annotations"]]}
            for entry in DatasetCatalog.get(dataset)
        ]

    DatasetCatalog.register(view, load)
    MetadataCatalog.get(view).set(
        json_file=str(json_file),
        evaluator_type=source.evaluator_type,
        thing_classes=list(classes),
        thing_dataset_id_to_contiguous_id={number + 1: number for number in range(len(classes))},
    )
    return view


def _write_truth(path: Path, source: Metadata, numbers: Sequence[int], classes: Sequence[str]) -> None:
    """The JSON of a dataset with its categories replaced by the model's classes, whose ids count from 1 on."""
    file = read_coco(source.json_file)
    ids = {old: numbers[index] + 1 for old, index in source.thing_dataset_id_to_contiguous_id.items()}
    content = {
        **file.content(),
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": [{**a, "category_id": ids[a["category_id"]]} for a in file.annotations],
    }
    write_json_atomic(path, content)


def check_map_is_used(categories: Mapping[str, Sequence[str]], category_map: Sequence[Sequence[str]]) -> None:
    """Refuse a map with a name that no dataset has: it is misspelt, and would silently do nothing."""
    known = sorted({name for names in categories.values() for name in names})
    for old, _ in category_map:
        if old != OTHERS and old not in known:
            raise CellSegError(f"DATASETS.CATEGORY_MAP names {old!r}, but the datasets only have {', '.join(known)}")


def training_datasets(cfg: CfgNode) -> tuple[str, ...]:
    """The datasets that a training reads: those that it trains on, and those that it pastes cells from."""
    pasted = cfg.INPUT.COPY_PASTE.DATASETS if cfg.INPUT.COPY_PASTE.PROBABILITY > 0 else ()
    return tuple(dict.fromkeys((*cfg.DATASETS.TRAIN, *pasted)))


def mixed(cfg: CfgNode) -> CfgNode:
    """A configuration in which the :func:`training_datasets` are read with the model's classes.

    Args:
        cfg: with ``MODEL.CLASS_NAMES`` filled in; not changed.

    Returns:
        ``cfg`` itself where all datasets already have the model's classes, or where these have no names.
    """
    if not cfg.MODEL.CLASS_NAMES:
        return cfg
    views = {
        name: in_classes(name, cfg.DATASETS.CATEGORY_MAP, cfg.MODEL.CLASS_NAMES) for name in training_datasets(cfg)
    }
    if all(name == view for name, view in views.items()):
        return cfg
    result = cfg.clone()
    result.defrost()
    result.DATASETS.TRAIN = tuple(views[name] for name in cfg.DATASETS.TRAIN)
    result.INPUT.COPY_PASTE.DATASETS = tuple(views.get(name, name) for name in cfg.INPUT.COPY_PASTE.DATASETS)
    result.DATASETS.TRAIN_REPEAT_FACTOR = [[views[name], factor] for name, factor in cfg.DATASETS.TRAIN_REPEAT_FACTOR]
    result.freeze()
    return result


def repeat_factors(names: Sequence[str], factors: Sequence[Sequence]) -> dict[str, float]:
    """``DATASETS.TRAIN_REPEAT_FACTOR`` checked: how often an image of each dataset is seen in an epoch.

    Args:
        names: names of the datasets.
        factors: pairs of a name and a number above 0; those that are not named have 1.

    Raises:
        CellSegError: a pair is malformed, or names a dataset that is not trained on.
    """
    result = dict.fromkeys(names, 1.0)
    for pair in factors:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[1], int | float) and pair[1] > 0):
            raise CellSegError(
                f"DATASETS.TRAIN_REPEAT_FACTOR has the entry {pair!r}; it takes pairs of a dataset and a number above 0"
            )
        if pair[0] not in result:
            raise CellSegError(
                f"DATASETS.TRAIN_REPEAT_FACTOR names {pair[0]!r}, which is not in DATASETS.TRAIN {tuple(names)}"
            )
        result[pair[0]] = float(pair[1])
    return result
