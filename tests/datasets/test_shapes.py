"""The annotations of other tools: the same drawn cells come out of each file, pixel by pixel."""

import base64
import io
import json

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from roifile import ROI_TYPE, ImagejRoi, roiwrite

from cellseg_d2.datasets.findings import FindingLog
from cellseg_d2.datasets.readers import DATASET_READERS, ReaderOptions
from cellseg_d2.errors import CellSegError

HEIGHT, WIDTH = 20, 30
SQUARE = [[5, 4], [15, 4], [15, 10], [5, 10]]
HOLE = [[7, 6], [9, 6], [9, 8], [7, 8]]
APART = [[20, 12], [23, 12], [23, 15], [20, 15]]


def mask_of(*rings):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    for ring in rings:
        (x0, y0), (x1, y1) = np.min(ring, axis=0), np.max(ring, axis=0)
        mask[y0:y1, x0:x1] ^= True
    return mask


def disc(x, y, radius_x, radius_y=None):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    return ((columns - x) / radius_x) ** 2 + ((rows - y) / (radius_y or radius_x)) ** 2 <= 1


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), np.zeros((HEIGHT, WIDTH), np.uint8))
    return tmp_path / "images"


def read(reader, path, clean=False, **options):
    (source,) = DATASET_READERS[reader](path, ReaderOptions(**options)).values()
    log = FindingLog(clean)
    return list(source.records(log)), log, source


def check(records, *expected, log=()):
    """One image ``a`` with these classes and masks."""
    (record,) = records
    assert (record.id, record.file_name, record.height, record.width) == ("a", "a.png", HEIGHT, WIDTH)
    assert [cell.cell_type for cell in record.cells] == [kind for kind, _ in expected]
    for cell, (_, mask) in zip(record.cells, expected, strict=True):
        np.testing.assert_array_equal(cell.crop.to_full(HEIGHT, WIDTH), mask)
    assert list(log) == []


def painted(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme(tmp_path, images):
    mask = mask_of(SQUARE, HOLE)[4:10, 5:15]
    shapes = [
        {"label": "live", "shape_type": "polygon", "points": SQUARE, "group_id": None},
        {"label": "live", "shape_type": "rectangle", "points": [[23, 15], [20, 12]]},
        {"label": "dead", "shape_type": "circle", "points": [[10, 10], [14, 10]]},
        {"label": "dead", "shape_type": "mask", "points": [[5, 4], [14, 9]], "mask": painted(mask)},
        {"label": "live", "shape_type": "polygon", "points": SQUARE, "group_id": 7},
        {"label": "live", "shape_type": "polygon", "points": APART, "group_id": 7},
        {"label": "live", "shape_type": "rotation", "points": APART},  # of X-AnyLabeling
    ]
    content = {"version": "5.5.0", "imagePath": "..\\images\\a.png", "imageData": None, "shapes": shapes}
    content |= {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    (tmp_path / "json").mkdir()
    (tmp_path / "json/a.json").write_text(json.dumps(content))
    expected = [
        ("live", mask_of(SQUARE)),
        ("live", mask_of(APART)),
        ("dead", disc(10, 10, 4)),
        ("dead", mask_of(SQUARE, HOLE)),
        ("live", mask_of(SQUARE) | mask_of(APART)),
        ("live", mask_of(APART)),
    ]
    for path in (tmp_path / "json", tmp_path / "json/a.json"):
        records, log, source = read("labelme", path)
        check(records, *expected, log=log)
        assert source.categories == ("dead", "live")


def test_cvat(tmp_path, images):
    box = mask_of(SQUARE, HOLE)[4:10, 5:15].ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], box]))).tolist()
    counts = np.diff([0, *edges, box.size]).tolist()
    text = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
