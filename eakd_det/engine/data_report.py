"""Report of `tools/train_net.py --check` about a user's own data."""

import os
from collections.abc import Iterator

import numpy as np
from detectron2.config import CfgNode

from eakd_det.data.anchor_match import too_small
from eakd_det.data.coco_check import total_counts
from eakd_det.data.contact_sheet import write_contact_sheet
from eakd_det.data.custom import CustomData
from eakd_det.data.image_files import check_image_files
from eakd_det.data.near_duplicates import MOST_PAIRS, find_near_duplicates
from eakd_det.data.object_statistics import class_table, network_boxes, shorter_edge, size_table
from eakd_det.modeling.anchors import anchor_levels, anchor_node

SOME = 0.05  # least fraction of boxes that are too small for the anchors from which it is reported


def report_data(cfg: CfgNode, data: dict[str, CustomData]) -> Iterator[str]:
    """Write the contact sheets of checked data, and yield the paragraphs of the report.

    Args:
        data: under "train" and "val", of `prepare_custom_data`.
    """
    edges = {split: shorter_edge(cfg, split) for split in data}
    boxes = {split: network_boxes(custom.data, edges[split]) for split, custom in data.items()}
    yield "\n".join(f"{custom.name}: {total_counts(custom.data)}" for custom in data.values())
    yield class_table(data)
    if any(map(len, boxes.values())):
        yield size_table(boxes)
        yield "\n".join(f"{split}: {_resize(*edges[split])}" for split in data)
    for custom in data.values():
        yield f"{custom.name}: images with their boxes are drawn in {write_contact_sheet(custom)}"
    if len(data) == 2:
        yield _near_duplicates(data["train"], data["val"])
    yield from _anchor_warnings(cfg, data, boxes)
    notes = [note for custom in data.values() for note in custom.notes]
    if notes:
        yield "\n".join(notes)


def _resize(short: int, most: int) -> str:
    if not short:
        return "images are not resized"
    return f"images are resized to a shorter edge of {short} pixels, a longer one of at most {most}"


def _near_duplicates(train: CustomData, val: CustomData) -> str:
    """List the images of both datasets that look much the same, by the hashes of the check."""
    fingerprints = []
    for custom in (train, val):
        paths = [os.path.join(custom.image_root, x["file_name"]) for x in custom.data["images"]]
        fingerprints.append([file.fingerprint for file in check_image_files(paths)])
    found = find_near_duplicates(*fingerprints)
    if not found.images:
        return "No image of the validation data looks like one of the training data."
    names = [[x["file_name"] for x in custom.data["images"]] for custom in (train, val)]
    pairs = [f"  {names[1][j]} looks like {names[0][i]}" for i, j in found.pairs]
    shown = f" (the first {MOST_PAIRS} pairs)" if len(pairs) == MOST_PAIRS else ""
    return "\n".join(
        [
            f"{found.images} of {len(names[1])} validation images look much like a training image"
            f"{shown}: if they show the same, the AP is too high; move them to one side.",
            *pairs,
        ]
    )


def _anchor_warnings(
    cfg: CfgNode, data: dict[str, CustomData], boxes: dict[str, np.ndarray]
) -> Iterator[str]:
    """Yield a sentence for each dataset with boxes that are too small for the anchors."""
    node = anchor_node(cfg)
    if not node:
        return
    levels, threshold = anchor_levels(cfg), cfg.MODEL[node].IOU_THRESHOLDS[-1]
    smallest = min(np.sqrt(level.shapes.prod(axis=1)).min() for level in levels)
    for split, custom in data.items():
        small = too_small(boxes[split], levels, threshold)
        if len(small) and small.mean() >= SOME:
            yield (
                f"{custom.name}: {small.mean():.0%} of the boxes are too small for the anchors. "
                f"The smallest anchor has {smallest:.0f} pixels, and none reaches an IoU of "
                f"{threshold:g} (MODEL.{node}.IOU_THRESHOLDS) with them, so that each has its best "
                "anchor alone to learn from. Make the anchors smaller "
                "(MODEL.ANCHOR_GENERATOR.SIZES), the images larger (INPUT.MIN_SIZE_TRAIN and "
                "MIN_SIZE_TEST), or tiles of the images (tools/convert_data.py coco --tile)."
            )
