"""The commands of ``cellseg-d2``: its help, the search for what to run, and the tests are made from this table."""

from __future__ import annotations

PROGRAM = "cellseg-d2"
# The command a-b is the function `main` of cellseg_d2/cli/a_b.py; a script of that name in tools/ calls the same one.
GROUPS = {
    "data": {
        "make-simulated": "write a simulated data set in the competition's layout",
        "convert-to-coco": "check annotations and convert them to COCO JSON",
        "convert": "convert annotations or results between formats, without a model",
        "pseudo-label": "turn predictions into training data",
    },
    "correction": {
        "correct": "look at images in napari, correct their cells, and train on what was corrected",
    },
    "training": {
        "train": "train further on a few images of your own; everything else is chosen and said",
        "fit-anchors": "measure how well the anchors fit the cells, and propose better ones",
        "train-net": "train, resume, or evaluate with --eval-only",
        "cross-validate": "train K folds; report mean and spread of the score, and predictions of all images",
    },
    "prediction": {
        "infer": "segment images with a shipped or a trained model",
        "tune-postprocess": "search thresholds and overlap rules for the best score",
        "export-model": "package a trained model for sharing",
    },
    "analysis": {
        "evaluate": "score predictions of any format against the truth",
        "analyze-errors": "count missed, merged, split, shifted and spurious cells, by type, size and crowding",
        "visualize": "draw annotations, predictions beside the truth, and augmented samples",
        "shape-space": "learn the shapes of cells from masks: a map of them, and the least plausible annotations",
        "report": "write one HTML page about a training run, about predictions, or about both",
        "benchmark": "measure this project against stock Detectron2",
    },
    "set-up": {
        "install-detectron2": "install Detectron2, which is on no package index under its own name",
    },
}
COMMANDS = {name: summary for commands in GROUPS.values() for name, summary in commands.items()}
# Names that people of the field type first, for the command that does it.
ALIASES = {"segment": "infer", "predict": "infer", "score": "evaluate", "simulate": "make-simulated"}


def command_name(word: str) -> str:
    """The command's own name for another one, or for the spelling with ``_``; what is not a command stays as it is."""
    name = word.replace("_", "-")
    return ALIASES.get(name, name)
