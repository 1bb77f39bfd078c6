"""The student of a run as a graph, TorchScript or ONNX, which is compared with the model."""

import json
import logging
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from torch import Tensor
from torch.nn import functional as F

from eakd_det.data.custom import register_checked_copy
from eakd_det.evaluation.predictor import class_names
from eakd_det.modeling.build import num_classes
from eakd_det.utils.files import make_folder, write_atomically

from .check import RUNS, Detector, Limits, check_detections, measure
from .images import add_other_size, read_images
from .onnx import load_onnx, require_onnx, write_onnx
from .student import load_run
from .torchscript import load_torchscript, write_torchscript
from .traceable import check_exportable, make_traceable

logger = logging.getLogger(__name__)


class Format(NamedTuple):
    """Format of a graph.

    Attributes:
        file: name of the file.
        title: name in messages.
        require: raises UserError if a package is missing.
        write: writes a file, as `write_torchscript`.
        load: loads it from a path.
    """

    file: str
    title: str
    require: Callable[[], None]
    write: Callable[..., None]
    load: Callable[[str], Detector]


FORMATS = {
    "torchscript": Format(
        "student.ts", "TorchScript", lambda: None, write_torchscript, load_torchscript
    ),
    "onnx": Format("student.onnx", "ONNX Runtime", require_onnx, write_onnx, load_onnx),
}


def export_graph(
    run_dir: str,
    output_dir: str,
    format: str,
    *,
    checkpoint: str | None = None,
    images: str | None = None,
    size: tuple[int, int] | None = None,
) -> str:
    """Export a run's newest checkpoint, or `checkpoint`, as a graph.

    The file gets its name after it gave the detections of the student on five images; the latencies
    of both are logged.

    Args:
        run_dir: OUTPUT_DIR of the run, with its student.yaml.
        output_dir: gets student.ts or student.onnx.
        format: of FORMATS.
        images: folder of the five images, see `read_images`.
        size: height and width of the image that is traced and timed; that of the first of the
            images, as an evaluation resizes it, by default.

    Returns:
        Path of the file.

    Raises:
        UserError: a package is missing, there is no run or no checkpoint, the weights do not fit
            the stock model, the model cannot be exported, or the detections differ.
    """
    chosen = FORMATS[format]
    chosen.require()
    cfg, model, names = load_run(run_dir, checkpoint)
    check_exportable(cfg)
    register_checked_copy(cfg, os.path.join(run_dir, "annotations"))
    source, scenes = read_images(cfg, images)
    example = _resize(next(iter(scenes.values())), size)
    adapter = make_traceable(model, example)
    make_folder(output_dir)
    path = os.path.join(output_dir, chosen.file)
    with write_atomically(path, "wb") as f:
        logger.info("Tracing the student on an image of %s ...", _shape(example))
        chosen.write(adapter, example, f.name, _metadata(cfg, names))
        exported = chosen.load(f.name)
        logger.info("Comparing it with the student on %s ...", source)
        scenes = add_other_size(scenes, tuple(example.shape[1:]))
        _compare(adapter, exported, scenes, _limits(cfg))
    _log_latency(chosen.title, adapter, exported, example)
    megabytes = os.path.getsize(path) / 1e6
    logger.info("%.1f MB; a call takes one image, of any height and width.", megabytes)
    return path


def _resize(image: Tensor, size: tuple[int, int] | None) -> Tensor:
    if size is None:
        return image
    resized = F.interpolate(image[None].float(), size, mode="bilinear", align_corners=False)
    return resized[0].round().to(torch.uint8)


def _metadata(cfg: CfgNode, names: tuple[str, ...]) -> dict[str, str]:
    """Return the properties of the student that its user needs; class_names is a JSON list."""
    return {
        "class_names": json.dumps(class_names(cfg, names)),
        "input_format": cfg.INPUT.FORMAT,
        "min_size_test": str(cfg.INPUT.MIN_SIZE_TEST),
        "max_size_test": str(cfg.INPUT.MAX_SIZE_TEST),
    }


def _limits(cfg: CfgNode) -> Limits:
    node = num_classes(cfg)[0].split(".")[1]
    return Limits(cfg.MODEL[node].SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)


def _compare(
    model: Detector, exported: Detector, images: dict[str, Tensor], limits: Limits
) -> None:
    number, largest = check_detections(model, exported, images, limits)
    sizes = ", ".join(dict.fromkeys(map(_shape, images.values())))
    if not number:
        logger.warning(
            "The student detects nothing on these images (%s), which checks little: name a folder "
            "of others with --images.",
            sizes,
        )
        return
    differences = ", ".join(f"{key} {value:.1g}" for key, value in largest.items())
    logger.info(
        "The same %d detections on %d images of %s; largest differences: %s.",
        *(number, len(images), sizes, differences),
    )


def _log_latency(title: str, model: Detector, exported: Detector, image: Tensor) -> None:
    seconds = measure({"the student in PyTorch": model, title: exported}, image)
    times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    threads = torch.get_num_threads()
    logger.info(
        "Latency at %s, %d thread%s of the CPU, median of %d calls: %s.",
        *(_shape(image), threads, "s" if threads > 1 else "", RUNS, times),
    )


def _shape(image: Tensor) -> str:
    return f"{image.shape[1]} x {image.shape[2]}"
