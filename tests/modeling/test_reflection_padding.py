"""Images are continued by their reflections, so that sides that do not fit the strides change nothing."""

import pytest
import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes

from cellseg_d2.config import load_config
from cellseg_d2.modeling.build import build_network
from cellseg_d2.modeling.reflection_padding import ReflectionPaddedRCNN, reflected

STOCK, OURS = "GeneralizedRCNN", "ReflectionPaddedRCNN"


@pytest.fixture(scope="module")
def networks(repository):
    """The same random weights in Detectron2's network and in ours."""
    made = {}
    for name in (STOCK, OURS):
        opts = ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", name]
        torch.manual_seed(0)
        made[name] = build_network(load_config(repository / "configs/quickstart/instant_test.yaml", opts)).eval()
    made[OURS].load_state_dict(made[STOCK].state_dict())
    return made


def inputs(*images):
    return [{"image": image, "height": image.shape[1], "width": image.shape[2]} for image in images]


def texture(height, width):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(60, 200, (1, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 3), (64, 33), (63, 64), (20, 100)])
def test_every_pixel_beyond_the_border_mirrors_one_within(height, width):
    image = torch.arange(2 * height * width).reshape(2, height, width)
    padded = reflected(image, height + 37, width + 50)
    assert padded.shape == (2, height + 37, width + 50)
    assert torch.equal(padded[:, :height, :width], image)
    assert torch.equal(padded[:, :height, width], image[:, :, -1]), "the outermost pixel is repeated"
    flipped = reflected(image.flip(1, 2), height, width).flip(1, 2)
    assert torch.equal(flipped, image)
    twice = reflected(image, 2 * height, 2 * width)
    assert torch.equal(twice, twice.flip(1, 2)), "an image and its reflections are symmetric"


@pytest.mark.parametrize("name", [STOCK, OURS])
def test_what_a_network_sees_of_an_even_image_depends_on_its_size_in_stock_only(networks, name):
    """An even image that fits the strides is the truth for one that does not: there is nothing else to see."""
    network = networks[name]
    whole, cut = (torch.full((1, size, size), 150, dtype=torch.uint8) for size in (128, 100))
    with torch.no_grad():
        features = [network.backbone(network.preprocess_image(inputs(image)).tensor) for image in (whole, cut)]
    equal = [torch.allclose(features[0][level], features[1][level], atol=1e-5) for level in features[0]]
    assert all(equal) if name == OURS else not any(equal)


def test_images_that_fit_the_strides_give_what_detectron2_gives(networks):
    batch = inputs(texture(96, 128))
    with torch.no_grad():
        stock, ours = (networks[name].inference(batch, do_postprocess=False)[0] for name in (STOCK, OURS))
    assert len(stock) > 0
    for field, value in stock.get_fields().items():
        value, own = (v.tensor if isinstance(v, Boxes) else v for v in (value, getattr(ours, field)))
        assert torch.equal(value, own), field


def test_nothing_is_found_beyond_the_image(networks):
    small, large = texture(70, 45), texture(90, 110)
    seen = networks[OURS].preprocess_image(inputs(small, large))
    assert seen.image_sizes == [(70, 45), (90, 110)]
    assert seen.tensor.shape[-2:] == (96, 128)
    with torch.no_grad():
        both = networks[OURS].inference(inputs(small, large), do_postprocess=False)
    for found, (_, height, width) in zip(both, (small.shape, large.shape), strict=True):
        assert found.image_size == (height, width)
        assert len(found) > 0
        assert (found.pred_boxes.tensor <= torch.tensor([width, height, width, height])).all()
        assert (found.pred_boxes.tensor >= 0).all()


def test_training_pads_as_detectron2_does(networks):
    network = networks[OURS]
    assert isinstance(network, ReflectionPaddedRCNN)
    batch = inputs(texture(70, 45))
    try:
        network.train()
        stock = GeneralizedRCNN.preprocess_image(network, batch)
        assert torch.equal(network.preprocess_image(batch).tensor, stock.tensor)
    finally:
        network.eval()
