"""eakd_det.data.datasets.trees."""

import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from eakd_det.data.datasets import trees
from eakd_det.data.datasets.trees import FOLDER, IN_WHEEL, PACKAGE, WHEEL, generate_trees
from eakd_det.utils.errors import UserError

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>"
    "</bndbox></object>"
)
PICTURES = {  # name -> size, and crowns as corners
    "first": ((400, 256), [("Tree", 10, 20, 40, 60), ("Dead", 250, 0, 270, 30)]),
    "second": ((100, 120), [("Tree", 0, 0, 100, 90), ("Tree", 20, 70, 40, 95)]),
}


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with two pictures, in the folder where that of DeepForest is looked for."""
    path = tmp_path / FOLDER / WHEEL
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as file:
        for name, ((width, height), crowns) in PICTURES.items():
            picture = io.BytesIO()
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(picture, "PNG")
            file.writestr(f"{IN_WHEEL}/{name}.png", picture.getvalue())
            objects = "".join(OBJECT.format(*crown) for crown in crowns)
            file.writestr(f"{IN_WHEEL}/{name}.xml", f"<annotation>{objects}</annotation>")
        file.writestr("deepforest/__init__.py", "raise SystemExit('code of the wheel was run')")
    monkeypatch.setattr(trees, "PHOTOGRAPHS", {"first": None, "second": 80})
    monkeypatch.setattr(trees, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def _read(root, split):
    with open(root / "annotations" / f"{split}.json") as f:
        return json.load(f)


def test_tiles_of_the_pictures_in_the_wheel(wheel, tmp_path):
    root = tmp_path / "trees"
    generate_trees(str(root))
    train, val = _read(root, "train"), _read(root, "val")
    tiles = [(image["file_name"], image["width"], image["height"]) for image in train["images"]]
    assert tiles == [
        ("train_first_0_0.png", 256, 256),
        ("train_first_144_0.png", 256, 256),
        ("train_second.png", 100, 80),
    ]
    found = [(a["image_id"], a["category_id"], a["bbox"]) for a in train["annotations"]]
    assert found == [
        (1, 1, [10, 20, 30, 40]),  # the second crown has less than 40 % in this tile
        (2, 1, [250 - 144, 0, 20, 30]),
        (3, 1, [0, 0, 100, 80]),
        (3, 1, [20, 70, 20, 10]),
    ]
    assert [c["name"] for c in train["categories"]] == ["Tree"]
    assert [image["file_name"] for image in val["images"]] == ["val_second.png"]
    assert [a["bbox"] for a in val["annotations"]] == [[20, 0, 20, 15]]  # and 11 % of the first
    with zipfile.ZipFile(wheel) as file, Image.open(file.open(f"{IN_WHEEL}/first.png")) as picture:
        pixels = np.asarray(picture)
    with Image.open(root / "train" / "train_first_144_0.png") as tile:
        assert (np.asarray(tile) == pixels[:, 144:]).all()
    assert sorted(os.listdir(tmp_path)) == [FOLDER, "trees"]


def test_a_missing_wheel_is_one_sentence_with_the_command(tmp_path):
    with pytest.raises(UserError) as info:
        generate_trees(str(tmp_path / "trees"))
    text = str(info.value)
    assert "\n" not in text and str(tmp_path / FOLDER / WHEEL) in text
    assert text.endswith(f"python -m pip download {PACKAGE} --no-deps -d {tmp_path / FOLDER}")
    assert os.listdir(tmp_path) == []


def test_another_file_is_refused(wheel, tmp_path):
    with open(wheel, "ab") as f:
        f.write(b"more")
    with pytest.raises(UserError, match=r"is not the wheel of .* on PyPI: its SHA256 is .* Remove"):
        generate_trees(str(tmp_path / "trees"))
    assert os.listdir(tmp_path) == [FOLDER]


def test_metadata():
    metadata = MetadataCatalog.get("trees_val")
    assert metadata.thing_classes == ["Tree"] and metadata.evaluator_type == "coco"
