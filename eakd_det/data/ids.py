"""Ids of COCO's images, categories and annotations that every COCO evaluation takes.

COCOeval takes an annotation with the id 0 for none at all, faster-coco-eval those with negative
ids or text, too, and it refuses images and categories whose ids are text.
"""

from typing import Any

ORIGINAL = "original_id"  # key of an image or category that got a new id: the one that it had
LARGEST = 2**53  # up to which also a float is exact

REFERENCES = {"images": "image_id", "categories": "category_id"}  # those of annotations


def number_ids(data: dict[str, Any]) -> dict[str, dict[Any, int]]:
    """Number the annotations of a COCO dict from 1; images and categories too, if need be.

    They are where not all of their ids are integers, in the order that Detectron2 sorts them in.

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
    """ "image_id" and "category_id": new id -> the one that it replaced, where `number_ids` did."""
    return {
        field: {item["id"]: item[ORIGINAL] for item in data.get(key, ()) if ORIGINAL in item}
        for key, field in REFERENCES.items()
    }


def order(identity: Any) -> tuple[bool, Any]:
    """A key that sorts ids: numbers as numbers, then text as text."""
    return isinstance(identity, str), identity


def _new_ids(items: list[dict[str, Any]]) -> dict[Any, int]:
    ids = [item["id"] for item in items]
    if all(type(i) is int and abs(i) < LARGEST for i in ids):
        return {}
    return {i: number for number, i in enumerate(sorted(ids, key=order), 1)}
