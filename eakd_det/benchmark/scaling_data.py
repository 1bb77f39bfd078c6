"""Time of the data check, of reading the annotations and of an evaluation, on generated data."""

import contextlib
import io
import multiprocessing
import os
import pickle
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from detectron2.data.datasets import load_coco_json
from PIL import Image
from pycocotools.coco import COCO

from eakd_det.data.coco_check import check_coco
from eakd_det.evaluation.coco import coco_engine
from eakd_det.utils.files import write_json

TRAIN, VAL = 118_287, 5_000  # images of COCO 2017
CHECKED, EVALUATED = 2_000, 250  # images that are measured
WIDTH, HEIGHT, CLASSES = 640, 480, 80
OBJECTS, DETECTIONS = 7, 100  # of an image
DIFFERENT = 20  # image files; the others are links to them


def measure_data(checked: int = CHECKED, evaluated: int = EVALUATED) -> dict[str, float]:
    """Measure in a process of its own, with an empty cache of checked images.

    Args:
        checked, evaluated: images that are measured; the results are of COCO's numbers of images.

    Returns:
        Seconds of the first check of the training data, of another one whose images are in the
        cache, and in which Detectron2 reads the annotations; seconds of COCOeval, and bytes of the
        detections that it evaluates.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, checked, evaluated).result()


def _measure(checked: int, evaluated: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        path = os.path.join(folder, "train.json")
        data = _annotations(checked)
        write_json(path, data, indent=None)
        _make_images(folder, checked)
        times = [time.perf_counter()]
        for function in (check_coco, check_coco, load_coco_json):
            function(path, folder)
            times.append(time.perf_counter())
    names = ("check_seconds", "cached_check_seconds", "read_seconds")
    seconds = np.diff(times) * TRAIN / checked
    return {**dict(zip(names, seconds.tolist(), strict=True)), **_evaluate(evaluated)}


def _evaluate(images: int) -> dict[str, float]:
    """Measure COCOeval and the detections that the processes send to the first one."""
    truth = COCO()
    truth.dataset = _annotations(images)
    boxes = _annotations(images, DETECTIONS)["annotations"]
    scores = np.random.default_rng(1).random(len(boxes)).tolist()
    keys = ("image_id", "category_id", "bbox")
    found = [{**{k: x[k] for k in keys}, "score": s} for x, s in zip(boxes, scores, strict=True)]
    size = len(pickle.dumps(found))
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        start = time.perf_counter()
        evaluation = coco_engine()(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    seconds = time.perf_counter() - start
    return {"coco_eval_seconds": seconds * VAL / images, "detections_bytes": size * VAL / images}


def _annotations(images: int, objects: int = OBJECTS) -> dict[str, Any]:
    """Return random boxes and polygons in COCO format."""
    random = np.random.default_rng(0)
    corners = random.random((images * objects, 2)) * (WIDTH / 2, HEIGHT / 2)
    sides = 5 + random.random((images * objects, 2)) * (WIDTH / 3, HEIGHT / 3)
    classes = random.integers(CLASSES, size=images * objects) + 1
    annotations = []
    for i, (box, c) in enumerate(zip(np.hstack([corners, sides]).tolist(), classes, strict=True)):
        x, y, w, h = box
        annotations.append(
            {
                "id": i + 1,
                "image_id": i // objects + 1,
                "category_id": int(c),
                "bbox": box,
                "area": w * h,
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h] * 3],
            }
        )
    return {
        "images": [
            {"id": i + 1, "file_name": f"{i:012}.jpg", "width": WIDTH, "height": HEIGHT}
            for i in range(images)
        ],
        "categories": [{"id": c + 1, "name": f"class {c + 1}"} for c in range(CLASSES)],
        "annotations": annotations,
    }


def _make_images(folder: str, number: int) -> None:
    """Save JPEG files of about the size of COCO's, 160 KB, most of them as links to a few."""
    random = np.random.default_rng(0)
    for i in range(number):
        path = os.path.join(folder, f"{i:012}.jpg")
        if i >= DIFFERENT:
            os.link(os.path.join(folder, f"{i % DIFFERENT:012}.jpg"), path)
            continue
        small = random.integers(256, size=(HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
        Image.fromarray(small).resize((WIDTH, HEIGHT)).save(path, quality=85)
