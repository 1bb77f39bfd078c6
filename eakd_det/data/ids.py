"""Ids of images, categories and annotations that every COCO evaluation can use.

COCOeval treats an annotation with the id 0 as no match, faster-coco-eval also those with negative
or text ids, and it rejects images and categories whose ids are text.
"""

from typing import Any

ORIGINAL = "original_id"  # key of an image's or category's former id, if it got a new one
LARGEST = 2**53  # up to which a float represents integers exactly

REFERENCES = {"images": "image_id", "categories": "category_id"}  # list -> key of annotations


def number_ids(data: dict[str, Any]) -> dict[str, dict[Any, int]]:
    """Number the annotations of a COCO dict from 1, and images and categories if necessary.

    Images or categories are numbered, in Detectron2's sorting order, if not all ids are integers.

    Returns:
        "image_id" and "category_id": old id -> new id, empty where the ids stay.
    """
    numbers = {field: _new_ids(data.get(key, ())) for key, field in REFERENCES.items()}
    for key, field in REFERENCES.items():
        if numbers[field]:
            for item in data[key]:
                item[ORIGINAL], item["id"] = item["id"], numbers[field][item["id"]]
    known = {
        field: numbers[field] or {item["id"]: item["id"] for item in data.get(key, ())}
        for key, field in REFERENCES.items()
    }
    for number, annotation in enumerate(data.get("annotations", ()), 1):
        annotation["id"] = number
        for field, ids in known.items():  # also 1.0 becomes 1
            annotation[field] = ids.get(annotation[field], annotation[field])
    return numbers


def original_ids(data: dict[str, Any]) -> dict[str, dict[int, Any]]:
    """Map the ids that `number_ids` gave to the former ones, for "image_id" and "category_id"."""
    return {
        field: {item["id"]: item[ORIGINAL] for item in data.get(key, ()) if ORIGINAL in item}
        for key, field in REFERENCES.items()
    }


def order(identity: Any) -> tuple[bool, Any]:
    """Sorting key of ids: numbers before text."""
    return isinstance(identity, str), identity


def _new_ids(items: list[dict[str, Any]]) -> dict[Any, int]:
    ids = [item["id"] for item in items]
    if all(type(i) is int and abs(i) < LARGEST for i in ids):
        return {}
    return {i: number for number, i in enumerate(sorted(ids, key=order), 1)}
