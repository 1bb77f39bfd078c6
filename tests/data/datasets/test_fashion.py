"""eakd_det.data.datasets.fashion."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog

from eakd_det.data.datasets import fashion_mnist
from eakd_det.data.datasets.fashion import (
    DARKEST,
    NAMES,
    THREE,
    generate_fashion,
    read_garments,
    silhouette,
)
from eakd_det.data.datasets.fashion_mnist import DEBIAN_FASHION_MNIST
from eakd_det.utils.errors import UserError

from .idx import write_fashion_mnist

FIRST_USE = """
from detectron2.data import DatasetCatalog
import eakd_det.data.datasets.fashion as fashion
fashion.NUM_SCENES.update(train=3, val=2)
train = DatasetCatalog.get("fashion_det_train")
val = DatasetCatalog.get("fashion_det_val")
assert (len(train), len(val)) == (3, 2)
print(train[0]["file_name"])
"""


def _contents(root):
    return {p.relative_to(root): p.read_bytes() for p in Path(root).rglob("*") if p.is_file()}


def _proportions(root, split):
    """Height to width of the boxes."""
    with open(root / "annotations" / f"{split}.json") as f:
        boxes = [a["bbox"] for a in json.load(f)["annotations"]]
    return [h / w for _, _, w, h in boxes]


def test_generated_on_first_use(call_code, tmp_path):
    root = tmp_path / "elsewhere"
    write_fashion_mnist(root / "FashionMNIST" / "raw")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root)}
    code, out, err = call_code(FIRST_USE, environment=environment)
    assert code == 0, err
    assert out.strip().splitlines()[-1].startswith(str(root))
    assert (root / "fashion_det" / "val" / "00002.png").exists()


def test_three_of_the_classes(call_code, tmp_path):
    """The same images: other names and order, and no boxes of other classes."""
    root = tmp_path / "elsewhere"
    write_fashion_mnist(root / "FashionMNIST" / "raw")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root)}
    code, _, err = call_code(FIRST_USE.replace("_det_", "_det_3_"), environment=environment)
    assert code == 0, err
    paths = [
        root / name / "annotations" / "train.json" for name in ("fashion_det", "fashion_det_3")
    ]
    whole, part = (json.loads(path.read_text()) for path in paths)
    assert part["images"] == whole["images"]
    names = [{c["id"]: c["name"] for c in x["categories"]} for x in (whole, part)]
    assert list(names[1].values()) == list(THREE)
    boxes = [(x["bbox"], THREE[names[1][x["category_id"]]]) for x in part["annotations"]]
    assert boxes == [
        (x["bbox"], names[0][x["category_id"]])
        for x in whole["annotations"]
        if names[0][x["category_id"]] in THREE.values()
    ]
    assert boxes


def test_training_scenes_show_training_images_and_the_same_seed_gives_the_same_bytes(tmp_path):
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    number = {"train": 6, "val": 6}
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        generate_fashion(str(tmp_path / name), seed, number)
    assert np.median(_proportions(tmp_path / "a", "train")) > 1.5
    assert np.median(_proportions(tmp_path / "a", "val")) < 0.8
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b") != _contents(tmp_path / "c")


def test_a_missing_set_is_one_sentence_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION_MNIST", str(tmp_path / "none"))
    with pytest.raises(UserError) as info:
        generate_fashion(str(tmp_path / "fashion_det"))
    text = str(info.value)
    assert "\n" not in text and f"Fashion-MNIST, which is not in {tmp_path} (" in text
    assert "apt-get install dataset-fashion-mnist, or python -c" in text
    assert f"FashionMNIST('{tmp_path}', download=True)" in text
    assert os.listdir(tmp_path) == []


def test_metadata():
    metadata = MetadataCatalog.get("fashion_det_val")
    assert metadata.thing_classes == NAMES and len(NAMES) == 10
    assert metadata.evaluator_type == "coco"


def test_a_silhouette_has_the_black_spots_of_a_garment_and_not_its_large_holes():
    picture = np.zeros((30, 30), np.uint8)
    picture[4:26, 4:26] = 200
    expected = picture > 0
    picture[8:10, 8:11] = 0  # a spot
    picture[15:22, 15:22] = expected[15:22, 15:22] = 0  # as under a handle
    picture[2, 2] = 5  # what a camera sees in black
    assert (silhouette(picture) == expected).all()


def test_grey_levels_are_shades(tmp_path):
    """Ten classes of rising brightness: so are they in the scenes, whatever their colours."""
    write_fashion_mnist(tmp_path / "FashionMNIST" / "raw")
    garments = read_garments(str(tmp_path), is_train=True)
    middle = garments.shade[:10, 15, 15]
    assert (np.diff(middle) > 0).all()
    assert np.isclose(middle[-1], 1.0, atol=1e-6) and middle[0] > DARKEST
    assert np.allclose(garments.shade[:, 0, 0], DARKEST)
    assert garments.opacity[0, 4:26, 9:21].all() and garments.opacity[0].sum() == 22 * 12


@pytest.mark.skipif(not os.path.isdir(DEBIAN_FASHION_MNIST), reason="package not installed")
def test_real_garments(tmp_path):
    generate_fashion(str(tmp_path / "fashion_det"), num_scenes={"train": 30, "val": 30})
    for split in ("train", "val"):
        with open(tmp_path / "fashion_det" / "annotations" / f"{split}.json") as f:
            content = json.load(f)
        assert [c["name"] for c in content["categories"]] == NAMES
        boxes = {c: [] for c in range(1, 11)}
        for annotation in content["annotations"]:
            boxes[annotation["category_id"]].append(annotation["bbox"])
        assert all(boxes.values())
        flat, tall = (
            [h / w for c in classes for _, _, w, h in boxes[NAMES.index(c) + 1]]
            for classes in (["sneaker", "sandal"], ["trousers", "dress"])
        )
        assert np.median(flat) < 0.8 < 1.5 < np.median(tall)
