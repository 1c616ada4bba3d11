"""Where memory does not suffice: smaller windows, then the CPU, and a word about it."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cellseg_d2.errors import CellSegError
from cellseg_d2.inference.batch import segment_files
from cellseg_d2.inference.classical import ClassicalSegmenter
from cellseg_d2.inference.out_of_memory import is_out_of_memory, on_cpu

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


class Network:
    """What is known of a network: where its parameters are, of which it is its own only one."""

    device = "cuda:0"

    @property
    def is_cuda(self):
        return self.device != "cpu"

    def parameters(self):
        return iter([self])

    def cpu(self):
        self.device = "cpu"

    def to(self, device):
        self.device = device


class Limited(ClassicalSegmenter):
    """Otsu's threshold on a GPU whose memory holds ``limit`` pixels; the CPU's holds ``limit_on_cpu``."""

    def __init__(self, limit, limit_on_cpu=10**9, tile=1024, error=FULL):
        super().__init__("otsu", smoothing=0.5, least_area=4)
        self.limits = {"cuda:0": limit, "cpu": limit_on_cpu}
        self.tile, self.error = tile, error
        self.network = Network()
        self.shown = []

    def networks(self):
        return [self.network]

    def detect_views(self, image, scale=1.0):
        self.shown.append((image.shape, self.network.device))
        if image.size > self.limits[self.network.device]:
            raise self.error
        return super().detect_views(image, scale)


@pytest.fixture
def image():
    """12 × 18 squares on 600 × 900 pixels."""
    image = np.full((600, 900), 20, np.uint8)
    for top in range(25, 600, 50):
        for left in range(25, 900, 50):
            image[top : top + 10, left : left + 10] = 220
    return image


def cells_of(segmentation):
    return sorted((crop.box, crop.area) for crop in segmentation.crops)


@pytest.fixture
def expected(image):
    cells = cells_of(Limited(10**9).segment(image))
    assert len(cells) == 12 * 18
    return cells


def test_windows_are_halved_until_they_fit(image, expected, caplog):
    limited = Limited(450 * 450)
    with caplog.at_level(logging.WARNING):
        assert cells_of(limited.segment(image, name="a")) == expected
    assert limited.shown[0] == ((600, 900), "cuda:0")
    assert {shape for shape, _ in limited.shown[1:]} == {(450, 450)}
    assert [record.message for record in caplog.records] == [
        "a: out of memory in windows of 900 pixels, so it is done anew in windows of 450 pixels"
    ]


def test_the_cpu_comes_last_and_only_for_this_image(image, expected, caplog):
    limited = Limited(100 * 100)
    with caplog.at_level(logging.WARNING):
        assert cells_of(limited.segment(image, name="a")) == expected
    assert limited.shown == [((600, 900), "cuda:0"), ((450, 450), "cuda:0"), ((600, 900), "cpu")]
    assert caplog.records[-1].message.endswith("so it is done anew in the memory of the CPU")
    assert limited.network.device == "cuda:0", "the next image is tried there"


def test_windows_that_the_caller_chose_are_halved_too(image, expected):
    limited = Limited(256 * 256)
    assert cells_of(limited.segment(image, tile=600, overlap=64)) == expected
    assert limited.shown[1][0] == (300, 300), "half of 600, which does not fit either"
    assert limited.shown[2] == ((600, 600), "cpu")


def test_a_model_that_resizes_what_it_sees_goes_to_the_cpu_at_once(image):
    limited = Limited(100, tile=None)
    limited.segment(image)
    assert limited.shown == [((600, 900), "cuda:0"), ((600, 900), "cpu")]


def test_the_window_in_which_scales_are_compared_is_halved_too(image):
    limited = Limited(512 * 512)
    limited.scales = (1.0, 2.0)
    assert len(limited.segment(image)) == 12 * 18
    assert limited.shown[0][0] == (512, 512), "half of a window: at the larger scale it is twice as large"
    sizes = [height * width for (height, width), _ in limited.shown]
    assert sum(size > 512 * 512 for size in sizes) == 1, "the first try, which did not fit"


def test_an_image_that_fits_nowhere_is_named_and_the_others_are_done(image, tmp_path, capsys):
    for name, pixels in (("a", image[:200, :200]), ("b", image), ("c", image[:200, :200])):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    limited = Limited(200 * 200, limit_on_cpu=200 * 200)
    result = segment_files(limited, sorted(tmp_path.glob("*.png")), tmp_path / "out", ["csv"])
    assert result.counts == {"a": {"cell": 16}, "c": {"cell": 16}}
    assert list(result.failed) == [tmp_path / "b.png"]
    assert "b does not fit into memory, not even in the memory of the CPU" in capsys.readouterr().out


def test_errors_of_another_kind_are_not_taken_for_want_of_memory(image):
    with pytest.raises(RuntimeError, match="shape"):
        Limited(100, error=RuntimeError("a wrong shape")).segment(image)
    with pytest.raises(CellSegError, match="does not fit into memory"):
        Limited(100, 100, error=MemoryError()).segment(image)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_want_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_networks_come_back_even_after_an_error():
    network = nn.Linear(2, 2).to("meta")
    with pytest.raises(NotImplementedError), on_cpu([network]):  # nothing can be copied out of "meta"
        pass
    pretended, places = Network(), []

    def use():
        with on_cpu([pretended]):
            places.append(pretended.device)
            raise KeyError

    with pytest.raises(KeyError):
        use()
    assert (places, pretended.device) == (["cpu"], "cuda:0")
