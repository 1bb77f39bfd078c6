"""Pictures and a JSON file of what a detector finds on images of a user."""

import argparse
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Instances
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from eakd_det.utils.errors import UserError, format_problems
from eakd_det.utils.files import write_atomically, write_json
from eakd_det.utils.visualizer import draw_detections, join_panels

from .predictor import Predictor, read_rgb

RESULT = "predictions.json"
JPEG_QUALITY = 92


def predict(args: argparse.Namespace) -> None:
    """Write a picture of each image with its detections, and predictions.json with all of them.

    After an interruption predictions.json has the images before it.

    Args:
        args: of `tools/predict.py`.

    Raises:
        UserError: there are no images, the output would replace other files, or a detector cannot
            be loaded; after all other images: some could not be read.
    """
    paths = find_images(args.images)
    _check_output(args.output, paths)
    detectors = {"student": Predictor(args.run, args.device, args.score)}
    if args.teacher:
        detectors["teacher"] = Predictor(args.teacher, args.device, args.score)
    os.makedirs(args.output, exist_ok=True)
    names = picture_names(paths)
    entries, problems = [], []
    try:
        for path in tqdm(paths, "predicting", unit="image", delay=2, leave=False):
            try:
                entries.append(_predict(path, detectors, args.output, names[path]))
            except UserError as error:
                problems.append(str(error))
    finally:
        write_json(os.path.join(args.output, RESULT), entries)
    print(_summary(entries, args.output, args.score))
    if problems:
        number = f"{len(problems)} of {len(paths)} images"
        raise UserError(f"{number} could not be read:\n{format_problems(problems)}")


def find_images(texts: Sequence[str]) -> list[str]:
    """Return the paths of the images that files, folders and glob patterns name, each once.

    A folder stands for the image files in it, without its own folders; "**" in a pattern stands for
    any depth.

    Raises:
        UserError: a folder or a pattern has no image.
    """
    paths = []
    for text in texts:
        found = list(_expand(text))
        if not found:
            raise UserError(
                f"{text}: there is no image file ({', '.join(IMG_EXTENSIONS)}). For images in "
                "folders of a folder write a pattern, such as 'folder/**/*.jpg'."
            )
        paths += found
    return list(dict.fromkeys(map(os.path.normpath, paths)))


def _expand(text: str) -> Iterator[str]:
    if os.path.isdir(text):
        paths = [os.path.join(text, name) for name in os.listdir(text) if name[0] != "."]
    elif os.path.exists(text) or not glob.has_magic(text):
        return iter([text])  # a missing file is reported with those that cannot be read
    else:
        paths = glob.glob(text, recursive=True)
    return (p for p in sorted(paths) if p.lower().endswith(IMG_EXTENSIONS) and os.path.isfile(p))


def picture_names(paths: Sequence[str]) -> dict[str, str]:
    """Return path -> file name of its picture, NAME.jpg or NAME_2.jpg where NAME is taken.

    Names differ by more than capitals, for file systems that do not distinguish them.
    """
    names: dict[str, str] = {}
    taken = set()
    for path in paths:
        stem = name = os.path.splitext(os.path.basename(path))[0]
        number = 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names[path] = f"{name}.jpg"
    return names


def _check_output(folder: str, paths: Sequence[str]) -> None:
    """Raise if files other than those of an earlier call could be replaced."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise UserError(f"--output {folder} is a file: name a folder.")
    output = os.path.realpath(folder)
    for path in paths:
        if os.path.dirname(os.path.realpath(path)) == output:
            raise UserError(f"--output {folder} holds the image {path}: name another folder.")
    files = os.listdir(folder) if os.path.isdir(folder) else []
    if files and RESULT not in files:
        raise UserError(
            f"--output {folder} holds other files: name a new or empty folder, or that of earlier "
            "predictions, which are replaced."
        )


def _predict(
    path: str, detectors: dict[str, Predictor], output: str, picture: str
) -> dict[str, Any]:
    """Draw the detections on an image; return its entry in predictions.json."""
    image = read_rgb(path)
    found = {title: detector(image) for title, detector in detectors.items()}
    panels = [
        draw_detections(image, instances, detectors[title].class_names)
        for title, instances in found.items()
    ]
    sheet = join_panels([panels], list(found)) if len(panels) > 1 else Image.fromarray(panels[0])
    with write_atomically(os.path.join(output, picture), "wb") as f:
        sheet.save(f, format="JPEG", quality=JPEG_QUALITY)
    lists = {
        title: describe(instances, detectors[title].class_names)
        for title, instances in found.items()
    }
    entry = {"file": path, "picture": picture, "width": image.shape[1], "height": image.shape[0]}
    entry["detections"] = lists.pop("student")
    return entry | lists


def describe(found: Instances, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return class, score and box [x1, y1, x2, y2] of each detection, the surest first.

    A mask is added as "segmentation", COCO's compressed RLE, and keypoints as COCO has them.
    """
    boxes = found.pred_boxes.tensor.tolist()
    results = []
    for box, result in zip(boxes, instances_to_coco_json(found, 0), strict=True):
        others = {key: result[key] for key in ("segmentation", "keypoints") if key in result}
        results.append(
            {
                "class": names[result["category_id"]],
                "score": round(result["score"], 4),
                "box": [round(x, 2) for x in box],
                **others,
            }
        )
    return results


def _summary(entries: list[dict[str, Any]], output: str, score: float) -> str:
    counts = Counter(found["class"] for entry in entries for found in entry["detections"])
    by_class = ", ".join(f"{name}: {number}" for name, number in counts.most_common())
    text = f"Images: {len(entries)}. Detections of score {score:g} or more: {counts.total()}"
    return f"{text} ({by_class or 'a lower --score draws more'}).\n{os.path.join(output, RESULT)}"
