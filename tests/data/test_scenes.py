import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eakd_det.data import scenes
from eakd_det.data.scenes import MIN_VISIBLE, SIZE, render_scene, write_dataset


@pytest.fixture
def glyphs():
    """Three glyphs: a bar, a ring and a disc."""
    y, x = np.mgrid[:10, :10] - 4.5
    radius = np.hypot(x, y)
    return np.stack([abs(x) < 1.5, (radius < 4.5) & (radius > 2.5), radius < 4]).astype(float)


def _render(glyphs, seed):
    return render_scene(np.random.default_rng(seed), glyphs, np.array([4, 5, 6]))


def _write(root, glyphs, seed=0, count=3):
    splits = {name: (glyphs, np.array([0, 1, 2]), count) for name in ("train", "val")}
    write_dataset(str(root), splits, ["bar", "ring", "disc"], seed)


def _contents(root):
    return {p.relative_to(root): p.read_bytes() for p in Path(root).rglob("*") if p.is_file()}


@pytest.mark.parametrize("seed", range(20))
def test_boxes_are_tight_to_visible_ink(glyphs, seed):
    scene = _render(glyphs, seed)
    assert 1 <= len(scene.classes) <= 9
    assert set(scene.classes) <= {4, 5, 6}
    for i, (x, y, w, h) in enumerate(scene.boxes()):
        pixels = [(r, c) for r in range(SIZE) for c in range(SIZE) if scene.owner[r, c] == i]
        rows, columns = zip(*pixels, strict=True)
        assert (x, y) == (min(columns), min(rows))
        assert (x + w - 1, y + h - 1) == (max(columns), max(rows))


def test_hidden_parts_stay_small(glyphs, monkeypatch):
    """The ink of each glyph is noted when it is placed, and what is left of it at the end."""
    inks = []
    place = scenes._place

    def noted(rng, glyph):
        opacity = place(rng, glyph)
        inks.append(int((opacity > scenes.INK).sum()))
        return opacity

    monkeypatch.setattr(scenes, "_place", noted)
    overlaps = 0
    for seed in range(60):
        inks.clear()
        scene = _render(glyphs, seed)
        if len(inks) != len(scene.classes):
            continue  # one was left out
        for i, ink in enumerate(inks):
            visible = (scene.owner == i).sum()
            assert visible >= MIN_VISIBLE * ink
            overlaps += visible < ink
    assert overlaps > 0, "no overlap in 60 scenes: the check saw nothing"


def test_scenes_vary(glyphs):
    found = [_render(glyphs, seed) for seed in range(30)]
    heights = [box[3] for scene in found for box in scene.boxes()]
    assert max(heights) > 1.4 * min(heights)
    assert len({len(scene.classes) for scene in found}) > 2
    assert np.std([scene.image.mean() for scene in found]) > 5


def test_same_seed_same_bytes(glyphs, tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        _write(tmp_path / name, glyphs, seed)
    assert _contents(tmp_path / "a") == _contents(tmp_path / "b")
    assert _contents(tmp_path / "a") != _contents(tmp_path / "c")


def test_files_are_coco(glyphs, tmp_path):
    _write(tmp_path / "set", glyphs)
    coco = COCO(str(tmp_path / "set" / "annotations" / "train.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["bar", "ring", "disc"]
    assert coco.getCatIds() == [1, 2, 3]
    assert len(set(coco.getAnnIds())) == len(coco.dataset["annotations"]) > 0
    for image in coco.dataset["images"]:
        with Image.open(tmp_path / "set" / "train" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
    for annotation in coco.dataset["annotations"]:
        x, y, w, h = annotation["bbox"]
        assert 0 <= x < x + w <= SIZE
        assert 0 <= y < y + h <= SIZE


def test_cut_off_generation_leaves_nothing(glyphs, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", stop)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "set", glyphs)
    assert os.listdir(tmp_path) == []


def test_two_processes_at_once(glyphs, tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_write, args=(tmp_path / "set", glyphs, 0, 20)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert os.listdir(tmp_path) == ["set"]
