import copy
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_util

from eakd_det.data.coco_check import check_coco
from eakd_det.data.conversion.tile_files import tile_starts
from eakd_det.data.conversion.tiles import tile_dataset
from eakd_det.utils.errors import UserError

WIDTH, HEIGHT = 150, 100


def paint(path, size=(WIDTH, HEIGHT), orientation=1, mode="RGB"):
    """Save a picture of noise."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise(size, 60).convert(mode).save(path, exif=exif)


def make(tmp_path, *objects, name="a.png", **options):
    """A COCO dict of a picture and its objects."""
    paint(tmp_path / "in" / name, **options)
    with Image.open(tmp_path / "in" / name) as image:
        width, height = image.size[:: -1 if options.get("orientation", 1) > 4 else 1]
    annotations = [
        {"id": 5 + i, "image_id": 3, "category_id": 2, "area": 0, **o}
        for i, o in enumerate(objects)
    ]
    for annotation in annotations:
        annotation["area"] = annotation["area"] or np.prod(annotation["bbox"][2:]).item()
    return {
        "images": [{"id": 3, "file_name": name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": 2, "name": "bolt"}],
    }


def tile(tmp_path, data, size=64, overlap=16, **options):
    folders = str(tmp_path / "in"), str(tmp_path / "out")
    return tile_dataset(data, *folders, size=size, overlap=overlap, **options)


def objects_of(tiles, x, y):
    """The objects of the tile at (x, y)."""
    [image] = [i for i in tiles["images"] if i["file_name"].endswith(f"_{x}_{y}.png")]
    return [a for a in tiles["annotations"] if a["image_id"] == image["id"]]


@pytest.mark.parametrize(
    ("length", "starts"),
    [(64, [0]), (10, [0]), (65, [0, 1]), (112, [0, 48]), (113, [0, 48, 49]), (150, [0, 48, 86])],
)
def test_starts(length, starts):
    assert tile_starts(length, 64, 16) == starts


def test_tiles_are_parts_of_the_picture(tmp_path):
    data = make(tmp_path)
    tiles = tile(tmp_path, data)
    whole = np.asarray(Image.open(tmp_path / "in" / "a.png"))
    places = [(x, y) for y in (0, 36) for x in (0, 48, 86)]
    assert [i["file_name"] for i in tiles["images"]] == [f"a_{x}_{y}.png" for x, y in places]
    for image, (x, y) in zip(tiles["images"], places, strict=True):
        assert (image["width"], image["height"], image["source"]) == (64, 64, "a.png")
        part = np.asarray(Image.open(tmp_path / "out" / image["file_name"]))
        assert np.array_equal(part, whole[y : y + 64, x : x + 64])


def test_boxes_are_cut_and_small_rests_dropped(tmp_path):
    data = make(tmp_path, {"bbox": [40, 10, 20, 20]}, {"bbox": [101, 90, 30, 10]})
    before = copy.deepcopy(data)
    tiles = tile(tmp_path, data)
    assert data == before
    assert [a["bbox"] for a in objects_of(tiles, 0, 0)] == [[40, 10, 20, 20]]
    [cut] = objects_of(tiles, 48, 0)
    assert (cut["bbox"], cut["area"]) == ([0, 10, 12, 20], 240)
    assert [a["bbox"] for a in objects_of(tiles, 86, 36)] == [[15, 54, 30, 10]]
    assert objects_of(tiles, 48, 36) == [], "11 of 30 pixels"
    assert [a["id"] for a in tiles["annotations"]] == [1, 2, 3]
    [note] = tiles["notes"]
    assert note.startswith("1 boxes that a tile cuts below 40%")
    assert "0 of 2 objects are in no tile" in note


def test_objects_in_no_tile(tmp_path):
    tiles = tile(tmp_path, make(tmp_path, {"bbox": [0, 0, 150, 100]}))
    assert tiles["annotations"] == []
    assert "1 of 1 objects are in no tile" in tiles["notes"][0]


def test_least_area_counts_and_crowds_stay(tmp_path):
    data = make(tmp_path, {"bbox": [0, 0, 150, 100]}, {"bbox": [0, 0, 150, 100], "iscrowd": 1})
    assert [a["iscrowd"] for a in tile(tmp_path, data)["annotations"]] == [1] * 6
    (tmp_path / "out").rename(tmp_path / "before")
    assert len(tile(tmp_path, data, least_area=0.1)["annotations"]) == 12


def test_masks_of_tiles_are_parts_of_the_masks(tmp_path):
    """Polygons, also concave ones, and both kinds of RLE."""
    polygon = [10, 10, 140, 20, 130, 90, 75, 30, 20, 80]
    rle = mask_util.frPyObjects([polygon], HEIGHT, WIDTH)[0]
    whole = mask_util.decode(rle)
    runs = np.diff(np.flatnonzero(np.diff(np.pad(whole.T.ravel(), 1, constant_values=2))))
    counts = [0] * int(whole[0, 0]) + runs.tolist()
    rle["counts"] = rle["counts"].decode()
    masks = [[polygon], rle, {"size": [HEIGHT, WIDTH], "counts": counts}]
    box = [10, 10, 130, 80]
    data = make(tmp_path, *({"bbox": box, "segmentation": mask} for mask in masks))
    tiles = tile(tmp_path, data, least_area=0.01)
    for x, y in [(x, y) for y in (0, 36) for x in (0, 48, 86)]:
        expected = whole[y : y + 64, x : x + 64]
        of_polygon, *of_rle = (a["segmentation"] for a in objects_of(tiles, x, y))
        drawn = mask_util.decode(mask_util.merge(mask_util.frPyObjects(of_polygon, 64, 64)))
        assert (drawn != expected).mean() < 0.03, "polygons are drawn to half a pixel"
        for mask in of_rle:
            assert np.array_equal(mask_util.decode(mask), expected)
    json.dumps(tiles)


def test_an_object_whose_mask_is_elsewhere_and_an_invalid_mask(tmp_path):
    corner = [[0, 0, 4, 0, 0, 4]]
    data = make(
        tmp_path,
        {"bbox": [0, 0, 100, 60], "segmentation": corner},
        {"bbox": [0, 0, 50, 50], "segmentation": [[1, 1, 2, 2]]},
        {"bbox": [0, 0, 50, 50], "keypoints": [5, 5, 2], "num_keypoints": 1},
    )
    tiles = tile(tmp_path, data)
    assert [a["bbox"] for a in objects_of(tiles, 0, 0)] == [[0, 0, 64, 60]] + 2 * [[0, 0, 50, 50]]
    assert objects_of(tiles, 48, 0) == []
    assert "keypoints are removed" in tiles["notes"][-1]
    assert not any("keypoints" in a for a in tiles["annotations"])


def test_small_pictures_stay_whole(tmp_path):
    data = make(tmp_path, {"bbox": [1, 2, 3, 4]}, name="sub/b.jpg", size=(64, 30))
    tiles = tile(tmp_path, data)
    [image] = tiles["images"]
    assert (image["file_name"], image["width"], image["height"]) == ("sub/b.jpg", 64, 30)
    copied = (tmp_path / "out" / "sub" / "b.jpg").read_bytes()
    assert copied == (tmp_path / "in" / "sub" / "b.jpg").read_bytes()
    assert tiles["annotations"][0]["bbox"] == [1, 2, 3, 4]


def test_a_side_below_the_size_is_kept(tmp_path):
    tiles = tile(tmp_path, make(tmp_path, size=(150, 30)))
    assert [(i["width"], i["height"]) for i in tiles["images"]] == 3 * [(64, 30)]


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_rotated_pictures_become_upright_tiles(tmp_path, orientation):
    data = make(tmp_path, {"bbox": [5, 6, 20, 10]}, name="a.jpg", orientation=orientation)
    tiles = tile(tmp_path, data)
    (tmp_path / "tiles.json").write_text(json.dumps(tiles))
    checked = check_coco(str(tmp_path / "tiles.json"), str(tmp_path / "out"))
    assert checked["annotations"][0]["bbox"] == [5, 6, 20, 10]
    with Image.open(tmp_path / "out" / "a_0_0.jpg") as image:
        assert image.format == "JPEG"
        assert image.getexif().get(0x0112, 1) == 1


@pytest.mark.parametrize(
    ("name", "mode", "file"),
    [
        ("a.JPG", "L", "a_0_0.JPG"),
        ("a.jpg", "CMYK", "a_0_0.jpg"),
        ("a.tif", "RGB", "a_0_0.png"),
        ("a.tif", "F", "a_0_0.png"),
        ("a.png", "P", "a_0_0.png"),
        ("a.png", "I;16", "a_0_0.png"),
        ("a.bmp", "1", "a_0_0.png"),
    ],
)
def test_formats(tmp_path, name, mode, file):
    tiles = tile(tmp_path, make(tmp_path, name=name, mode=mode))
    assert tiles["images"][0]["file_name"] == file
    with Image.open(tmp_path / "in" / name) as whole, Image.open(tmp_path / "out" / file) as part:
        expected = np.asarray(whole.convert("RGB").crop((0, 0, 64, 64))).astype(int)
        difference = np.abs(np.asarray(part.convert("RGB")) - expected)
    assert difference.mean() <= (5 if "jpg" in name.lower() else 0.5)


def test_tiles_stay_in_their_folder(tmp_path):
    data = make(tmp_path)
    data["images"][0]["file_name"] = "../in/a.png"
    assert tile(tmp_path, data)["images"][0]["file_name"] == "in/a_0_0.png"
    data["images"][0]["file_name"] = str(tmp_path / "in" / "a.png")
    [first, *_] = tile(tmp_path, data)["images"]
    assert (tmp_path / "out" / first["file_name"]).is_file()


def test_tiles_of_tiles_keep_their_picture(tmp_path):
    first = tile(tmp_path, make(tmp_path))
    (tmp_path / "out").rename(tmp_path / "half")
    folders = str(tmp_path / "half"), str(tmp_path / "out")
    second = tile_dataset(first, *folders, size=32, overlap=0)
    assert {image["source"] for image in second["images"]} == {"a.png"}


@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        (lambda d: None, {"overlap": 64}, "overlap of 64 pixels"),
        (lambda d: d["annotations"][0].update(bbox=[1, 1, 0, 1]), {}, "annotation 5 .* no size"),
        (lambda d: d["images"][0].update(width=149), {}, "a.png has .*150.*149"),
        (lambda d: d["images"][0].update(file_name="b.png"), {}, "no image .*b.png"),
        (lambda d: d["images"][0].update(file_name="c.png"), {}, "c.png cannot be read"),
        (lambda d: d["images"].append(d["images"][0]), {}, "already exists"),
    ],
)
def test_mistakes(tmp_path, change, options, text):
    data = make(tmp_path, {"bbox": [1, 1, 5, 5]})
    (tmp_path / "in" / "c.png").write_text("no image")
    change(data)
    with pytest.raises(UserError, match=text):
        tile(tmp_path, data, **options)
