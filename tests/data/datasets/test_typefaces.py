"""eakd_det.data.datasets.typefaces."""

import hashlib
from collections import Counter

import pytest

from eakd_det.data.datasets.glyphs import CLASSES
from eakd_det.data.datasets.typefaces import FONTS, UNPACKED, Face, find_fonts, read_faces
from eakd_det.utils.errors import UserError

DATA = b"a font"


@pytest.fixture
def face():
    return Face("A", "train", "fonts-a", "truetype/a/A.ttf", hashlib.sha256(DATA).hexdigest(), "")


def write(folder, face, data=DATA):
    path = folder / FONTS / face.file
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return str(path)


def test_the_table():
    faces = read_faces()
    assert len({face.file for face in faces}) == len({face.sha256 for face in faces}) == len(faces)
    splits = {(face.family, face.split) for face in faces}
    assert len(splits) == len({family for family, _ in splits}) == 164
    assert Counter(split for _, split in splits) == {"train": 114, "test": 50}
    for face in faces:
        assert set(face.without) < set(CLASSES) and face.package.startswith("fonts-")
    for character in CLASSES:  # each has many typefaces
        having = {(f.split, f.family) for f in faces if character not in f.without}
        counts = Counter(split for split, _ in having)
        assert counts["train"] >= 40 and counts["test"] >= 19


def test_unpacked_packages_come_before_installed_ones(face, tmp_path):
    installed = write(tmp_path / "system", face)
    options = {"root": str(tmp_path / "data"), "system": str(tmp_path / "system")}
    assert find_fonts([face], **options) == [installed]
    unpacked = write(tmp_path / "data" / UNPACKED, face)
    assert find_fonts([face], **options) == [unpacked]


def test_missing_fonts_are_one_sentence_with_the_commands(face, tmp_path):
    with pytest.raises(UserError) as info:
        find_fonts([face, face], str(tmp_path), str(tmp_path))
    text = str(info.value)
    assert (
        "\n" not in text and f"2 are missing, the first is {tmp_path}/{FONTS}/{face.file}" in text
    )
    assert "apt-get install fonts-a; or without root" in text
    assert f"cd {tmp_path / UNPACKED} && apt-get download fonts-a && for p in" in text


def test_another_file_is_named(face, tmp_path):
    path = write(tmp_path, face, b"another")
    with pytest.raises(UserError, match="its SHA256 is .* not .* apt-get install fonts-a") as info:
        find_fonts([face], str(tmp_path / "data"), str(tmp_path))
    assert str(info.value).startswith(f"{path} is not the file of fonts-a in Debian 12: ")
