"""The commands that texts show are those that there are, and the README's do what it says."""

import importlib
import re
import shlex

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from cellseg_d2.cli import call
from cellseg_d2.cli.commands import COMMANDS, command_name
from tests.conftest import REPOSITORY
from tests.discs import disc_image

TEXTS = ["README.md", "datasets/README.md", "configs/RESULTS.md"]
TEXTS += [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("*.md")]
TEXTS += [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "cellseg_d2/models").glob("*/README.md")]


def blocks(name, language):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(block):
    """The words of each call of the program; ``python tools/a_b.py`` is that of ``cellseg-d2 a-b``."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word == "cellseg-d2":
                words, name = words[start + 1 :], words[start + 1]
            elif script := re.fullmatch(r"tools/(\w+)\.py", word):
                words, name = words[start + 1 :], script[1].replace("_", "-")
                words.insert(0, name)
            else:
                continue
            yield words[: words.index("&&")] if "&&" in words else words
            break


SHOWN = {(text, *words): words for text in TEXTS for block in blocks(text, "bash") for words in commands(block)}


def test_texts_show_many_commands():
    assert len(SHOWN) > 25


@pytest.mark.parametrize("shown", SHOWN, ids=" ".join)
def test_a_shown_command_has_these_options(shown):
    name, *words = SHOWN[shown]
    while "--import" in words:  # a file of the reader's own
        del words[words.index("--import") : words.index("--import") + 2]
    module = "benchmark_options" if name == "benchmark" else command_name(name).replace("-", "_")
    importlib.import_module(f"cellseg_d2.cli.{module}").parse_args(words)


def test_the_table_has_all_commands():
    table = (REPOSITORY / "docs/tools.md").read_text(encoding="utf-8").split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\S+)` \|", table, re.M)) == sorted(COMMANDS)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with images and annotations where the README has them."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("my_images", "mine/images", "mine/labels"):
        (folder / name).mkdir(parents=True)
    generator = np.random.default_rng(3)
    image, crops = disc_image(generator, 160, 8, 0)
    tifffile.imwrite(folder / "my_images/a.tif", image)
    for index in range(4):
        image, crops = disc_image(generator, 128, 6, 0)
        labels = np.zeros(image.shape, np.uint16)
        for value, crop in enumerate(crops, start=1):
            labels[crop.slices][crop.mask.astype(bool)] = value
        cv2.imwrite(str(folder / f"mine/images/{index}.png"), image)
        cv2.imwrite(str(folder / f"mine/labels/{index}.png"), labels)
    return folder


@pytest.fixture
def at_desk(desk, monkeypatch):
    monkeypatch.chdir(desk)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    return desk


def readme(heading):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_segmenting_as_in_the_readme(at_desk):
    (words,) = (w for w in SHOWN.values() if w[:3] == ["infer", "--input", "my_images/"] and "--save" in w)
    assert shlex.join(words) in readme("Segment your images")
    assert not call(words)
    found = pd.read_csv("results/cells.csv")
    assert tifffile.imread("results/labels/a_labels.tif").max() == len(found) >= 6
    assert list((at_desk / "results/overlay").iterdir())


def test_python_as_in_the_readme(at_desk):
    (code,) = blocks("README.md", "python")
    known = {}
    exec(code, known)
    segmentation = known["segmentation"]
    assert len(segmentation.measure()) == len(segmentation.scores) == segmentation.labels.max() >= 6


def test_training_as_in_the_readme(at_desk):
    """All three commands as they stand, but the training ends after two iterations."""
    found = re.findall(r"```bash\n(.*?)```", readme("Train on your own images"), re.S)
    (block,) = (block for block in found if "train-net" in block)
    convert, train, infer = commands(block)
    assert not call(convert)
    assert not call([*train, "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "1", "DATALOADER.NUM_WORKERS", "0"])
    assert not call(infer)
    assert len(pd.read_csv("results/submission.csv")) >= 6


def test_masks_and_scores_as_in_the_tools(capsys):
    """The last line of the block is an expression, and its comment says what it gives."""
    (code,) = blocks("docs/tools.md", "python")
    *lines, last = code.strip().splitlines()
    expression, _, value = last.partition("  # ")
    known = {}
    exec("\n".join(lines), known)
    assert eval(expression, known) == float(value)
