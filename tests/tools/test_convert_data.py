"""tools/convert_data.py, whose conversion is called in this process but for one test."""

import json
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from PIL import Image

from eakd_det.data.coco_check import check_coco
from eakd_det.data.conversion.convert import convert
from eakd_det.utils.errors import UserError
from tests.data.conversion.fixtures import BOXES, OBJECTS, YOLO, boxes, voc_xml, write
from tests.data.test_coco_check import HEIGHT, WIDTH

TOOL = Path(__file__).parents[2] / "tools" / "convert_data.py"
FOUND = [("bolt", BOXES[0]), ("nut", BOXES[1])]


def voc(names="abcdefghij", more=""):
    images = {f"JPEGImages/{name}.jpg": {} for name in names}
    return images | {f"Annotations/{name}.xml": voc_xml(OBJECTS, more=more) for name in names}


def yolo(*names):
    files = {"data.yaml": "names: [bolt, nut]"}
    for name in names:
        files |= {f"images/{name}.jpg": {}, f"labels/{name}.txt": YOLO}
    return files


def coco(names="ab", **images):
    """A COCO file whose images are named, with an object each."""
    return json.dumps(
        {
            "images": [{"id": i, "file_name": f"{n}.jpg", **images} for i, n in enumerate(names)],
            "annotations": [
                {"id": i + 1, "image_id": i, "category_id": 4, "bbox": BOXES[0]}
                for i in range(len(names))
            ],
            "categories": [{"id": 4, "name": "bolt"}],
        }
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Converts tmp_path/in to tmp_path/out; the text and the splits."""
    parse = runpy.run_path(str(TOOL))["parse_arguments"]

    def call(kind, *options, source="in", out="out"):
        words = [str(TOOL), kind, str(tmp_path / source), str(tmp_path / out), *options]
        monkeypatch.setattr(sys, "argv", words)
        text = convert(parse())
        splits = ("train", "val", "test")
        paths = {split: tmp_path / out / f"{split}.json" for split in splits}
        return text, {s: json.loads(p.read_text()) for s, p in paths.items() if p.exists()}

    return call


def test_voc_and_yolo_give_the_same_boxes(tmp_path, run):
    write(tmp_path / "v", voc("ab"))
    write(tmp_path / "y", yolo("a", "b"))
    before = sorted((p, p.stat().st_mtime_ns) for p in tmp_path.rglob("*"))
    of_voc, of_yolo = (
        [*boxes(run(kind, source=kind[0], out=kind)[1]["train"]).values()]
        for kind in ("voc", "yolo")
    )
    assert of_voc == [FOUND, FOUND]
    for objects, others in zip(of_voc, of_yolo, strict=True):
        assert [name for name, _ in objects] == [name for name, _ in others]
        for (_, box), (_, other) in zip(objects, others, strict=True):
            assert box == pytest.approx(other, abs=0.5)
    assert [x for x in before if x[0].parent != tmp_path] == sorted(
        (p, p.stat().st_mtime_ns) for folder in "vy" for p in (tmp_path / folder).rglob("*")
    )


def test_text_and_next_command(tmp_path, run):
    write(tmp_path / "in", voc())
    text, splits = run("voc", "--val-fraction", "0.2")
    assert f"{tmp_path}/out/train.json: 8 images (0 without annotations), 16 boxes" in text
    assert f"{tmp_path}/out/val.json: 2 images" in text
    words = shlex.split(text.splitlines()[-1])
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    for split in splits:
        assert flags[f"--{split}-json"] == str(tmp_path / "out" / f"{split}.json")
        names = [image["file_name"] for image in splits[split]["images"]]
        assert all((Path(flags[f"--{split}-images"]) / name).is_file() for name in names)
    text, _ = run("voc", "--overwrite")
    assert "--val-fraction 0.1 divides the images" in text
    assert not (tmp_path / "out" / "val.json").exists()


def test_difficult_objects_are_trained_and_not_evaluated(tmp_path, run):
    write(tmp_path / "in", voc(more="<difficult>1</difficult>"))
    text, splits = run("voc", "--val-fraction", "0.2")
    crowds = {split: {a["iscrowd"] for a in data["annotations"]} for split, data in splits.items()}
    assert crowds == {"train": {0}, "val": {1}}
    assert "difficult (16 in train, 4 in val)" in text


def test_the_source_s_own_division_is_kept_or_made_anew(tmp_path, run):
    names = [f"{split}/{i}" for split in ("train", "val", "test") for i in range(4)]
    write(tmp_path / "in", yolo(*names))
    _, splits = run("yolo")
    assert {split: len(data["images"]) for split, data in splits.items()} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }
    text, splits = run("yolo", "--val-fraction", "0.25", "--overwrite")
    assert {split: len(data["images"]) for split, data in splits.items()} == {
        "train": 6,
        "val": 2,
        "test": 4,
    }
    assert "divided anew" in text
    files = [image["file_name"] for s in ("train", "val") for image in splits[s]["images"]]
    assert len({*files}) == 8


def test_tiles_of_a_picture_stay_together(tmp_path, run):
    size = {"size": (150, 100)}
    names = "abcde"
    files = {f"images/{n}.jpg": size for n in names} | {"x.json": coco(names)}
    write(tmp_path / "in", files)
    images = ("--images", str(tmp_path / "in" / "images"))
    text, splits = run(
        *("coco", "--tile", "64", "--overlap", "16", "--val-fraction", "0.2", *images),
        source="in/x.json",
    )
    sources = {s: {i["source"] for i in data["images"]} for s, data in splits.items()}
    assert (len(sources["train"]), len(sources["val"])) == (4, 1)
    assert not sources["train"] & sources["val"]
    assert len(splits["val"]["images"]) == 6
    for split in splits:
        for image in splits[split]["images"]:
            with Image.open(tmp_path / "out" / "tiles" / image["file_name"]) as tile:
                assert tile.size == (64, 64)
    assert f"--train-images {tmp_path}/out/tiles" in text


def test_rotated_pictures_are_tiled_upright(tmp_path, run):
    """VOC's boxes of the stored image are rotated before the tiles are cut."""
    saved = {"size": (150, 100), "orientation": 6}
    xml = voc_xml([("bolt", (5, 6, 25, 16))], size=(150, 100))
    write(tmp_path / "in", {"a.xml": xml, "a.jpg": saved})
    _, splits = run("voc", "--tile", "64", "--overlap", "0")
    found = {name: objects for name, objects in boxes(splits["train"]).items() if objects}
    assert found == {"a_36_0.jpg": [("bolt", [48, 4, 11, 21])]}  # 84 to 95 of 100


def test_large_boxes_and_missing_classes_are_said(tmp_path, run):
    write(tmp_path / "in", voc("ab") | {"Annotations/b.xml": voc_xml([OBJECTS[0]])})
    text, splits = run("voc", "--val-fraction", "0.5", "--tile", "24", "--overlap", "0")
    assert "boxes that a tile cuts below 40%" in text
    has_nut = ["nut" in {n for o in boxes(d).values() for n, _ in o} for d in splits.values()]
    assert not any(has_nut), "no tile has 40 % of the whole picture"
    (tmp_path / "out").rename(tmp_path / "before")
    text, _ = run("voc", "--val-fraction", "0.5")
    assert "no object in the" in text


@pytest.mark.parametrize(
    "files",
    [
        {
            "annotations/instances_train2017.json": coco("a"),
            "annotations/instances_val2017.json": coco("b"),
            "annotations/captions_val2017.json": "{}",
            "train2017/a.jpg": {},
            "val2017/b.jpg": {},
        },
        {
            "train/_annotations.coco.json": coco("a"),
            "valid/_annotations.coco.json": coco("b"),
            "train/a.jpg": {},
            "valid/b.jpg": {},
        },
        {"train.json": coco("a"), "val.json": coco("b"), "images/a.jpg": {}, "images/b.jpg": {}},
    ],
)
def test_folders_of_coco_files(tmp_path, run, files):
    write(tmp_path / "in", files)
    _, splits = run("coco")
    names = {split: [i["file_name"] for i in data["images"]] for split, data in splits.items()}
    images = [name for name in files if name.endswith("jpg")]
    assert names == {"train": images[:1], "val": images[1:]}
    _, splits = run("coco", "--val-fraction", "0.5", "--overwrite")
    assert sorted(i["file_name"] for d in splits.values() for i in d["images"]) == sorted(images)


def test_one_file_of_cvat(tmp_path, run):
    files = {"annotations/instances_default.json": coco("ab"), "images/default/a.jpg": {}}
    write(tmp_path / "in", {**files, "images/default/b.jpg": {}})
    _, splits = run("coco")
    assert [*boxes(splits["train"])] == ["images/default/a.jpg", "images/default/b.jpg"]
    with pytest.raises(UserError, match=r"2 problems:\n.*no file .*a\.jpg\n.*b\.jpg"):
        run("coco", "--images", str(tmp_path / "in" / "annotations"), "--overwrite")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"x.jpg": {}}, "has no COCO file"),
        ({"a.json": coco(), "b.json": coco()}, "It is not clear which"),
        ({"train_a.json": coco(), "train_b.json": coco()}, "It is not clear which"),
        ({"val.json": coco(), "test.json": coco()}, "no COCO file of training data"),
        ({"a.json": coco()}, r"its image a\.jpg is in none of"),
        ({"a.json": coco(width=5, height=5), "a.jpg": {}, "b.jpg": {}}, "5 x 5 in the JSON"),
        (
            {
                **{"train.json": coco("a"), "val.json": coco("a").replace("bolt", "nut")},
                "a.jpg": {},
            },
            "different categories",
        ),
    ],
)
def test_faults_of_coco_folders(tmp_path, run, files, text):
    write(tmp_path / "in", files)
    with pytest.raises(UserError, match=text):
        run("coco")
    assert not (tmp_path / "out").exists()


