"""The table of formats, and the two of them that only pass on what others make: measurements and pictures."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cellseg_d2.errors import CellSegError
from cellseg_d2.export.formats import FORMATS, choose_formats
from cellseg_d2.io.file_names import file_stem
from tests.inference.segmentations import HEIGHT, WIDTH, difficult_crops, segmentation_of

ODD_NAMES = ["plate 1/A5: day 2", "..", "a.b.c", "Ätzkalk µ 細胞 \U0001f9a0", "..\\..\\up", "line\nbreak", "", "50% *?"]


def test_tools_can_list_formats_at_once():
    code = (
        "import sys\n"
        "from cellseg_d2.export.formats import FORMATS\n"
        "heavy = {'torch', 'cv2', 'pandas', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("crops", [difficult_crops(), []], ids=["cells", "no cells"])
def test_all_formats_of_images_with_odd_names(tmp_path, name, crops):
    paths = segmentation_of(crops, name=name).save(tmp_path / "out", FORMATS)
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths), "all in the folder, and nothing else"
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert all(path.stat().st_size for path in paths)
    assert [path.name.removeprefix(file_stem(name)) for path in paths] == [kind.suffix for kind in FORMATS.values()]


def test_choosing():
    assert list(choose_formats(["csv", "rois", "csv"])) == ["csv", "rois"]
    assert list(choose_formats("geojson")) == ["geojson"]
    known = "coco, csv, detections, geojson, labels, overlay, pdf, rois, svg"
    with pytest.raises(CellSegError, match=f"unknown format tiff; choose from {known}"):
        choose_formats(["csv", "tiff"])


def test_measurements(tmp_path):
    segmentation = segmentation_of(difficult_crops())
    [path] = segmentation.save(tmp_path, "csv")
    pd.testing.assert_frame_equal(pd.read_csv(path), segmentation.measure(), check_dtype=False, rtol=5e-4)


def test_measurements_of_no_cells(tmp_path):
    [path] = segmentation_of([]).save(tmp_path, "csv")
    table = pd.read_csv(path)
    assert len(table) == 0
    assert list(table.columns) == list(segmentation_of(difficult_crops()).measure().columns)


def test_picture(tmp_path):
    segmentation = segmentation_of(difficult_crops())
    [path] = segmentation.save(tmp_path, "overlay")
    with Image.open(path) as picture:
        assert np.array_equal(np.array(picture), segmentation.picture())
        assert picture.width == 2 * WIDTH
        assert picture.height > 2 * HEIGHT