<image id="0" name="sub/a.png" width="{WIDTH}" height="{HEIGHT}">
<polygon label="live" occluded="0" points="{";".join(f"{x}.00,{y}.00" for x, y in SQUARE)}" z_order="0"></polygon>
<box label="live" xtl="20.0" ytl="12.0" xbr="23.0" ybr="15.0"></box>
<ellipse label="dead" cx="10" cy="10" rx="6" ry="4"></ellipse>
<mask label="dead" rle="{", ".join(map(str, counts))}" left="5" top="4" width="10" height="6"></mask>
<polygon label="live" points="{";".join(f"{x},{y}" for x, y in SQUARE)}" group_id="3"></polygon>
<polygon label="live" points="{";".join(f"{x},{y}" for x, y in APART)}" group_id="3"></polygon>
<tag label="good"></tag>
</image></annotations>"""
    (tmp_path / "annotations.xml").write_text(text)
    records, log, _ = read("cvat", tmp_path / "annotations.xml", images=images)
    check(
        records,
        ("live", mask_of(SQUARE)),
        ("live", mask_of(APART)),
        ("dead", disc(10, 10, 6, 4)),
        ("dead", mask_of(SQUARE, HOLE)),
        ("live", mask_of(SQUARE) | mask_of(APART)),
        log=log,
    )


@pytest.mark.parametrize("project", [True, False])
@pytest.mark.parametrize("as_dict", [True, False])
def test_via(tmp_path, images, project, as_dict):
    def region(kind, **drawn):
        return {"shape_attributes": drawn, "region_attributes": kind}

    x, y = zip(*SQUARE, strict=True)
    regions = [
        region({"type": "live"}, name="polygon", all_points_x=x, all_points_y=y),
        region({"type": "dead", "note": "odd"}, name="rect", x=20, y=12, width=3, height=3),
        region({}, name="circle", cx=10, cy=10, r=4),
        region({"quality": {"good": True}}, name="ellipse", cx=10, cy=10, rx=6, ry=4),
    ]
    regions = dict(enumerate(regions)) if as_dict else regions
    content = {"a.png1234": {"filename": "a.png", "size": 1234, "regions": regions, "file_attributes": {}}}
    content = {"_via_settings": {}, "_via_img_metadata": content} if project else content
    (tmp_path / "via.json").write_text(json.dumps(content))
    records, log, source = read("via", tmp_path / "via.json", category="unknown")
    check(
        records,
        ("live", mask_of(SQUARE)),
        ("dead", mask_of(APART)),
        ("unknown", disc(10, 10, 4)),
        ("unknown", disc(10, 10, 6, 4)),
        log=log,
    )
    assert source.categories == ("dead", "live", "unknown")


@pytest.mark.parametrize("form", ["polyline", "point"])
def test_what_has_no_area_in_via_is_no_cell(tmp_path, images, form):
    drawn = {"name": form, "all_points_x": [5, 16, 16], "all_points_y": [5, 5, 16], "cx": 5, "cy": 5}
    regions = [{"shape_attributes": drawn, "region_attributes": {}}]
    (tmp_path / "via.json").write_text(json.dumps({"a.png1": {"filename": "a.png", "size": 1, "regions": regions}}))
    records, log, _ = read("via", tmp_path / "via.json", category="unknown")
    assert not any(record.cells for record in records)
    (finding,) = log
    assert f"a {form}, which has no area" in str(finding)


@pytest.mark.parametrize("collection", [True, False])
def test_geojson(tmp_path, images, collection):
    def closed(ring):
        return [*ring, ring[0]]

    def feature(kind, geometry, **places):
        named = {} if kind is None else {"classification": {"name": kind, "color": [1, 2, 3]}}
        return {"type": "Feature", "geometry": {"type": geometry, **places}, "properties": named}

    features = [
        feature("live", "Polygon", coordinates=[closed(SQUARE), closed(HOLE)]),
        feature(None, "MultiPolygon", coordinates=[[closed(SQUARE)], [closed(APART)]]),
    ]
    content = {"type": "FeatureCollection", "features": features} if collection else features
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    records, log, _ = read("geojson", tmp_path / "a.geojson")
    expected = ("live", mask_of(SQUARE, HOLE)), ("cell", mask_of(SQUARE) | mask_of(APART))
    check(records, *expected, log=log)
    check(read("geojson", tmp_path)[0], *expected)


@pytest.mark.parametrize(
    ("ring", "mask"),
    [
        ([*SQUARE, SQUARE[0]], mask_of(SQUARE)),
        (SQUARE, mask_of(SQUARE)),  # not closed
        ([[*place, 0.0] for place in [*SQUARE, SQUARE[0]]], mask_of(SQUARE)),  # with a height
    ],
)
@pytest.mark.parametrize(
    ("named", "kind"),
    [
        ({"name": "live"}, "live"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive"),
        ({"names": ["Tumor"]}, "Tumor"),
        ({"names": []}, "cell"),
        ("live", "live"),
    ],
)
def test_geojson_of_other_versions_and_tools(tmp_path, images, ring, mask, named, kind):
    geometry = {"type": "Polygon", "coordinates": [ring]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": named}}
    (tmp_path / "a.geojson").write_text(json.dumps(feature))  # one alone is GeoJSON, too
    records, log, _ = read("geojson", tmp_path / "a.geojson")
    check(records, (kind, mask), log=log)


@pytest.mark.parametrize("given", ["a", "a.tif", "a.png", "a.TIF", "b", "b.ome", "b.ome.tif"])
@pytest.mark.parametrize("reader", ["geojson", "rois"])
def test_annotations_called_as_their_images_with_or_without_suffix(tmp_path, images, given, reader):
    """``a.tif.geojson`` as scripts for QuPath write it, and ``b`` for ``b.ome.tif``, as tools that know OME-TIFF do."""
    tifffile.imwrite(images / "b.ome.tif", np.zeros((HEIGHT, WIDTH), np.uint8))
    (tmp_path / "drawn").mkdir()
    if reader == "rois":
        roiwrite(tmp_path / f"drawn/{given}_rois.zip", ImagejRoi.frompoints(np.array(SQUARE)))
    else:
        geometry = {"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}
        content = [{"type": "Feature", "geometry": geometry, "properties": {}}]
        (tmp_path / f"drawn/{given}.geojson").write_text(json.dumps(content))
    for options in ({"images": images}, {}):
        (record,) = read(reader, tmp_path / "drawn", **options)[0]
        assert (record.id, record.height) == ("a" if given[0] == "a" else "b.ome", HEIGHT)
        assert np.array_equal(record.cells[0].crop.to_full(HEIGHT, WIDTH), mask_of(SQUARE))


@pytest.mark.parametrize("name", ["a.zip", "a_rois.zip", "a_RoiSet.zip"])
def test_rois(tmp_path, images, name):
    rois = [ImagejRoi.frompoints(np.array(SQUARE)), ImagejRoi.frompoints(np.array(APART, np.float32) + 0.25)]
    rois += [ImagejRoi(roitype=ROI_TYPE.OVAL, left=4, top=6, right=16, bottom=14, name="0003 dead")]
    rois += [ImagejRoi(roitype=ROI_TYPE.RECT, left=20, top=12, right=23, bottom=15)]
    rings = [np.append(np.column_stack([[0, 1, 1, 1], ring]), 4).astype(np.float32) for ring in (SQUARE, HOLE)]
    path = np.concatenate(rings)
    rois += [ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=path, right=15, bottom=10)]
    for number, roi in enumerate(rois):
        roi.name = roi.name or f"0007-{number:04d}"
    roiwrite(tmp_path / name, rois, mode="w")
    records, log, _ = read("rois", tmp_path / name)
    check(
        records,
        ("cell", mask_of(SQUARE)),
        ("cell", mask_of(APART)),
        ("dead", disc(10, 10, 6, 4)),
        ("cell", mask_of(APART)),
        ("cell", mask_of(SQUARE, HOLE)),
        log=log,
    )


def labelme_with(*shapes, **more):
    shapes = [{"label": "x", "shape_type": "polygon", "points": SQUARE, **shape} for shape in shapes]
    return {"imagePath": "a.png", "shapes": shapes, **more}


@pytest.mark.parametrize(
    ("shape", "kind", "reason"),
    [
        ({"shape_type": "linestrip"}, "malformed mask", "a linestrip of 4 points, which has no area"),
        ({"shape_type": "point", "points": [[1, 2]]}, "malformed mask", "has no area"),
        ({"points": [[1, 2], [3, 4]]}, "malformed mask", "2 corners"),
        ({"points": [[1, 2], [3, "x"], [5, 6]]}, "malformed mask", "not a position in an image"),
        ({"points": [[1, 2], [3, 1e12], [5, 6]]}, "malformed mask", "not a position in an image"),
        ({"shape_type": "mask", "points": [[1, 2], [3, 4]], "mask": "no base64"}, "malformed mask", "not a PNG"),
        ({"points": [[50, 50], [60, 50], [60, 60]]}, "empty mask", "no pixel of the image"),
        ({"points": [[0, 0], [40, 0], [40, 5], [0, 5]]}, "outside the image", "leaves the 30 × 20 pixels by 10.0 px"),
    ],
)
def test_what_is_no_cell_is_refused_or_dropped(tmp_path, images, shape, kind, reason):
    (tmp_path / "a.json").write_text(json.dumps(labelme_with({}, shape)))
    records, log, _ = read("labelme", tmp_path / "a.json")
    (finding,) = log.open_errors
    assert (finding.kind, finding.row, len(records[0].cells)) == (kind, 2, 1)
    assert reason in finding.reason
    records, log, _ = read("labelme", tmp_path / "a.json", clean=True)
    assert log.open_errors == []
    assert [cell.row for cell in records[0].cells] == ([1, 2] if kind == "outside the image" else [1])


@pytest.mark.parametrize(
    ("reader", "name", "content"),
    [
        ("labelme", "a.json", b"{}"),
        ("labelme", "a.json", b"["),
        ("cvat", "a.xml", b"<annotations><track/></annotations>"),
        ("cvat", "a.xml", b"<other/>"),
        ("cvat", "a.xml", b"<annotations"),
        ("cvat", "a.xml", b"<annotations><image/></annotations>"),
        ("via", "a.json", b'{"a": {"regions": []}}'),
        ("via", "a.json", b"[]"),
        ("geojson", "a.geojson", b"{}"),
        ("rois", "a.zip", b"PK no zip"),
        ("rois", "a.roi", b"Iout"),
        ("coco", "a.json", b"{}"),
    ],
)
def test_files_of_other_kinds_are_refused(tmp_path, images, reader, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CellSegError, match=rf"{name} "):
        read(reader, tmp_path / name)
    with pytest.raises(CellSegError, match="does not exist"):
        read(reader, tmp_path / "none.json")


def test_images_that_are_elsewhere_or_not_there(tmp_path):
    (tmp_path / "json").mkdir()
    path = tmp_path / "json/a.json"
    path.write_text(json.dumps(labelme_with({}, imageHeight=HEIGHT, imageWidth=WIDTH)))
    with pytest.raises(CellSegError, match="name their folder with --images"):
        read("labelme", path)
    records, log, _ = read("labelme", path, allow_missing=True)
    check(records, ("x", mask_of(SQUARE)), log=log)
    (tmp_path / "else").mkdir()
    cv2.imwrite(str(tmp_path / "else/a.tif"), np.zeros((HEIGHT, WIDTH), np.uint8))
    records, log, _ = read("labelme", path, images=tmp_path / "else")
    assert (records[0].file_name, list(log)) == ("a.tif", [])
    cv2.imwrite(str(tmp_path / "else/a.tif"), np.zeros((HEIGHT, WIDTH + 1), np.uint8))
    records, log, _ = read("labelme", path, images=tmp_path / "else")
    assert [finding.kind for finding in log.open_errors] == ["wrong size"]


def test_coco_keeps_its_categories_and_finds_its_images(tmp_path, images):
    content = {
        "images": [{"id": "0", "file_name": "C:\\lab\\a.tif"}],
        "categories": [{"id": 0, "name": "live"}, {"id": 5, "name": "dead"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 5, "segmentation": [SQUARE]},
            {
                "id": 2,
                "image_id": 0.0,
                "category_id": "0",
                "segmentation": [np.ravel(SQUARE).tolist(), np.ravel(APART).tolist()],
            },
        ],
    }
    (tmp_path / "in.json").write_text(json.dumps(content))
    for options in ({"images": images}, {}):
        if not options:
            content["images"][0]["file_name"] = "a.png"
            (tmp_path / "in.json").write_text(json.dumps(content))
        records, log, source = read("coco", tmp_path / "in.json", **options)
        assert source.categories == ("live", "dead")
        check(records, ("dead", mask_of(SQUARE)), ("live", mask_of(SQUARE) | mask_of(APART)), log=log)
