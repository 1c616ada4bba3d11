"""What a trained space knows of shapes: it draws them again, tells strange ones, and comes back from its file."""

import json

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from cellseg_d2.errors import CellSegError
from cellseg_d2.masks.normalize import normalize_shape
from cellseg_d2.shape_space.space import ShapeSpace, Usual
from tests.shape_space.drawn import bar, ellipse, with_line


@pytest.fixture(scope="module")
def ellipses():
    rng = np.random.default_rng(1)
    return [ellipse(rng) for _ in range(80)]


def ious(space, masks):
    """Of normalised masks with what the space makes of them, at a probability of 0.5."""
    made = space.pictures(space.place(masks).latents) >= 0.5
    true = np.stack([normalize_shape(mask, space.size)[0] for mask in masks]) >= 0.5
    return (made & true).sum(axis=(1, 2)) / (made | true).sum(axis=(1, 2))


def test_new_ellipses_are_drawn_again(space, ellipses):
    assert ious(space, ellipses).min() > 0.9
    assert ious(space, ellipses).mean() > 0.95


def test_line_artefacts_are_less_plausible_than_all_ellipses(space, ellipses):
    rng = np.random.default_rng(2)
    good, broken = space.surprises(ellipses), space.surprises([with_line(rng) for _ in range(80)])
    # The area under the ROC curve.
    assert (broken[:, None] > good).mean() > 0.99
    assert np.median(good) < 1
    assert np.median(broken) > 5
    plausibility = space.plausibilities(ellipses)
    assert ((plausibility > 0) & (plausibility <= 1)).all()
    assert np.array_equal(np.argsort(-plausibility, kind="stable"), np.argsort(good, kind="stable"))


def test_plausibility_is_about_the_share_of_less_plausible_cells(space, training_cells):
    values = space.plausibilities([crop.mask for crop in training_cells.crops])
    for share in (0.25, 0.5, 0.75):
        assert np.mean(values <= share) == pytest.approx(share, abs=0.12)


def test_types_have_places_of_their_own(space, ellipses):
    rng = np.random.default_rng(3)
    bars = space.place([bar(rng) for _ in range(20)]).latents
    others = space.place(ellipses).latents
    apart = np.linalg.norm(bars[:, None] - others, axis=2).min(axis=1)
    within = np.linalg.norm(bars[:, None] - bars, axis=2) + 100 * np.eye(len(bars))
    assert (within.min(axis=1) < apart).mean() > 0.8


def test_where_a_mask_lies_does_not_depend_on_the_others(space, ellipses):
    whole = space.place(ellipses)
    for i in (0, 17):
        alone = space.place([ellipses[i]])
        assert np.allclose(alone.latents[0], whole.latents[i], atol=1e-4)
        assert np.isclose(alone.improbabilities[0], whole.improbabilities[i], rtol=1e-3)
    nothing = space.place([])
    assert nothing.latents.shape == (0, space.latent)
    assert len(nothing) == len(space.surprises([])) == len(space.pictures(np.zeros((0, 2)))) == 0


def test_usual_is_measured_for_each_size():
    rng = np.random.default_rng(0)
    scales = np.exp(rng.uniform(0, 3, 4000))
    # Larger cells are less probable here.
    values = np.exp(np.log(scales) + 0.5 * rng.standard_normal(4000))
    usual = Usual.of(scales, values)
    assert np.allclose(usual.means[1:-1], usual.sizes[1:-1], atol=0.1)
    assert np.allclose(usual.deviations, 0.5, atol=0.1)
    assert len(Usual.of(scales[:3], values[:3]).sizes) == 1


def test_shapes_are_drawn_of_a_type_of_its_sizes_and_by_the_seed(space, training_cells):
    for kind in ("ellipse", "bar"):
        masks = space.draw(np.random.default_rng(5), 300, kind)
        assert len(masks) == 300
        assert all(mask.any(axis=0).all() and mask.any(axis=1).all() for mask in masks)
        areas = [crop.area for crop, own in zip(training_cells.crops, training_cells.types, strict=True) if own == kind]
        drawn = [mask.sum() for mask in masks]
        for q in (10, 50, 90):
            assert np.percentile(drawn, q) == pytest.approx(np.percentile(areas, q), rel=0.25), (kind, q)
    elongation = {
        kind: np.median([_elongation(m) for m in space.draw(np.random.default_rng(6), 100, kind)])
        for kind in ("ellipse", "bar")
    }
    assert elongation["bar"] > 2 * elongation["ellipse"]
    first, again = (space.draw(np.random.default_rng(7), 5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert space.draw(np.random.default_rng(0), 0) == []
    with pytest.raises(CellSegError, match=r"no cells of type 'neuron'; it has bar, ellipse"):
        space.draw(np.random.default_rng(0), 1, "neuron")


def _elongation(mask):
    grid, _ = normalize_shape(mask)
    inside = grid >= 0.5
    return np.count_nonzero(inside.any(axis=0)) / max(np.count_nonzero(inside.any(axis=1)), 1)


def test_a_space_comes_back_from_its_file(space, ellipses, tmp_path):
    path = tmp_path / "shapes.safetensors"
    space.save(path)
    again = ShapeSpace.load(path)
    assert again.type_names == ["bar", "ellipse"]
    assert (again.size, again.latent) == (32, 2)
    # The network is kept in half precision.
    assert np.allclose(again.surprises(ellipses), space.surprises(ellipses), atol=0.15)
    assert np.array_equal(again.references.types, space.references.types)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def damage(tensors, about, how):
    if how == "settings":
        about["size"] = 33
    elif how == "huge":
        about["width"] = 4096
    elif how == "text":
        about["latent"] = "2"
    elif how == "shape":
        about["latent"] = 3
    elif how == "types":
        about["types"] = ["bar"]
    elif how == "nan":
        tensors["reference.usual"][0, 0] = float("nan")
    elif how == "scales":
        tensors["reference.scales"][0] = 0
    elif how == "lacking":
        del tensors["reference.usual"]
    elif how == "format":
        about["format"] = "other"
    elif how == "nested":
        about["types"] = [["bar"]]


@pytest.mark.parametrize(
    "how", ["settings", "huge", "text", "shape", "types", "nan", "scales", "lacking", "nested", "format", "model"]
)
def test_files_of_another_kind_are_refused_in_one_sentence(space, tmp_path, how):
    path = tmp_path / "shapes.safetensors"
    space.save(path)
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors, about = load_file(path), json.loads(metadata["cellseg_d2"])
    damage(tensors, about, how)
    metadata = {"cellseg_d2": json.dumps(about)}
    if how == "model":
        tensors, metadata = {"weight": torch.zeros(3)}, None
    save_file(tensors, path, metadata)
    with pytest.raises(CellSegError, match=r"shapes\.safetensors|size must be|width must be"):
        ShapeSpace.load(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CellSegError, match="cannot be read"):
        ShapeSpace.load(path)
    with pytest.raises(CellSegError, match="there is no weights file"):
        ShapeSpace.load(tmp_path / "none.safetensors")
