import json

import pytest

from eakd_det.data.conversion.yolo import read_yolo
from eakd_det.utils.errors import UserError
from tests.data.test_coco_check import HEIGHT, WIDTH

from .fixtures import BOXES, YOLO, boxes, write

FOUND = [("bolt", BOXES[0]), ("nut", BOXES[1])]
NAMES = "names: [bolt, nut]\n"
DATA = {"data.yaml": NAMES}


def rounded(data):
    """As `boxes`, to whole pixels."""
    return {k: [(n, [round(v) for v in box]) for n, box in v] for k, v in boxes(data).items()}


@pytest.mark.parametrize(
    "names",
    [
        {"data.yaml": NAMES},
        {"data.yaml": "names: {0: bolt, 1: nut}"},
        {"data.yaml": "names:\n  0: bolt\n  1: nut\nnc: 2", "other.yaml": "a: 1"},
        {"parts.yaml": NAMES},
        {"classes.txt": "bolt\r\nnut\r\n\r\n"},
        {"obj.names": "\ufeffbolt\nnut"},
        {"labels/classes.txt": "bolt\nnut\n"},
    ],
)
def test_class_names(tmp_path, names):
    root = write(tmp_path, {"images/a.jpg": {}, "labels/a.txt": YOLO, **names})
    source = read_yolo(root)
    assert rounded(source.splits["train"]) == {"images/a.jpg": FOUND}
    assert source.notes == []


@pytest.mark.parametrize(
    ("yaml", "images"),
    [
        (
            "",
            {"images/train/a.jpg": "train", "images/val/b.jpg": "val", "images/test/c.jpg": "test"},
        ),
        ("", {"train/images/a.jpg": "train", "valid/images/b.jpg": "val"}),
        ("", {"obj_train_data/a.jpg": "train", "obj_valid_data/b.jpg": "val"}),
        ("", {"obj_train_data/a.jpg": "train"}),
        ("", {"images/train2017/x/a.jpg": "train", "images/val2017/b.jpg": "val"}),
        ("", {"a.jpg": "train", "b.jpg": "train"}),
        ("", {"images/val/a.jpg": "train"}),
        (
            "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n",
            {"train/images/a.jpg": "train", "valid/images/b.jpg": "val"},
        ),
        (
            "path: /elsewhere/parts\ntrain: images/a\nval: [images/b, images/c]\n",
            {"images/a/a.jpg": "train", "images/b/b.jpg": "val", "images/c/c.jpg": "val"},
        ),
        (
            "path: x\ntrain: images\nvalid: /content/x/other/images\n",
            {"x/images/a.jpg": "train", "other/images/b.jpg": "val"},
        ),
        (
            "train: train.txt\nval: val.txt\n",
            {"images/a.jpg": "train", "images/b.jpg": "val"},
        ),
    ],
)
def test_splits(tmp_path, yaml, images):
    files = {"data.yaml": NAMES + yaml, "train.txt": "./images/a.jpg\n"}
    files["val.txt"] = "/home/me/images/b.jpg\n\n"
    for image in images:
        files[image] = {}
        files[image.replace("images", "labels").replace("jpg", "txt")] = YOLO
    splits = read_yolo(write(tmp_path, files)).splits
    found = {name: split for split, data in splits.items() for name in boxes(data)}
    assert found == images
    assert all(
        [*rounded(data).values()] == [FOUND] * len(data["images"]) for data in splits.values()
    )


def test_labels_beside_images_named_alike(tmp_path):
    """The last folder `images` counts; a file beside the image is the second choice."""
    files = {
        **DATA,
        "images/images/a.jpg": {},
        "images/labels/a.txt": YOLO,
        "images/images/b.jpg": {},
        "images/images/b.txt": YOLO,
    }
    assert [*rounded(read_yolo(write(tmp_path, files)).splits["train"]).values()] == [FOUND, FOUND]


def test_images_without_objects(tmp_path):
    images = {f"images/{name}.jpg": {} for name in "abc"}
    labels = {"labels/a.txt": YOLO, "labels/b.txt": "\n", "labels/d.txt": YOLO}
    source = read_yolo(write(tmp_path, {**DATA, **images, **labels}))
    assert [len(found) for found in boxes(source.splits["train"]).values()] == [2, 0, 0]
    assert [note for note in source.notes if "1 label files have no image" in note]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_fractions_of_the_displayed_image(tmp_path, orientation):
    files = {**DATA, "a.jpg": {"orientation": orientation}, "a.txt": "0 0.5 0.25 0.5 0.5"}
    data = read_yolo(write(tmp_path, files)).splits["train"]
    width, height = (HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT)
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (width, height)
    assert data["annotations"][0]["bbox"] == [width / 4, 0, width / 2, height / 2]


