import pytest
from detectron2.data.datasets.pascal_voc import load_voc_instances
from detectron2.structures import BoxMode

from eakd_det.data.conversion.voc import read_voc
from eakd_det.utils.errors import UserError
from tests.data.test_coco_check import HEIGHT, WIDTH

from .fixtures import BOXES, OBJECTS, boxes, voc_xml, write

FOUND = [("bolt", BOXES[0]), ("nut", BOXES[1])]


def devkit(names="ab"):
    images = {f"JPEGImages/{name}.jpg": {} for name in names}
    return images | {f"Annotations/{name}.xml": voc_xml() for name in names}


def test_boxes_are_those_of_detectron2(tmp_path):
    root = write(tmp_path, {**devkit(), "ImageSets/Main/train.txt": "a\nb\n"})
    source = read_voc(root)
    expected = load_voc_instances(root, "train", ("bolt", "nut"))
    for image, wanted in zip(source.splits["train"]["images"], expected, strict=True):
        assert f"{root}/{image['file_name']}" == wanted["file_name"]
        assert (image["width"], image["height"]) == (wanted["width"], wanted["height"])
        for o in wanted["annotations"]:
            o["bbox"] = BoxMode.convert(o["bbox"], BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        objects = source.splits["train"]["annotations"]
        objects = [o for o in objects if o["image_id"] == image["id"]]
        assert [o["bbox"] for o in objects] == [o["bbox"] for o in wanted["annotations"]]
    assert boxes(source.splits["train"])["JPEGImages/a.jpg"] == FOUND
    assert source.notes == []


@pytest.mark.parametrize(
    ("files", "image"),
    [
        ({"a.xml": voc_xml(), "a.jpg": {}}, "a.jpg"),
        ({"a.xml": voc_xml(file_name="C:\\old\\b.png"), "b.png": {}}, "b.png"),
        ({"annotations/a.xml": voc_xml(), "images/a.PNG": {}}, "images/a.PNG"),
        ({"a.xml": voc_xml(file_name="a.png"), "a.png": {}, "a.jpg": {}}, "a.png"),
        (
            {
                "Annotations/cam1/a.xml": voc_xml(),
                "JPEGImages/cam1/a.jpg": {},
                "JPEGImages/cam2/a.jpg": {},
                "SegmentationClass/a.png": {},
            },
            "JPEGImages/cam1/a.jpg",
        ),
    ],
)
def test_layouts(tmp_path, files, image):
    assert boxes(read_voc(write(tmp_path, files)).splits["train"]) == {image: FOUND}


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        ({"train": "a\n", "val": "b\n", "test": "c"}, {"train": "a", "val": "b", "test": "c"}),
        ({"trainval": "a\nb", "val": "b", "aeroplane_train": "c 1"}, {"train": "a", "val": "b"}),
        ({"Train": '"a"\n', "Validation": "b 1\nc -1\n"}, {"train": "a", "val": "bc"}),
        ({"default": "a\nb\n"}, {"train": "abc"}),
    ],
)
def test_lists(tmp_path, lists, splits):
    lists = {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()}
    found = read_voc(write(tmp_path, devkit("abc") | lists)).splits
    names = {
        s: [i["file_name"][len("JPEGImages/") :][0] for i in found[s]["images"]] for s in found
    }
    assert {split: "".join(images) for split, images in names.items()} == splits
    assert len({str(data["categories"]) for data in found.values()}) == 1


def test_what_the_lists_leave_out_is_said(tmp_path):
    lists = {"ImageSets/Main/train.txt": "a\nx\n"}
    notes = read_voc(write(tmp_path, devkit() | lists)).notes
    assert "1 of 2 names in the list train of ImageSets/Main have no XML file: x" in notes[0]
    assert "1 XML files are in no list" in notes[1]


def test_folders_of_roboflow(tmp_path):
    files = {
        f"{split}/{split}.{suffix}": content
        for split in ("train", "valid", "test")
        for suffix, content in (("xml", voc_xml()), ("jpg", {}))
    }
    found = read_voc(write(tmp_path, files)).splits
    assert {split: [*boxes(data)] for split, data in found.items()} == {
        "train": ["train/train.jpg"],
        "val": ["valid/valid.jpg"],
        "test": ["test/test.jpg"],
    }


