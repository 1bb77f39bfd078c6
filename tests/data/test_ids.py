from eakd_det.data.ids import number_ids, original_ids


def make(images, categories, annotations):
    return {
        "images": [{"id": i} for i in images],
        "categories": [{"id": i} for i in categories],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category}
            for i, image, category in annotations
        ],
    }


def test_integers_stay_but_for_annotations():
    data = make([0, 90], [5, 3], [(0, 90, 3), (-4, 0.0, 5.0)])
    assert number_ids(data) == {"image_id": {}, "category_id": {}}
    assert data == make([0, 90], [5, 3], [(1, 90, 3), (2, 0, 5)])
    assert all(type(a["image_id"]) is int for a in data["annotations"])
    assert original_ids(data) == {"image_id": {}, "category_id": {}}


def test_other_ids_become_numbers_in_detectron2_s_order():
    data = make(["b", 10, "a", 9.5], ["7", "12"], [("x", "a", "7"), ("y", 10, "12")])
    numbers = number_ids(data)
    assert numbers == {
        "image_id": {9.5: 1, 10: 2, "a": 3, "b": 4},
        "category_id": {"12": 1, "7": 2},
    }
    assert [image["id"] for image in data["images"]] == [4, 2, 3, 1]
    assert data["annotations"] == make([], [], [(1, 3, 2), (2, 2, 1)])["annotations"]
    assert original_ids(data) == {
        field: {new: old for old, new in ids.items()} for field, ids in numbers.items()
    }
    assert number_ids(data) == {"image_id": {}, "category_id": {}}, "once"


def test_what_refers_to_nothing_is_left_to_others():
    data = make([1], [1], [(3, 8, 9)])
    number_ids(data)
    assert data["annotations"] == [{"id": 1, "image_id": 8, "category_id": 9}]
