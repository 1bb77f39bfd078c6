import pytest

from eakd_det.data.file_names import correct_file_names


@pytest.fixture
def correct(tmp_path):
    """Corrects names in a folder "val" that holds some files; the new names and the sentences."""
    for name in ("a.png", "b c.png", "cam 1/a.png"):
        path = tmp_path / "val" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def correct(*names):
        images = [{"file_name": name} for name in names]
        notes = [*correct_file_names(images, str(tmp_path / "val"))]
        return [image["file_name"] for image in images], notes

    return correct


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("b%20c.png", "b c.png"),
        ("cam%201\\a.png", "cam 1/a.png"),
        ("C:\\parts\\val\\b c.png", "b c.png"),
        ("/home/ann/cam 1/a.png", "cam 1/a.png"),
        ("s3://bucket/parts/b%20c.png", "b c.png"),
        ("../upload/4/b c.png", "b c.png"),
        ("/data/local-files/?d=b%20c.png", "b c.png"),
        ("parts/val/cam 1/a.png", "cam 1/a.png"),
    ],
)
def test_names_of_other_places(correct, name, expected):
    names, notes = correct("a.png", name)
    assert names == ["a.png", expected]
    assert notes == [
        f"1 of 2 images are found under another name than in the JSON, as {name!r} under "
        f"{expected!r}."
    ]


@pytest.mark.parametrize("name", ["train/a.png", "d.png", "", "val"])
def test_files_of_another_folder_are_not_taken(correct, name):
    assert correct(name) == ([name], [])


def test_a_file_belongs_to_one_name(correct):
    names = ["x:/one/a.png", "x:/two/a.png"]
    assert correct(*names) == (names, [])
    assert correct("a.png", names[0]) == (["a.png", names[0]], [])


def test_slashes_change_silently_and_repeated_files_are_reported(correct):
    names, notes = correct("cam 1\\a.png", "cam 1\\a.png")
    assert names == 2 * ["cam 1/a.png"]
    assert len(notes) == 1 and notes[0].startswith(
        "1 of 2 images are files that are listed already"
    )
