import copy
import json
import math

import numpy as np
import pytest
from detectron2.data.datasets import load_coco_json
from PIL import Image
from pycocotools import mask as mask_util

from eakd_det.data.coco_check import check_coco, summarize
from eakd_det.utils.errors import UserError

WIDTH, HEIGHT = 60, 40


def save_image(path, size=(WIDTH, HEIGHT), orientation=1, mode="RGB"):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.effect_noise(size, 60).convert(mode).save(path, exif=exif)


@pytest.fixture
def data(tmp_path):
    """A sound COCO dict of two images, whose files lie in tmp_path."""
    for name in ("a.jpg", "b.png"):
        save_image(tmp_path / name)
    return {
        "images": [
            {"id": 11, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
            {"id": 12, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
        ],
        "annotations": [
            {"id": 1, "image_id": 11, "category_id": 7, "bbox": [5, 6, 20, 10], "iscrowd": 0},
            {"id": 2, "image_id": 11, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1},
        ],
        "categories": [{"id": 7, "name": "bolt"}, {"id": 3, "name": "nut"}],
    }


def check(tmp_path, data, **options):
    (tmp_path / "data.json").write_text(json.dumps(data))
    return check_coco(str(tmp_path / "data.json"), str(tmp_path), **options)


def test_sound_data_are_completed(tmp_path, data):
    before = copy.deepcopy(data)
    for annotation in data["annotations"]:
        annotation.pop("iscrowd", None)
    del data["images"][1]["width"], data["images"][1]["height"]
    checked = check(tmp_path, data)
    assert checked["images"] == before["images"]
    assert [a["area"] for a in checked["annotations"]] == [200, 2400]
    assert [a["iscrowd"] for a in checked["annotations"]] == [0, 0]
    boxes = [a["bbox"] for a in before["annotations"]]
    assert [a["bbox"] for a in checked["annotations"]] == boxes


def test_what_is_there_stays(tmp_path, data):
    data["annotations"][0]["area"] = 123.5
    checked = check(tmp_path, data)
    assert checked["annotations"][0]["area"] == 123.5
    assert checked["annotations"][1]["iscrowd"] == 1


def test_summary(tmp_path, data):
    lines = summarize(check(tmp_path, data)).splitlines()
    expected = "2 images (1 without annotations), 2 boxes (1 of crowds), 2 categories"
    assert lines[0] == expected
    assert [line.split() for line in lines[1:]] == [["1", "nut"], ["1", "bolt"]]


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ([5, 6, 0, 10], "has no size"),
        ([5, 6, 20, 0.0], "has no size"),
        ([30, 6, 10, -2], "is inverted"),
        ([70, 6, 10, 10], "extends beyond the image of 60 x 40"),
        ([50, 6, 20, 10], "extends beyond the image of 60 x 40"),
        ([-8, 6, 20, 10], "extends beyond the image of 60 x 40"),
        ([5, math.nan, 20, 10], "has a value that is not a finite number"),
        ([5, 6, math.inf, 10], "has a value that is not a finite number"),
        ([5, 6, 20], "is not a list of x, y, width, height"),
    ],
)
def test_bad_boxes(tmp_path, data, box, problem):
    data["annotations"][0]["bbox"] = box
    with pytest.raises(UserError) as error:
        check(tmp_path, data)
    assert f"annotation 1 of image 11: box {box} {problem}" in str(error.value)
    assert "1 problems" in str(error.value)


def test_a_box_may_reach_over_the_edge_by_rounding(tmp_path, data):
    data["annotations"][0]["bbox"] = [-0.4, 6, 60.9, 10]
    check(tmp_path, data)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["annotations"][0].update(category_id=5), "annotation 1 .* no category 5"),
        (lambda d: d["annotations"][1].update(id=1), "annotation id 1 occurs 2 times"),
        (lambda d: d["annotations"][0].update(image_id=99), "annotation 1 .* no such image"),
        (lambda d: d["annotations"][0].update(ignore=1), "annotation 1 .* the key 'ignore'"),
        (lambda d: d["images"][1].update(id=11), "image id 11 occurs 2 times"),
        (lambda d: d["categories"][1].update(id=7), "category id 7 occurs 2 times"),
        (lambda d: d["images"][1].update(file_name="c.png"), "image 12: no file .*c.png"),
        (
            lambda d: d["images"][1].update(width=61),
            "image 12: 61 x 40 in the JSON",
        ),
    ],
)
def test_other_problems(tmp_path, data, change, problem):
    change(data)
    with pytest.raises(UserError, match=problem):
        check(tmp_path, data)