def test_clip_boxes(tmp_path, run):
    xml = voc_xml([("bolt", (31, 1, 91, 20))])
    write(tmp_path / "in", {"a.xml": xml, "a.jpg": {}})
    with pytest.raises(UserError, match="--clip-boxes"):
        run("voc")
    _, splits = run("voc", "--clip-boxes")
    assert boxes(splits["train"]) == {"a.jpg": [("bolt", [30, 0, WIDTH - 30, 20])]}


def test_an_out_folder_of_other_files_is_refused(tmp_path, run):
    write(tmp_path / "in", voc("ab"))
    write(tmp_path / "out", {"mine.txt": "x"})
    for options in ([], ["--overwrite"]):
        with pytest.raises(UserError, match="holds other files"):
            run("voc", *options)
    for out, text in [("out/mine.txt", "is a file"), ("in", "must lie outside"), (".", "outside")]:
        with pytest.raises(UserError, match=text):
            run("voc", "--overwrite", out=out)
    with pytest.raises(UserError, match="must lie outside"):
        run("voc", out="in/coco")
    assert {p.name for p in tmp_path.rglob("*.txt")} == {"mine.txt"}


def test_overwrite_removes_what_the_tool_wrote_alone(tmp_path, run):
    write(tmp_path / "in", voc("ab"))
    run("voc", "--tile", "32", "--overlap", "0", "--val-fraction", "0.5")
    write(tmp_path / "out", {"mine.txt": "x"})
    with pytest.raises(UserError, match="holds a conversion: --overwrite"):
        run("voc")
    assert (tmp_path / "out" / "tiles").is_dir()
    run("voc", "--overwrite")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"conversion.json", "train.json", "mine.txt"}


