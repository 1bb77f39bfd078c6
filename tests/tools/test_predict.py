import json
import shutil

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask

from eakd_det.evaluation.predictions import describe, find_images, picture_names
from eakd_det.utils.drawing import MIN_WIDTH
from eakd_det.utils.errors import UserError
from eakd_det.utils.visualizer import GAP, TITLE_HEIGHT
from tests.evaluation.runs import save_run

NAMES = ["ant", "bee", "cat", "dog", "elk"]


@pytest.fixture
def run_dir(stock_cfg, tmp_path):
    stock_cfg.INPUT.MIN_SIZE_TEST = 96
    return save_run(tmp_path / "run", stock_cfg, NAMES)


@pytest.fixture
def photos(batch, tmp_path):
    """Images in a folder and one below it, of which two have the same name, and other files."""
    images = [x["image"].permute(1, 2, 0).numpy() for x in batch]
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for name, image in [("a.png", images[0]), ("b.JPG", images[1]), ("more/A.png", images[1])]:
        Image.fromarray(image).save(tmp_path / "photos" / name)
    for name in (".a.png", "notes.txt"):
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_files_folders_and_patterns(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    assert find_images(["photos"]) == ["photos/a.png", "photos/b.JPG"]
    assert find_images(["photos/**/*.png"]) == ["photos/a.png", "photos/more/A.png"]
    assert find_images(["photos/*"]) == ["photos/a.png", "photos/b.JPG"]
    assert find_images(["./photos/b.JPG", "photos", "gone.png"]) == [
        *("photos/b.JPG", "photos/a.png", "gone.png")
    ]
    (photos / "[1].png").touch()
    assert find_images(["photos/[1].png"]) == ["photos/[1].png"]
    for text in (".", "photos/*.bmp"):
        with pytest.raises(UserError, match="there is no image file .* write a pattern"):
            find_images(["photos", text])


def test_pictures_with_equal_names():
    paths = ["x/a.png", "y/A.jpg", "y/a_2.jpg", "y/a.tar.png"]
    assert list(picture_names(paths).values()) == ["a.jpg", "A_2.jpg", "a_2_2.jpg", "a.tar.jpg"]


def test_masks_are_run_length_encoded():
    found = Instances((4, 6))
    found.pred_boxes = Boxes(torch.tensor([[1.0, 1.004, 3, 3.006]]))
    found.scores, found.pred_classes = torch.tensor([0.87654321]), torch.tensor([1])
    found.pred_masks = torch.zeros(1, 4, 6, dtype=torch.bool)
    found.pred_masks[0, 1:3, 1:3] = True
    [result] = json.loads(json.dumps(describe(found, ["bolt", "nut"])))
    rle = result.pop("segmentation")
    assert result == {"class": "nut", "score": 0.8765, "box": [1.0, 1.0, 3.0, 3.01]}
    assert np.array_equal(mask.decode(rle), found.pred_masks[0].numpy())


def test_tool(run_dir, photos, call_tool, tmp_path):
    """Pictures and JSON of a folder and a pattern; broken images do not stop the others."""
    (photos / "broken.jpg").write_bytes(b"no image")
    words = (run_dir, "photos", "photos/**/A.png", "gone.png", "--output", "out", "--score", "0.1")
    code, out, err = call_tool("predict.py", *words)
    assert code == 1
    assert err.splitlines()[-3:] == [
        "error: 2 of 5 images could not be read:",
        "  photos/broken.jpg cannot be read: cannot identify image file 'photos/broken.jpg'",
        "  no file gone.png",
    ]
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(entry["file"], entry["picture"]) for entry in entries] == [
        ("photos/a.png", "a.jpg"),
        ("photos/b.JPG", "b.jpg"),
        ("photos/more/A.png", "A_2.jpg"),
    ]
    number = sum(len(entry["detections"]) for entry in entries)
    assert out.startswith(f"Images: 3. Detections of score 0.1 or more: {number} (")
    pictures = {"a.jpg", "b.jpg", "A_2.jpg", "predictions.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == pictures
    for entry in entries:
        assert entry["detections"]
        for found in entry["detections"]:
            assert found["class"] in NAMES and 0.1 <= found["score"] <= 1
            x1, y1, x2, y2 = found["box"]
            assert 0 <= x1 < x2 <= entry["width"] and 0 <= y1 < y2 <= entry["height"]


def test_the_teacher_s_picture_is_beside(run_dir, teacher_cfg, photos, call_tool, tmp_path):
    teacher = save_run(tmp_path / "teacher", teacher_cfg)
    words = (run_dir, "photos/a.png", "--output", "out", "--score", "0")
    code, out, err = call_tool("predict.py", *words, "--teacher", teacher)
    assert code == 0, out + err
    [entry] = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert {found["class"] for found in entry["detections"]} <= set(NAMES)
    assert entry["teacher"][0]["class"].startswith("class ")
    height = int(96 * MIN_WIDTH / 128)
    expected = 2 * (MIN_WIDTH + GAP), TITLE_HEIGHT + height + GAP
    assert Image.open(tmp_path / "out" / "a.jpg").size == expected
    code, out, err = call_tool("predict.py", *words)  # replaces them
    assert code == 0, out + err
    assert Image.open(tmp_path / "out" / "a.jpg").size == (MIN_WIDTH, height)


def test_no_file_of_a_user_is_replaced(run_dir, photos, call_tool, tmp_path):
    shutil.copytree(photos, tmp_path / "copy")
    for output, text in [
        ("photos", "--output photos holds the image photos/a.png: name another folder."),
        ("copy", "--output copy holds other files: name a new or empty folder"),
        ("copy/a.png", "--output copy/a.png is a file: name a folder."),
    ]:
        code, _, err = call_tool("predict.py", run_dir, "photos", "--output", output)
        assert code == 1
        assert err.splitlines()[-1].startswith(f"error: {text}")
    code, _, err = call_tool("predict.py", tmp_path, "photos", "--output", "out")
    assert code == 1 and "has no config: there is no student.yaml or config.yaml" in err
    assert not (tmp_path / "out").exists()