@pytest.mark.parametrize(
    ("size", "note"),
    [(None, "no size"), ((0, 0), "no size"), (("", "x"), "no size"), ((600, 400), "another size")],
)
def test_size_of_the_image(tmp_path, size, note):
    source = read_voc(write(tmp_path, {"a.xml": voc_xml(size=size), "a.jpg": {}}))
    [image] = source.splits["train"]["images"]
    assert (image["width"], image["height"]) == (WIDTH, HEIGHT)
    assert note in source.notes[0]
    assert boxes(source.splits["train"])["a.jpg"] == FOUND


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH)])
def test_rotated_images_keep_the_size_of_their_boxes(tmp_path, size):
    """The check rotates boxes of the stored image, as those of COCO files."""
    objects = [("bolt", (5, 6, 25, 16))]
    files = {"a.xml": voc_xml(objects, size=size), "a.jpg": {"orientation": 6}}
    [image] = read_voc(write(tmp_path, files)).splits["train"]["images"]
    assert (image["width"], image["height"]) == size


def test_flags_and_corners_from_0(tmp_path):
    objects = [("bolt", (0, 1, 25, 16))]
    flags = "<difficult>1</difficult><truncated>0</truncated>"
    source = read_voc(write(tmp_path, {"a.xml": voc_xml(objects, more=flags), "a.jpg": {}}))
    [o] = source.splits["train"]["annotations"]
    assert (o["bbox"], o["difficult"], o["truncated"]) == ([0, 0, 25, 16], 1, 0)
    assert "1 corners are less than 1" in source.notes[0]


def test_other_files_are_skipped_with_a_note(tmp_path):
    files = {
        "a.xml": voc_xml(),
        "b.xml": voc_xml([]),
        **{f"{name}.jpg": {} for name in "abc"},
        "a.jpg.aux.xml": "<PAMDataset/>",
        ".hidden.xml": "<x",
    }
    source = read_voc(write(tmp_path, files))
    assert boxes(source.splits["train"]) == {"a.jpg": FOUND, "b.jpg": []}
    assert "1 other XML files are skipped" in source.notes[0]
    assert "1 images without an XML file are left out" in source.notes[1]


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a.jpg": {}}, "no XML files of Pascal VOC"),
        ({"a.xml": "<annotations/>"}, "has the root <annotations>.* Export"),
        ({"a.xml": "<annotation>"}, r"a\.xml cannot be read: no element"),
        ({"a.xml": voc_xml([]), "a.jpg": {}}, "no XML file has an object"),
        ({"a.xml": voc_xml()}, r"a\.xml: no image of the name a or 'a.jpg'"),
        ({"a.xml": voc_xml(), "1/a.jpg": {}, "2/a.jpg": {}}, r"a\.xml: several images: .*1/a\.jpg"),
        ({"a.xml": voc_xml(), "a.jpg": "no image"}, r"a\.jpg cannot be read"),
        (
            {"a.xml": voc_xml([*OBJECTS, ("", (1, 1, 2, 2))]), "a.jpg": {}},
            r"a\.xml: object 3 has no <name>",
        ),
        (
            {"a.xml": voc_xml([("bolt", ("x", 1, 2, 2))]), "a.jpg": {}},
            r"a\.xml: object 1 \(bolt\) has no number in one of xmin",
        ),
        (
            {"a.xml": voc_xml([("bolt", ("nan", 1, 2, 2))]), "a.jpg": {}},
            r"a\.xml: object 1 .* not a finite number",
        ),
        (
            {"a.xml": voc_xml([("bolt", (9, 1, 5, 2))]), "a.jpg": {}},
            r"a\.xml: object 1 .* is inverted",
        ),
        (
            {"a.xml": voc_xml([("bolt", (9, 1, 95, 2))]), "a.jpg": {}},
            r"a\.xml: object 1 \(bolt\): box .* extends beyond the image of 60 x 40",
        ),
        (
            {"a.xml": voc_xml().replace("bndbox", "robndbox"), "a.jpg": {}},
            r"a\.xml: object 1 \(bolt\) is a rotated box",
        ),
    ],
)
def test_faults_name_the_file(tmp_path, files, text):
    with pytest.raises(UserError, match=text):
        read_voc(write(tmp_path, files))


def test_faults_are_listed_together(tmp_path):
    bad = voc_xml([("bolt", (9, 1, 95, 2))])
    files = {f"{name}.xml": bad for name in "abc"} | {f"{name}.jpg": {} for name in "abc"}
    with pytest.raises(UserError, match=r"3 problems:\n.*a\.xml.*\n.*b\.xml.*\n.*c\.xml"):
        read_voc(write(tmp_path, files))
    assert len(read_voc(str(tmp_path), clip=True).splits["train"]["annotations"]) == 3


def test_there_is_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        read_voc(str(tmp_path / "x"))
