"""COCO files as the exporters of docs/datasets.md write them, one in tests/data/exporters each."""

import json
import unicodedata
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog

from eakd_det.config.defaults import add_distill_config
from eakd_det.data.coco_check import check_coco
from eakd_det.data.custom import prepare_custom_data, use_custom_data
from eakd_det.engine.trainer import DistillTrainer
from eakd_det.utils.errors import UserError

from .test_coco_check import save_image

FIXTURES = Path(__file__).parent / "exporters"
# Files on the disk (and options of `save_image`) where they differ from the names in the JSON.
FILES = {
    "label_studio": {
        "0a1b2c3d-a.png": {},
        "4e5f6a7b-b c.png": {},
        "portrait.jpg": {"orientation": 6},
        "images/d.png": {},
    },
    "labelme": {"JPEGImages/a.jpg": {}, "JPEGImages/b.jpg": {}},
    "labelme2coco": {"a.jpg": {}, "b.jpg": {}},
    "text_ids": {unicodedata.normalize("NFD", "Größe.jpg"): {}, "b.jpg": {}},
}
# Class names, and beginnings of the notes.
TRAINED = {
    "coco": (["washer", "nut", "bolt"], ["1 of 3 objects have iscrowd 1"]),
    "cvat": (
        ["bolt", "nut"],
        ["1 of 3 boxes are rotated rectangles", "1 of 3 objects have iscrowd 1"],
    ),
    "label_studio": (
        ["bolt", "nut"],
        [
            "4 of 5 images are found under another name than in the JSON, as "
            "'images\\\\0a1b2c3d-a.png' under '0a1b2c3d-a.png'",
            "1 of 5 images are files that are listed already",
            "1 of 5 images are stored sideways (EXIF), and Label Studio",
        ],
    ),
    "roboflow": (["bolt", "nut"], ["category 'parts' has no boxes and is the parent"]),
    "labelme": (["_background_", "bolt", "nut"], ["1 of 3 objects have an invalid segmentation"]),
    "labelme2coco": (
        ["bolt", "nut"],
        ["1 of 2 images are found under another name than in the JSON"],
    ),
    "x_anylabeling": (["bolt", "nut"], []),
    "fiftyone": (["bolt", "nut"], []),
    "supervisely": (["bolt", "nut"], []),
    "text_ids": (
        ["Schlüssel", "螺丝"],
        [
            "1 of 2 images are found under another name than in the JSON",
            "1 of 2 objects have an invalid segmentation",
        ],
    ),
}
REFUSED = {
    "coco_zero_height": r"annotation 918 of image 20: box \[.*\] has no size",
    "x_anylabeling_difficult": "annotation 1 of image 0: Detectron2 does not know the key 'ignore'",
    "x_anylabeling_rotated": r"annotation 0 of image 0: box \[\] is not a list of x, y, width, hei",
    "fiftyone_unlabeled": "is not a COCO file of objects: it has no list 'annotations'",
    "supervisely_one_pixel": r"annotation 1 of image 1: box \[8, 6, 0, 17\] has no size",
    "text_values": r"annotation 1 of image 1: box \['5', .*\] has a value that is not a finite num",
    "text_references": "annotation 1 of image 1: the file has no category '1'",
    "nan": "annotation 1 of image 1: area is nan; it must be a number of pixels, or missing",
    "five_values": r"annotation 1 of image 1: box \[.*\] is not a list of x, y, width, height",
}


def test_each_fixture_is_tested():
    assert {path.stem for path in FIXTURES.iterdir()} == TRAINED.keys() | REFUSED.keys()


@pytest.fixture
def export(tmp_path):
    """Makes the images of a fixture; the paths of the fixture and of the folder of the images."""

    def make(name):
        path = FIXTURES / f"{name}.json"
        images = json.loads(path.read_text("utf-8-sig"))["images"]
        files = FILES.get(name) or {image["file_name"]: {} for image in images}
        for file, options in files.items():
            target = tmp_path / "images" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            save_image(target, **options)
        return str(path), str(tmp_path / "images")

    return make


@pytest.mark.parametrize("name", TRAINED)
def test_three_steps(stock_cfg, export, tmp_path, name):
    found = prepare_custom_data(str(tmp_path / "checked"), train=export(name))
    classes, notes = TRAINED[name]
    assert [name for _, name in found["train"].classes] == classes
    for note, start in zip(found["train"].data["notes"], notes, strict=True):
        assert note.startswith(start)
    add_distill_config(stock_cfg)
    cfg = stock_cfg
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 2, 3, ()
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.OUTPUT_DIR = str(tmp_path)
    use_custom_data(cfg, found)
    trained = sum(not a["iscrowd"] for a in found["train"].data["annotations"])
    scenes = DatasetCatalog.get("custom_train")
    assert sum(not a["iscrowd"] for x in scenes for a in x["annotations"]) == trained
    trainer = DistillTrainer(cfg)
    trainer.train()
    losses = trainer.storage.history("total_loss").values()
    assert len(losses) == 3
    assert all(torch.isfinite(torch.tensor(loss)) for loss, _ in losses)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(export, name):
    with pytest.raises(UserError, match=REFUSED[name]):
        check_coco(*export(name))


def test_rotated_rectangles_of_cvat(export):
    """A rectangle of 20 x 10 that is rotated by 90 degrees about its centre is one of 10 x 20."""
    first, *others = check_coco(*export("cvat"))["annotations"]
    assert first["bbox"] == pytest.approx([25, 10, 10, 20])
    assert first["area"] == 200
    assert [a["bbox"] for a in others] == [[10.0, 0.0, 5.0, 40.0], [8.0, 6.0, 22.0, 18.0]]


def test_sideways_images_of_label_studio(export):
    """Rectangles are those of the upright image; polygons are stretched from the stored size."""
    data = check_coco(*export("label_studio"))
    assert (data["images"][2]["width"], data["images"][2]["height"]) == (40, 60)
    rectangle, polygon = (a for a in data["annotations"] if a["image_id"] == 2)
    assert rectangle["bbox"] == [4.0, 30.0, 16.0, 20.0]
    assert polygon["bbox"] == pytest.approx([4, 12, 16, 24])
    assert polygon["segmentation"] == [pytest.approx([4, 12, 20, 12, 20, 36])]
