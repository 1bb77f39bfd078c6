"""Reading of COCO-format files as exporters write them."""

import json
import math
from typing import Any

from eakd_det.utils.errors import UserError

REQUIRED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id", "bbox"),
    "categories": ("id", "name"),
}
IDS = ("id", "image_id", "category_id")


def read_coco(json_file: str) -> dict[str, Any]:
    """Load the COCO dict of a file of objects; keys whose value is null are treated as missing.

    Annotations without an id get "number N" as their id, counted from 1.

    Raises:
        UserError: the file is not a COCO file of objects.
    """
    data = _load(json_file)
    for key, fields in REQUIRED.items():
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise UserError(f"{json_file} is not a COCO file of objects: it has no list {key!r}.")
        data[key] = [_without_nulls(item) for item in data[key]]
        for number, item in enumerate(data[key], 1):
            if key == "annotations":
                item.setdefault("id", f"number {number}")
            problem = _problem(item, fields)
            if problem:
                raise UserError(f"{json_file}: one of {key} {problem}: {item}")
    for key in ("images", "categories"):
        if not data[key]:
            raise UserError(f"{json_file} has no {key}.")
    for category in data["categories"]:
        category["name"] = str(category["name"])
    return data


def _load(json_file: str) -> Any:
    try:
        with open(json_file, encoding="utf-8-sig") as f:  # with or without a byte order mark
            return json.load(f)
    except OSError as error:
        raise UserError(f"{json_file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise UserError(f"{json_file} is not valid JSON: {error}.") from error


def _without_nulls(item: Any) -> dict[str, Any]:
    return {k: v for k, v in item.items() if v is not None} if isinstance(item, dict) else {}


def _problem(item: dict[str, Any], fields: tuple[str, ...]) -> str:
    missing = [field for field in fields if field not in item]
    if missing:
        return f"lacks {', '.join(missing)}"
    for field in IDS:
        value = item.get(field, 0)
        if not isinstance(value, int | float | str) or value != value or value in _INFINITE:
            return f"has an {field} that is neither a number nor text"
    if not isinstance(item.get("file_name", ""), str):
        return "has a file_name that is not text"
    return ""


_INFINITE = (math.inf, -math.inf)
