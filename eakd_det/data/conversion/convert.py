"""Conversion of a dataset to COCO format, with splits and tiles, checked as for a training."""

import os
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from eakd_det.data.coco_check import check_coco, summarize
from eakd_det.utils.files import write_json

from .coco import pool, read_coco_source
from .output import TILES, check_output, start_output
from .source import Source
from .split import make_grouping, missing_classes, split_dataset
from .tiles import tile_dataset
from .voc import read_voc
from .yolo import read_yolo

CONFIG = "configs/COCO-Detection/EA-DKD-R18-R101.yaml"  # of the printed command

Splits = dict[str, dict[str, Any]]  # "train", "val", "test" -> COCO dict


def convert(args: Namespace) -> str:
    """Convert a dataset as the command line of tools/convert_data.py says.

    Returns:
        The counts of the result, notes, and the command that trains on it, as text.

    Raises:
        UserError: the source is faulty, or the folder must not be written to.
    """
    divide = _divider(args)
    check_output(args.output, args.source, args.images, overwrite=args.overwrite)
    source = _read(args)
    start_output(args.output, vars(args))
    notes, image_root = source.notes, source.image_root
    is_changed = args.tile is not None or args.val_fraction is not None
    label = "in the source, " if is_changed else ""
    splits = _write(
        args.output, source.splits, image_root, notes, label=label, clip=args.clip_boxes
    )
    if args.val_fraction is not None and "val" in splits:
        notes.append("the source's own training and validation data are divided anew.")
        splits["train"] = pool([splits["train"], splits.pop("val")])
    divided = divide(splits)  # before tiles are cut, which can take long, for its errors
    if args.tile:
        tiles = os.path.join(args.output, TILES)
        divided = divide(_tile(splits, image_root, tiles, args.tile, args.overlap, notes))
        image_root = tiles
    if "val" in divided:
        notes += missing_classes(divided["train"], divided["val"])
    if args.kind == "voc":
        notes += _ignore_difficult(divided)
    splits = _write(args.output, divided, image_root, notes)
    counts = [f"{os.path.join(args.output, s)}.json: {summarize(d)}" for s, d in splits.items()]
    return "\n".join(
        [*counts, *dict.fromkeys(notes), "", _command(args.output, splits, image_root)]
    )


def _divider(args: Namespace) -> Callable[[Splits], Splits]:
    """Return the function that divides the training data, if the command line says so."""
    group = make_grouping(args.group_by)

    def divide(splits: Splits) -> Splits:
        if args.val_fraction is None:
            return splits
        options = {"val_fraction": args.val_fraction, "seed": args.seed, "group": group}
        train, val = split_dataset(splits["train"], **options)
        return {**splits, "train": train, "val": val}

    return divide


def _read(args: Namespace) -> Source:
    if args.kind == "voc":
        return read_voc(args.source, clip=args.clip_boxes)
    if args.kind == "yolo":
        return read_yolo(args.source, clip=args.clip_boxes)
    return read_coco_source(args.source, args.images, clip=args.clip_boxes)


def _write(
    folder: str,
    splits: Splits,
    image_root: str,
    notes: list[str],
    *,
    label: str = "",
    clip: bool = False,
) -> Splits:
    """Write the files of a dataset, and return them as a training would read them.

    Args:
        notes: sentences, to which those of the check are added, after `label`.
    """
    checked = {}
    for split in filter(splits.__contains__, ("train", "val", "test")):
        path = os.path.join(folder, f"{split}.json")
        write_json(path, splits[split], indent=None)
        checked[split] = check_coco(path, image_root, clip=clip)
        notes += [f"{label}{split}: {note}" for note in checked[split].pop("notes")]
        del checked[split]["image_root"]
    return checked


def _tile(
    splits: Splits, image_root: str, folder: str, size: int, overlap: int, notes: list[str]
) -> Splits:
    tiled = {}
    for split, data in splits.items():
        tiled[split] = tile_dataset(data, image_root, folder, size=size, overlap=overlap)
        notes += [f"{split}: {note}" for note in tiled[split].pop("notes")]
    return tiled


def _ignore_difficult(splits: Splits) -> Iterator[str]:
    """Set iscrowd to 1 for VOC's difficult objects of "val" and "test".

    Detectron2's loader of VOC trains them, and the evaluation of VOC ignores them.

    Yields:
        A sentence with their number, if there are any.
    """
    numbers = {}
    for split, data in splits.items():
        found = [a for a in data["annotations"] if a["difficult"]]
        numbers[split] = len(found)
        for annotation in found if split != "train" else ():
            annotation["iscrowd"] = 1
    if any(numbers.values()):
        text = ", ".join(f"{number} in {split}" for split, number in numbers.items())
        yield (
            f"objects that are difficult ({text}) are trained, and ignored in evaluations (iscrowd "
            "1), as Detectron2 does it with Pascal VOC."
        )


def _command(output: str, splits: Splits, image_root: str) -> str:
    """Return the command of a training on the result."""
    words = ["python", "tools/train_net.py", "--config-file", CONFIG, "--teacher", "FOLDER"]
    for split in ("train", "val"):
        if split in splits:
            json_file = os.path.join(output, f"{split}.json")
            words += [f"--{split}-json", json_file, f"--{split}-images", image_root]
    lines = ["Next, with the folder of a trained teacher:", f"  {shlex.join(words)}"]
    if "val" not in splits:
        lines.insert(0, "There are no validation data: --val-fraction 0.1 divides the images.")
    return "\n".join(lines)
