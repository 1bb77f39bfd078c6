import base64
import io

import pytest
from PIL import Image

from eakd_det.report.pictures import LARGEST_SVG, MOST_PICTURES, analyses, detections, together
from eakd_det.utils.errors import UserError


def size(picture):
    content = base64.b64decode(picture.uri.partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        return image.size


def test_a_few_pictures_in_the_order_of_their_numbers(tmp_path, save_picture):
    for number in (2, 10, 1, 30, 21):
        save_picture(tmp_path / "pictures" / f"{number}.png")
    found = detections(tmp_path)
    assert [picture.title for picture in found] == ["image 1", "image 2", "image 10", "image 21"]
    assert len(found) == MOST_PICTURES
    assert size(found[0]) == (1600, 400) == (found[0].width, found[0].height)
    assert len(found[0].uri) < 90_000


def test_the_demos_picture(tmp_path, save_picture):
    assert together(tmp_path) == []
    save_picture(tmp_path / "detections.png")
    assert len(together(tmp_path)) == 1


def test_analyses_are_drawings_where_these_are_small(tmp_path, save_picture):
    folder = tmp_path / "analysis"
    for name in ("tsne", "my_own", "dynamics"):
        save_picture(folder / f"{name}.png")
        (folder / f"{name}.json").write_text("{}")
    (folder / "my_own.svg").write_text("<svg/>")
    (folder / "tsne.svg").write_text("<svg>" + " " * LARGEST_SVG + "</svg>")
    found = analyses(tmp_path)
    assert [picture.title for picture in found] == ["my own", "t-SNE of the penultimate features"]
    assert found[0].uri.startswith("data:image/svg+xml;base64,")
    assert found[1].uri.startswith("data:image/jpeg;base64,")


def test_what_is_no_picture_is_told(tmp_path):
    (tmp_path / "detections.png").write_text("words")
    with pytest.raises(UserError, match=r"detections\.png is not a picture"):
        together(tmp_path)