def test_a_faulty_source_leaves_the_earlier_result(tmp_path, run):
    write(tmp_path / "in", voc("ab"))
    run("voc")
    write(tmp_path / "in", {"Annotations/a.xml": "<a"})
    with pytest.raises(UserError, match=r"a\.xml cannot be read"):
        run("voc", "--overwrite")
    assert (tmp_path / "out" / "train.json").is_file()


def test_a_division_that_fails_does_so_before_tiles_are_cut(tmp_path, run):
    write(tmp_path / "in", voc("ab"))
    options = ("--tile", "32", "--overlap", "0", "--val-fraction", "0.5")
    with pytest.raises(UserError, match="one group"):
        run("voc", *options, "--group-by", "folder")
    assert not (tmp_path / "out" / "tiles").exists()
    with pytest.raises(UserError, match="no regular expression"):
        run("voc", *options, "--group-by", "(", "--overwrite")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--val-fraction", "1"], "1 is not between 0 and 1"),
        (["--tile", "64", "--overlap", "64"], "--overlap is 64; it must be from 0 to below"),
        (["--images", "x"], "--images belongs to coco"),
    ],
)
def test_mistakes_on_the_command_line(run, capsys, options, text):
    with pytest.raises(SystemExit):
        run("voc", *options)
    assert text in capsys.readouterr().err


def test_tool(tmp_path, call_tool):
    write(tmp_path / "VOC2007", voc("ab"))
    out = str(tmp_path / "OUT")
    code, text, err = call_tool("convert_data.py", "voc", str(tmp_path / "VOC2007"), out)
    assert code == 0, text + err
    assert "2 images (0 without annotations), 4 boxes" in text
    code, _, err = call_tool("convert_data.py", "voc", str(tmp_path / "VOC2007"), out)
    assert code == 1
    assert err.startswith("error: OUT")


def test_size_of_the_images(tmp_path, run):
    write(tmp_path / "in", voc("ab"))
    _, splits = run("voc")
    sizes = {(i["width"], i["height"]) for i in splits["train"]["images"]}
    assert sizes == {(WIDTH, HEIGHT)}


def test_corrections_are_made_once(tmp_path, run):
    """CVAT's rotation is applied by the check of the source; the result is checked again later."""
    data = json.loads(coco("a"))
    data["annotations"][0].update(bbox=[10, 15, 20, 4], attributes={"rotation": 90.0})
    write(tmp_path / "in", {"a.json": json.dumps(data), "a.jpg": {}})
    box = check_coco(str(tmp_path / "in" / "a.json"), str(tmp_path / "in"))["annotations"][0][
        "bbox"
    ]
    for options in ([], ["--overwrite", "--tile", "60"]):
        _, splits = run("coco", "--overlap", "0", *options)
        assert splits["train"]["annotations"][0]["bbox"] == pytest.approx(box)


def test_an_image_that_is_listed_twice_stays_so(tmp_path, run):
    """Label Studio lists an image for each annotator; both entries come into one part."""
    write(tmp_path / "in", {"train.json": coco("aabcd"), "val.json": coco("ade")})
    write(tmp_path / "in", {f"{name}.jpg": {} for name in "abcde"})
    _, splits = run("coco", "--val-fraction", "0.4")
    names = [[image["file_name"][0] for image in data["images"]] for data in splits.values()]
    assert sorted(names[0] + names[1]) == [*"aabcde"]
    assert not {*names[0]} & {*names[1]}