@pytest.mark.parametrize("name", ["a.jpg", "b.png"])
def test_unreadable_images(tmp_path, data, name):
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no image"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"image 1[12]: .*{name} cannot be read"):
            check(tmp_path, data)


def test_16_bit_images_are_refused_by_name(tmp_path, data):
    ramp = np.arange(WIDTH * HEIGHT, dtype=np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"image 12: .*b.png has values from 0 to 2399 \(mode I;16"):
        check(tmp_path, data)
    Image.fromarray(ramp // 10).save(tmp_path / "b.png")
    check(tmp_path, data)


USELESS = {
    "nothing": [[]],
    "two points": [[5, 6, 20, 10]],
    "an odd number": [[5, 6, 20, 10, 9, 9, 4]],
    "a flat list": [5, 6, 20, 10, 9, 9],
    "no numbers": [["5", "6", "20", "10", "9", "9"]],
    "not finite": [[5, 6, math.nan, 10, 9, 9]],
    "text": "5 6 20 10 9 9",
    "half an RLE": {"counts": [2400]},
    "an RLE of another length": {"counts": [99], "size": [40, 60]},
}
USELESS["a broken RLE"] = {"counts": "`<X6", "size": [40, 60]}
USELESS["an RLE in other characters"] = {"counts": "ä<X6Xh1", "size": [40, 60]}
TRIANGLE = [5, 6, 25, 6, 5, 16]


@pytest.mark.parametrize("kind", USELESS)
def test_a_useless_segmentation_costs_no_box(tmp_path, data, kind):
    data["annotations"][0]["segmentation"] = USELESS[kind]
    data["annotations"][1]["segmentation"] = [TRIANGLE, [1, 2]]
    data["annotations"].append({**data["annotations"][0], "id": 3, "segmentation": []})
    checked = check(tmp_path, data)
    segmentations = [a.get("segmentation") for a in checked["annotations"]]
    assert segmentations == [None, [TRIANGLE], None]
    note = "1 of 3 objects have an invalid segmentation; it is removed, and their boxes"
    assert [x for x in checked["notes"] if x.startswith(note)]
    assert "3 boxes (1 of crowds)" in summarize(checked)
    assert count_as_detectron2(tmp_path, checked) == 3


@pytest.mark.parametrize("kind", [*USELESS, "empty", "missing", "an RLE of another image"])
def test_a_useless_segmentation_is_refused_where_masks_are_trained(tmp_path, data, kind):
    other = {"empty": [], "missing": None, "an RLE of another image": {"size": [2, 2]}}
    other["an RLE of another image"]["counts"] = [4]
    segmentation = {**USELESS, **other}[kind]
    for annotation in data["annotations"]:
        annotation["segmentation"] = [TRIANGLE]
    check(tmp_path, data, masks=True)
    data["annotations"][0]["segmentation"] = segmentation
    with pytest.raises(UserError, match="annotation 1 of image 11: .*(segmentation|an RLE of the)"):
        check(tmp_path, data, masks=True)


def test_compressed_masks_are_read_as_pycocotools_does(tmp_path, data):
    generator = np.random.default_rng(0)
    for density in (0.0, 0.02, 0.5, 0.98, 1.0):
        pixels = np.asfortranarray(generator.random((40, 60)) < density, dtype=np.uint8)
        rle = mask_util.encode(pixels)
        data["annotations"][0]["segmentation"] = {**rle, "counts": rle["counts"].decode()}
        checked = check(tmp_path, data)
        assert "segmentation" in checked["annotations"][0], density
        data["annotations"][0]["segmentation"]["counts"] += "1"
        assert "segmentation" not in check(tmp_path, data)["annotations"][0]


def count_as_detectron2(tmp_path, checked):
    (tmp_path / "checked.json").write_text(json.dumps(checked))
    scenes = load_coco_json(str(tmp_path / "checked.json"), str(tmp_path))
    return sum(len(scene["annotations"]) for scene in scenes)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"iscrowd": "no"}, "iscrowd is 'no'; it must be 0 or 1"),
        ({"iscrowd": 2}, "iscrowd is 2; it must be 0 or 1"),
        ({"area": "200"}, "area is '200'; it must be a number of pixels, or missing"),
        ({"area": math.nan}, "area is nan; it must be a number"),
    ],
)
def test_values_that_evaluations_cannot_use(tmp_path, data, change, problem):
    data["annotations"][0].update(change)
    with pytest.raises(UserError, match=f"annotation 1 of image 11: {problem}"):
        check(tmp_path, data)


