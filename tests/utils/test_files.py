import os

import pytest

from eakd_det.utils.files import write_atomically


@pytest.mark.parametrize(("mode", "old", "new"), [("w", "old", "new"), ("wb", b"old", b"new")])
def test_failed_write_keeps_the_old_file(tmp_path, mode, old, new):
    path = tmp_path / "file"
    for content, fails in [(old, False), (new, True)]:
        try:
            with write_atomically(str(path), mode) as f:
                f.write(content)
                f.flush()
                assert not fails or path.read_bytes() == b"old"
                if fails:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fails
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_readers_of_the_old_file_are_left_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with open(path) as reader:
        with write_atomically(str(path)) as f:
            f.write("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_two_writers_of_one_path(tmp_path):
    """The last one to finish wins; other files are left alone."""
    path, other = tmp_path / "result.json", tmp_path / "download.incomplete"
    other.touch()
    os.utime(other, (0, 0))
    with write_atomically(str(path)) as first:
        first.write("the first, which is longer")
        with write_atomically(str(path)) as second:
            second.write("the second")
        assert path.read_text() == "the second"
    assert path.read_text() == "the first, which is longer"
    assert sorted(os.listdir(tmp_path)) == ["download.incomplete", "result.json"]