def test_polygons_scores_and_keypoints(tmp_path):
    lines = [
        "0 0.1 0.1 0.5 0.1 0.5 0.6",
        "1.0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6",  # also the corners of a rotated box
        "0 0.3 0.35 0.4 0.5 0.9",
        "0 0.3 0.35 0.4 0.5 0.2 0.2 2 0.3 0.3 2 0.5 0.5 0",
    ]
    yaml = NAMES + "kpt_shape: [3, 3]\n"
    data = read_yolo(write(tmp_path, {"data.yaml": yaml, "a.jpg": {}, "a.txt": "\n".join(lines)}))
    data = data.splits["train"]
    assert boxes(data)["a.jpg"] == [(n, [6, 4, 24, 20]) for n in ("bolt", "nut", "bolt", "bolt")]
    first, second, *others = data["annotations"]
    assert first["segmentation"] == [pytest.approx([6, 4, 30, 4, 30, 24])]
    assert (first["area"], second["area"]) == (pytest.approx(240), pytest.approx(480))
    assert not any("segmentation" in o for o in others)


def test_the_yaml_file_may_be_named(tmp_path, monkeypatch):
    write(tmp_path, {**DATA, "a.jpg": {}, "a.txt": YOLO})
    monkeypatch.chdir(tmp_path)
    for path in (str(tmp_path / "data.yaml"), "data.yaml", "."):
        assert rounded(read_yolo(path).splits["train"]) == {"a.jpg": FOUND}


def test_classes_with_gaps_keep_their_numbers(tmp_path):
    files = {
        "data.yaml": "names: {3: bolt, 7: nut}",
        "a.jpg": {},
        "a.txt": YOLO.replace("1 0.5", "7 0.5"),
    }
    files["a.txt"] = files["a.txt"].replace("0 0.24", "3 0.24")
    data = read_yolo(write(tmp_path, files)).splits["train"]
    assert data["categories"] == [{"id": 4, "name": "bolt"}, {"id": 8, "name": "nut"}]
    assert rounded(data) == {"a.jpg": FOUND}


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("2 0.5 0.5 0.1 0.1", r"there is no class 2 in .*data\.yaml"),
        ("-1 0.5 0.5 0.1 0.1", "there is no class -1"),
        ("0.5 0.5 0.5 0.1 0.1", "there is no class 0.5"),
        ("bolt 0.5 0.5 0.1 0.1", "could not convert"),
        ("0 0.5 0.5 0.1", "4 values are neither"),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.2", "8 values are neither"),
        ("0 30 20 10 10", "30 20 10 10 are no fractions"),
        ("0 nan 0.5 0.1 0.1", "no fractions"),
        ("0 0.5 0.5 0 0.1", "has no size"),
        ("0 0.5 0.5 -0.1 0.1", "is inverted"),
        ("0 0.9 0.5 0.4 0.1", "extends beyond the image of 60 x 40"),
    ],
)
def test_faults_name_file_and_line(tmp_path, line, text):
    write(tmp_path, {**DATA, "a.jpg": {}, "a.txt": f"{YOLO}\n{line}\n"})
    with pytest.raises(UserError, match=rf"1 problems:\n.*a\.txt, line 4: .*{text}"):
        read_yolo(str(tmp_path))


def test_boxes_may_be_clipped_later(tmp_path):
    write(tmp_path, {**DATA, "a.jpg": {}, "a.txt": "0 0.9 0.5 0.4 0.1"})
    assert len(read_yolo(str(tmp_path), clip=True).splits["train"]["annotations"]) == 1


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"data.yaml": "nc: 2"}, "no names of the classes"),
        ({"1/classes.txt": "a", "2/classes.txt": "b"}, "different names in"),
        ({"a.yaml": NAMES, "b.yml": NAMES}, "Several files"),
        ({"data.yaml": "- a"}, "is not a YAML file of keys"),
        ({"data.yaml": "names: !!python/name:os.system"}, "cannot be read"),
        ({"data.yaml": "names: bolt"}, "names must be a list"),
        ({"data.yaml": "names: [[bolt]]"}, "class 0 of names"),
        ({"data.yaml": "names: {a: bolt}"}, "class 'a' of names"),
        ({"data.yaml": NAMES + "kpt_shape: 3", "a.jpg": {}}, "kpt_shape is 3"),
        ({**DATA}, "has no images"),
        ({**DATA, "a.jpg": {}}, r"no image has a label file; .*a\.jpg"),
        ({**DATA, "a.jpg": "no image", "a.txt": YOLO}, r"a\.jpg cannot be read"),
        (
            {"data.yaml": NAMES + "train: t.txt", "t.txt": "a.jpg\nb.jpg\n", "a.jpg": {}},
            r"t\.txt, line 2: there is no image b\.jpg",
        ),
    ],
)
def test_other_faults(tmp_path, files, text):
    with pytest.raises(UserError, match=text):
        read_yolo(write(tmp_path, files))


def test_missing_folders_and_strays_are_said(tmp_path):
    files = {"images/train/a.jpg": {}, "labels/train/a.txt": YOLO, "preview.png": {}}
    yaml = {"data.yaml": NAMES + "train: nowhere/at/all\n"}
    source = read_yolo(write(tmp_path, {**files, **yaml}))
    assert "names nowhere/at/all, which does not exist" in source.notes[0]
    assert "1 images beside the folders train are left out" in source.notes[1]
    json.dumps(source.splits)