def test_an_annotation_without_an_id_is_called_by_its_number(tmp_path, data):
    del data["annotations"][1]["id"]
    assert [a["id"] for a in check(tmp_path, data)["annotations"]] == [1, 2]
    data["annotations"][1]["bbox"] = [5, 6, 0, 10]
    with pytest.raises(UserError, match="annotation number 2 of image 11: box .* has no size"):
        check(tmp_path, data)


def test_a_root_category_with_boxes_stays(tmp_path, data):
    data["categories"] = [{"id": 1, "name": "parts", "supercategory": "none"}] + [
        {**category, "supercategory": "parts"} for category in data["categories"]
    ]
    assert [c["id"] for c in check(tmp_path, data)["categories"]] == [7, 3]
    data["annotations"][0]["category_id"] = 1
    assert [c["id"] for c in check(tmp_path, data)["categories"]] == [1, 7, 3]


def with_boxes(data, boxes):
    template = data["annotations"][0]
    data["annotations"] = [{**template, "id": i, "bbox": box} for i, box in enumerate(boxes)]
    return data


def test_boxes_are_clipped_on_request(tmp_path, data):
    boxes = [[50, 30, 20, 20], [-5, 4, 10, 10], [5, 6, 20, 10], [59, 4, 20, 10], [70, 50, 5, 5]]
    data = with_boxes(data, boxes)
    data["annotations"][0]["area"] = 300
    with pytest.raises(UserError, match=r"4 problems:\n.*extends beyond .* \(see --clip-boxes\)"):
        check(tmp_path, data)
    checked = check(tmp_path, data, clip=True)
    found = [(a["bbox"], a["area"]) for a in checked["annotations"]]
    assert found == [([50, 30, 10, 10], 75), ([0, 4, 5, 10], 50), ([5, 6, 20, 10], 200)]
    assert checked["notes"] == [
        "2 of 5 boxes are clipped to their images, and 2 with less than 10% inside are removed."
    ]
    problems = [([5, 6, -5, 10], "is inverted"), ([5, math.inf, 5, 10], "not a finite number")]
    for box, problem in problems:
        with pytest.raises(UserError, match=problem):
            check(tmp_path, with_boxes(data, [box]), clip=True)


def test_relative_boxes_give_a_warning(tmp_path, data):
    checked = check(tmp_path, with_boxes(data, [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]]))
    assert checked["notes"] == [
        "100% of the boxes have all values between 0 and 1: are they relative to the image size? "
        "COCO's are in pixels."
    ]
    assert not check(tmp_path, with_boxes(data, [[0.1, 0.2, 0.3, 0.4], [0, 0, 9, 9]]))["notes"]


