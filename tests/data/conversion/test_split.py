import random

import pytest

from eakd_det.data.conversion.split import make_grouping, missing_classes, split_dataset
from eakd_det.utils.errors import UserError


def make(names, **more):
    """A COCO dict with an object of the classes 1 and 2 in turn in each image."""
    images = [{"id": 10 + i, "file_name": name, **more} for i, name in enumerate(names)]
    annotations = [
        {"id": i, "image_id": image["id"], "category_id": 1 + i % 2, "bbox": [0, 0, 9, 9]}
        for i, image in enumerate(images)
    ]
    categories = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def names(data):
    return [image["file_name"] for image in data["images"]]


def split(data, fraction=0.1, seed=1, key="source"):
    return split_dataset(data, val_fraction=fraction, seed=seed, group=make_grouping(key))


def test_every_image_and_object_is_in_one_part():
    data = make([f"{i}.jpg" for i in range(50)])
    train, val = split(data)
    assert (len(train["images"]), len(val["images"])) == (45, 5)
    assert sorted(names(train) + names(val)) == sorted(names(data))
    for part in (train, val):
        ids = [image["id"] for image in part["images"]]
        assert [a["image_id"] for a in part["annotations"]] == ids
        assert part["categories"] == data["categories"]


def test_seed_decides_and_the_order_of_images_does_not():
    data = make([f"{i}.jpg" for i in range(50)])
    val = set(names(split(data)[1]))
    random.Random(0).shuffle(data["images"])
    assert set(names(split(data)[1])) == val
    assert set(names(split(data, seed=2)[1])) != val


@pytest.mark.parametrize(
    ("key", "groups"), [("source", 8), ("folder", 2), (r"^\w/(\d)", 4), (r"^\w", 2)]
)
def test_groups_stay_together(key, groups):
    files = [f"{folder}/{i}.jpg" for folder in "ab" for i in range(4)]
    images = [{"file_name": f"{i}.jpg", "source": file} for i in range(5) for file in files]
    data = make(range(40))
    for image, of_image in zip(data["images"], images, strict=True):
        image.update(of_image)
    group = make_grouping(key)
    assert len({group(image) for image in data["images"]}) == groups
    train, val = split(data, 0.5, key=key)
    assert not {*map(group, train["images"])} & {*map(group, val["images"])}
    assert len(val["images"]) == 20


@pytest.mark.parametrize(("fraction", "number"), [(0.01, 1), (0.99, 9), (0.3, 3)])
def test_both_parts_have_images(fraction, number):
    train, val = split(make([f"{i}.jpg" for i in range(10)]), fraction)
    assert (len(train["images"]), len(val["images"])) == (10 - number, number)


def test_the_smallest_group_is_taken_if_none_fits():
    data = make([f"a/{i}.jpg" for i in range(6)] + [f"b/{i}.jpg" for i in range(4)])
    assert {name[0] for name in names(split(data, 0.1, key="folder")[1])} == {"b"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"fraction": 0}, "must be between 0 and 1"),
        ({"fraction": 1.0}, "must be between 0 and 1"),
        ({"key": "folder"}, "one group"),
        ({"key": "(x"}, "no regular expression"),
        ({"key": "^a"}, "does not match the file b.jpg"),
    ],
)
def test_mistakes(options, text):
    with pytest.raises(UserError, match=text):
        split(make(["a.jpg", "b.jpg"]), **options)


def test_missing_classes_are_named():
    data = make([f"{i}.jpg" for i in range(10)])
    train, val = split(data)
    missing = {1: "nut", 2: "bolt"}[val["annotations"][0]["category_id"]]
    [note] = missing_classes(train, val)
    assert f"validation data of: {missing}" in note
    assert [*missing_classes(data, data)] == []
