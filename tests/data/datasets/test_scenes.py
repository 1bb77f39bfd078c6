import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from eakd_det.data.datasets import scenes
from eakd_det.data.datasets.scenes import MIN_VISIBLE, SIZE, Glyphs, render_scene, write_dataset


@pytest.fixture
def glyphs():
    """Three glyphs: a bar, a ring and a disc."""
    y, x = np.mgrid[:10, :10] - 4.5
    radius = np.hypot(x, y)
    return np.stack([abs(x) < 1.5, (radius < 4.5) & (radius > 2.5), radius < 4]).astype(float)


def _render(glyphs, seed):
    return render_scene(np.random.default_rng(seed), Glyphs(glyphs, np.array([4, 5, 6])))


def _write(root, glyphs, seed=0, count=3):
    splits = {name: (Glyphs(glyphs, np.arange(3)), count) for name in ("train", "val")}
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


@pytest.mark.parametrize("seed", range(20))
def test_ink_is_where_the_picture_has_it(glyphs, seed):
    """The pixels of a glyph have its colour, and the free ones around it do not."""
    scene = _render(glyphs, seed)
    for i, (x, y, w, h) in enumerate(scene.boxes()):
        own, near = scene.owner == i, np.zeros_like(scene.owner, dtype=bool)
        near[max(0, y - 3) : y + h + 3, max(0, x - 3) : x + w + 3] = True
        colour = np.median(scene.image[own], axis=0)
        alike = np.abs(scene.image - colour).sum(axis=-1) < 90
        assert alike[own].mean() > 0.7  # the rest is the soft edge
        assert alike[near & (scene.owner == -1)].mean() < 0.1


def test_hidden_parts_stay_small(glyphs, monkeypatch):
    """Each glyph of a scene is one that was placed, hidden by later ones alone, and not much."""
    placed = []
    put = scenes._put

    def noted(glyph, place):
        opacity = put(glyph, place)
        index = next(i for i in range(3) if np.array_equal(glyph, glyphs[i]))
        placed.append((index + 4, opacity > scenes.INK))
        return opacity

    monkeypatch.setattr(scenes, "_put", noted)
    hidden, left_out = 0, 0
    for seed in range(60):
        placed.clear()
        scene = _render(glyphs, seed)
        left_out += len(placed) - len(scene.classes)
        for i, label in enumerate(scene.classes):
            own = scene.owner == i
            shares = [
                own.sum() / ink.sum()
                for its_label, ink in placed
                if its_label == label and ink[own].all() and (scene.owner[ink] >= i).all()
            ]
            assert shares, "no glyph of this class was placed here"
            assert max(shares) >= MIN_VISIBLE
            hidden += max(shares) < 1
    assert hidden > 0, "no overlap in 60 scenes: the check saw nothing"
    assert left_out > 0, "nothing was left out in 60 scenes: the check saw nothing"


def test_a_glyph_s_shade_is_under_its_colour_and_moves_nothing(glyphs):
    """Glyphs that are dark on the left stay so, wherever they lie, and the rest is as without."""
    shade = np.where(np.arange(10) < 5, 0.25, 1.0) * np.ones((3, 10, 1))
    contrasts = []
    for seed in range(20):
        even = _render(glyphs, seed)
        shaded = render_scene(np.random.default_rng(seed), Glyphs(glyphs, np.arange(3), shade))
        assert (shaded.owner == even.owner).all() and len(shaded.classes) == len(even.classes)
        free = even.owner == -1
        free &= np.abs(shaded.image.astype(int) - even.image).sum(-1) > 0
        assert free.mean() < 0.15  # soft edges alone
        for i, (x, y, w, h) in enumerate(even.boxes()):
            own = even.owner[y : y + h, x : x + w] == i
            left, right = (
                np.median(shaded.image[y : y + h, x : x + w][own & half], axis=0).mean()
                for half in (np.arange(w) < 0.35 * w, np.arange(w) > 0.65 * w)
            )
            contrasts.append(left / right)
    assert np.median(contrasts) < 0.5


def test_scenes_vary(glyphs):
    found = [_render(glyphs, seed) for seed in range(30)]
    boxes = np.array([box for scene in found for box in scene.boxes()])
    assert boxes[:, 3].max() > 1.4 * boxes[:, 3].min()
    assert len({len(scene.classes) for scene in found}) > 2
    assert {label for scene in found for label in scene.classes} == {4, 5, 6}
    assert np.std([scene.image.mean() for scene in found]) > 5
    colours = [np.median(scene.image[scene.owner == 0], axis=0) for scene in found]
    assert (np.std(colours, axis=0) > 15).all()


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
    for kind in ("images", "annotations"):
        ids = [entry["id"] for entry in coco.dataset[kind]]
        assert ids == list(range(1, len(ids) + 1))
    assert len(coco.dataset["images"]) == len(os.listdir(tmp_path / "set" / "train")) == 3
    assert {a["image_id"] for a in coco.dataset["annotations"]} == {1, 2, 3}
    for image in coco.dataset["images"]:
        with Image.open(tmp_path / "set" / "train" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
    for annotation in coco.dataset["annotations"]:
        x, y, w, h = annotation["bbox"]
        assert 0 <= x < x + w <= SIZE
        assert 0 <= y < y + h <= SIZE
        assert annotation["area"] == w * h


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
