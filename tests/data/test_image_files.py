import logging
import os

import numpy as np
import pytest
from PIL import Image

from eakd_det.data import image_files
from eakd_det.data.image_files import cache_folder, check_image_file, check_image_files

from .test_coco_check import save_image


@pytest.fixture
def paths(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png")]
    save_image(paths[0], orientation=6)
    save_image(paths[1])
    return paths


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened."""
    opened = []

    def check(path):
        opened.append(os.path.basename(path))
        return check_image_file(path)

    monkeypatch.setattr(image_files, "check_image_file", check)
    return opened


def test_what_has_not_changed_is_not_opened_again(paths, opened):
    expected = [check_image_file(path) for path in paths]
    assert [file[:3] for file in expected] == [(60, 40, 6), (60, 40, 1)]
    assert check_image_files(paths) == expected
    assert check_image_files(paths[::-1]) == expected[::-1]
    assert sorted(opened) == ["a.jpg", "b.png"]
    opened.clear()
    save_image(paths[1], size=(61, 40))
    first, second = check_image_files(paths)
    assert (first, second[:3]) == (expected[0], (61, 40, 1))
    assert opened == ["b.png"]
    opened.clear()
    assert check_image_files(paths, again=True)[0] == expected[0]
    assert sorted(opened) == ["a.jpg", "b.png"]


def test_problems_are_not_cached(paths, opened):
    os.remove(paths[0])
    for _ in range(2):
        first, second = check_image_files(paths)
        assert first.problem == f"no file {paths[0]}"
        assert second == check_image_file(paths[1])
    assert sorted(opened) == ["a.jpg", "a.jpg", "b.png"]


def test_no_files():
    assert check_image_files([]) == []


def test_a_cache_that_cannot_be_written(paths, tmp_path, monkeypatch, caplog, opened):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert [file[:3] for file in check_image_files(paths)] == [(60, 40, 6), (60, 40, 1)]
    assert f"{cache_folder()} cannot be written" in caplog.text
    assert "Set XDG_CACHE_HOME to another folder" in caplog.text


RAMP = np.arange(64).reshape(8, 8)


@pytest.mark.parametrize("is_big", [False, True])
@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", RAMP.astype(np.uint16)),
        ("a.tif", RAMP.astype(np.uint16)),
        ("b.tif", RAMP.astype(np.int32)),
        ("c.tif", RAMP.astype(np.float32)),
    ],
)
def test_more_than_8_bits(tmp_path, name, pixels, is_big):
    """Values up to 255 are read as they are; others would be clipped."""
    path = str(tmp_path / name)
    Image.fromarray(pixels * 9 if is_big else pixels).save(path)
    fault = check_image_file(path).problem
    if is_big:
        assert fault.startswith(f"{path} has values from 0 to 567 (mode ")
        assert "save it with 8 bits a channel" in fault
    else:
        assert not fault


def test_decimals_up_to_1_would_be_black(tmp_path):
    path = str(tmp_path / "a.tif")
    for pixels, is_fault in [(RAMP / 63, True), (RAMP - 1.0, True), (0.0 * RAMP, False)]:
        Image.fromarray(pixels.astype(np.float32)).save(path)
        assert bool(check_image_file(path).problem) == is_fault
    Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(path)
    assert "has values from nan to nan (mode F)" in check_image_file(path).problem


def test_16_bits_of_a_big_endian_file(tmp_path):
    path = str(tmp_path / "a.tif")
    Image.frombytes("I;16B", (8, 8), (RAMP * 9).astype(">u2").tobytes()).save(path)
    assert "has values from 0 to 567 (mode I;16B)" in check_image_file(path).problem


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_images_that_look_the_same_have_nearly_the_same_fingerprint(tmp_path, mode):
    """Smaller, in another mode or file format: at most 4 of 64 bits differ."""
    picture = Image.effect_noise((12, 9), 90).resize((240, 180), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.png")
    expected = check_image_file(str(tmp_path / "a.png")).fingerprint
    path = tmp_path / ("b.png" if mode in ("1", "P", "RGBA", "I;16") else "b.tif")
    picture.resize((120, 90)).convert(mode).save(path)
    file = check_image_file(str(path))
    assert not file.problem
    assert (file.fingerprint ^ expected).bit_count() <= 4
