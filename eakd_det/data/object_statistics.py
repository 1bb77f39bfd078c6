"""Counts and sizes of the objects that a dataset trains, which are all but crowds."""

from collections import Counter
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from tabulate import tabulate

from .custom import CustomData

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def class_table(data: dict[str, CustomData]) -> str:
    """Format the number of objects of each class as a table, a column for each of the datasets."""
    counts = {
        split: Counter(a["category_id"] for a in _objects(custom.data))
        for split, custom in data.items()
    }
    first = next(iter(data.values()))
    rows = []
    for category in sorted(first.data["categories"], key=lambda c: c["id"]):
        numbers = {split: counts[split][category["id"]] for split in data}
        absent = " and ".join(split for split, number in numbers.items() if not number)
        rows.append([category["name"], *numbers.values(), f"none in {absent}" if absent else ""])
    headings = ["class", *data, ""]
    return tabulate(rows, headings, disable_numparse=True, colalign=_align(len(data), "left"))


def shorter_edge(cfg: CfgNode, split: str) -> tuple[int, int]:
    """Return the shorter edge to which images are resized, and the most for the longer edge.

    Args:
        split: "train", with the middle one of several edges, or "val".
    """
    if split == "train":
        edges = sorted(cfg.INPUT.MIN_SIZE_TRAIN)
        return edges[len(edges) // 2], cfg.INPUT.MAX_SIZE_TRAIN
    return cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST


def network_boxes(data: dict[str, Any], edges: tuple[int, int]) -> np.ndarray:
    """Return the boxes of a checked COCO dict in pixels of the network's input.

    Args:
        edges: of `shorter_edge`; 0 as the first: images are not resized.

    Returns:
        (N, 4) x1, y1, x2, y2, without crowds.
    """
    objects = _objects(data)
    boxes = np.array([a["bbox"] for a in objects], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    factors = {
        image["id"]: _factors(image["height"], image["width"], *edges) for image in data["images"]
    }
    scale = np.array([factors[a["image_id"]] for a in objects]).reshape(-1, 2)
    return boxes * np.tile(scale, 2)


def size_table(boxes: dict[str, np.ndarray]) -> str:
    """Format quantiles of the size and the aspect ratio of boxes as a table.

    Args:
        boxes: split -> (N, 4) of `network_boxes`, of which those without boxes are left out.
    """
    rows = []
    shapes = {split: b[:, 2:] - b[:, :2] for split, b in boxes.items() if len(b)}
    for split, shape in shapes.items():
        sizes = np.quantile(np.sqrt(shape.prod(axis=1)), QUANTILES)
        rows.append([f"size, {split}", *(f"{size:.0f}" for size in sizes)])
    for split, shape in shapes.items():
        ratios = np.quantile(shape[:, 0] / shape[:, 1], QUANTILES)
        rows.append([f"width / height, {split}", *(f"{ratio:.2f}" for ratio in ratios)])
    headings = ["boxes at the network", *(f"{q:.0%}" for q in QUANTILES)]
    return tabulate(rows, headings, disable_numparse=True, colalign=_align(len(QUANTILES)))


def _objects(data: dict[str, Any]) -> list[dict[str, Any]]:
    return [a for a in data["annotations"] if not a["iscrowd"]]


def _factors(height: int, width: int, short: int, most: int) -> tuple[float, float]:
    if not short:
        return 1.0, 1.0
    new = ResizeShortestEdge.get_output_shape(height, width, short, most)
    return new[1] / width, new[0] / height


def _align(columns: int, *more: str) -> tuple[str, ...]:
    return ("left", *["right"] * columns, *more)