def test_boxes_of_two_corners_give_a_warning(tmp_path, data):
    """The warning comes with and without clipping, but not for boxes cut at the edges of tiles."""
    corners = with_boxes(data, [[40, 20, 55, 35], [5, 6, 20, 15], [3, 20, 12, 38], [0, 0, 9, 9]])
    warning = (
        "50% of the boxes extend beyond their images when read as x, y, width, height, and 100% "
        "lie inside when read as x1, y1, x2, y2: are they corners? COCO's are x, y, width, height."
    )
    with pytest.raises(UserError) as info:
        check(tmp_path, corners)
    assert str(info.value).splitlines()[-1] == warning
    assert check(tmp_path, corners, clip=True)["notes"][0] == warning
    tiles = with_boxes(data, [[50, 30, 20, 20], [55, 4, 20, 10], [5, 6, 20, 10], [40, 35, 9, 9]])
    assert len(check(tmp_path, tiles, clip=True)["notes"]) == 1


def test_all_problems_in_one_list_of_at_most_20(tmp_path, data):
    template = data["annotations"][0]
    data["annotations"] = [{**template, "id": i, "bbox": [0, 0, 0, 5]} for i in range(30)]
    with pytest.raises(UserError) as error:
        check(tmp_path, data)
    lines = str(error.value).splitlines()
    assert "30 problems" in lines[0]
    assert len(lines) == 22
    assert lines[-1].strip() == "and 10 more"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "data.json is not valid JSON"),
        ("[]", "it has no list 'images'"),
        ('{"images": [7], "annotations": [], "categories": []}', "one of images lacks id"),
        (
            '{"images": [{"id": [1], "file_name": "a"}], "annotations": [], "categories": []}',
            "one of images has an id that is neither a number nor text",
        ),
        (
            '{"images": [{"id": NaN, "file_name": "a"}], "annotations": [], "categories": []}',
            "one of images has an id that is neither a number nor text",
        ),
        (
            '{"images": [{"id": 1, "file_name": 5}], "annotations": [], "categories": []}',
            "one of images has a file_name that is not text",
        ),
        ('{"images": [], "annotations": []}', "it has no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "has no images"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "one of images lacks file_name",
        ),
    ],
)
def test_no_coco_file(tmp_path, text, message):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(UserError, match=message):
        check_coco(str(tmp_path / "data.json"), str(tmp_path))
    with pytest.raises(UserError, match="nowhere.json cannot be read: No such file"):
        check_coco(str(tmp_path / "nowhere.json"), str(tmp_path))


ORIENTATIONS = range(1, 9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("claims", ["stored", "upright"])
def test_rotated_images(tmp_path, data, orientation, claims):
    """A bright block must be where the box is, in the image as Detectron2 reads it."""
    from detectron2.data.detection_utils import read_image

    image = Image.new("L", (WIDTH, HEIGHT))
    image.paste(255, (8, 4, 24, 12))  # x1, y1, x2, y2 in the stored image
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "b.png", exif=exif)
    upright = read_image(str(tmp_path / "b.png"), "RGB")[:, :, 0]
    ys, xs = (upright > 128).nonzero()
    seen = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]

    is_stored = claims == "stored" and orientation > 4
    box = [8, 4, 16, 8] if is_stored else list(map(int, seen))
    data["annotations"][0].update(image_id=12, bbox=box)
    x, y, width, height = box
    data["annotations"][0]["segmentation"] = [[x, y, x + width, y, x + width, y + height]]
    size = (WIDTH, HEIGHT) if is_stored else upright.shape[::-1]
    data["images"][1].update(width=size[0], height=size[1])
    checked = check(tmp_path, data)
    got = checked["annotations"][0]
    assert got["bbox"] == seen
    corners = set(zip(got["segmentation"][0][::2], got["segmentation"][0][1::2], strict=True))
    x, y, width, height = seen
    assert corners < {(x, y), (x + width, y), (x, y + height), (x + width, y + height)}
    size = checked["images"][1]["width"], checked["images"][1]["height"]
    assert size == upright.shape[::-1]


def test_a_sideways_mask_is_refused(tmp_path, data):
    save_image(tmp_path / "a.jpg", orientation=6)
    data["annotations"][0]["segmentation"] = {"size": [40, 60], "counts": [2400]}
    with pytest.raises(UserError, match="annotation 1 of image 11: .* stored sideways"):
        check(tmp_path, data)
