"""eakd_det.data.datasets.glyphs."""

import logging
import multiprocessing
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import ImageFont

from eakd_det.data.datasets import glyphs
from eakd_det.data.datasets.glyphs import CLASSES, draw, draw_split, read_glyphs
from eakd_det.data.datasets.typefaces import Face, find_fonts, read_faces
from eakd_det.utils.errors import UserError

FILES = Path(matplotlib.get_data_path(), "fonts", "ttf")
NAMES = {"DejaVuSans": "train", "DejaVuSerif": "train", "DejaVuSansMono": "test"}
FONTS = [str(FILES / f"{name}.ttf") for name in NAMES]
FACES = [Face(x, split, "fonts-x", f"{x}.ttf", "", "") for x, split in NAMES.items()]


@pytest.fixture
def few(monkeypatch):
    """A set of two training images and a test image of each class, from matplotlib's fonts."""
    monkeypatch.setattr(glyphs, "PER_CLASS", {"train": 2, "test": 1})
    monkeypatch.setattr(glyphs, "read_faces", lambda: FACES)
    monkeypatch.setattr(glyphs, "find_fonts", lambda faces, root: FONTS)


def font(name="DejaVuSans"):
    return ImageFont.truetype(str(FILES / f"{name}.ttf"), glyphs.EM)


def test_classes():
    assert len(set(CLASSES)) == len(CLASSES) == 100
    scripts = {unicodedata.name(c).split()[0] for c in CLASSES}
    assert {"DIGIT", "LATIN", "GREEK", "CYRILLIC"} < scripts


def test_a_set_is_drawn_once_and_read(few, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    images, labels = read_glyphs(str(tmp_path), is_train=True)
    assert images.shape == (200, 24, 24) and labels.tolist() == [i // 2 for i in range(200)]
    assert not (images[0] == images[1]).all()
    test, labels = read_glyphs(str(tmp_path), is_train=False)
    assert test.shape == (100, 24, 24) and labels.tolist() == list(range(100))
    assert caplog.text.count("Drawing glyphs100 from 3 font files") == 1
    assert "results differ slightly" in caplog.text  # these are other pixels than the reference's
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == [
        "record.json",
        "test.npy",
        "train.npy",
    ]


def test_the_same_seed_draws_the_same_bytes(few, monkeypatch):
    first = draw_split("test", FACES, FONTS)
    assert np.array_equal(first, draw_split("test", FACES, FONTS))
    monkeypatch.setattr(glyphs, "SEED", 1)
    assert not np.array_equal(first, draw_split("test", FACES, FONTS))


def test_a_split_shows_its_own_typefaces_and_their_characters_alone(few, monkeypatch):
    shown = []

    def note(font, character, around, rng):
        shown.append((Path(font.path).stem, character, "".join(around)))
        return np.zeros((24, 24), np.uint8)

    monkeypatch.setattr(glyphs, "draw", note)
    faces = [FACES[0], Face(*("DejaVuSerif", "train", "fonts-x", "b.ttf", "", "0Θ")), FACES[2]]
    draw_split("train", faces, FONTS)
    assert {name for name, *_ in shown} == {"DejaVuSans", "DejaVuSerif"}
    assert {name for name, character, _ in shown if character in "0Θ"} == {"DejaVuSans"}
    assert all("Θ" not in around for name, _, around in shown if name == "DejaVuSerif")


@pytest.mark.parametrize("character", ["W", "l", "ζ", "Ъ"])
def test_a_glyph_is_in_the_middle(character):
    mean = np.mean(
        [draw(font(), character, " ", np.random.default_rng(i)).astype(float) for i in range(60)], 0
    )
    ink = mean - np.percentile(mean, 20)
    rows, columns = np.indices(ink.shape) - 11.5
    row, column = (ink * rows).sum() / ink.sum(), (ink * columns).sum() / ink.sum()
    assert abs(row) < 2.3 and abs(column) < 1.2
    assert mean[6:18, 6:18].mean() > 1.3 * mean[:, :2].mean()


def _read(root, queue):
    glyphs.PER_CLASS = {"train": 2, "test": 1}
    glyphs.read_faces, glyphs.find_fonts = lambda: FACES, lambda faces, root: FONTS
    generate = glyphs.generate_glyphs
    glyphs.generate_glyphs = lambda *args: (queue.put("generates"), generate(*args))
    queue.put(read_glyphs(root, is_train=False)[0].numpy().tobytes())


def test_two_processes_generate_once(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=_read, args=(str(tmp_path), queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=60) for _ in range(3)]
    for process in processes:
        process.join()
    images = [x for x in found if x != "generates"]
    assert len(images) == 2 and images[0] == images[1]


def test_the_reference_of_a_few_images(tmp_path):
    """The installed fonts draw what they should, with whatever library."""
    faces = read_faces()
    try:
        fonts = find_fonts(faces, str(tmp_path))
    except UserError as error:
        pytest.skip(str(error)[:120])
    for i in range(0, len(faces), 60):
        face = faces[i]
        character = next(c for c in CLASSES if c not in face.without)
        loaded = ImageFont.truetype(fonts[i], glyphs.EM)
        assert draw(loaded, character, "a", np.random.default_rng(0)).std() > 5
